"""How long a body may take to come: a body of one byte now and then would hold its connection for ever.

The rule is that of Apache's ``RequestReadTimeout body=30,MinRate=…``: some seconds to begin with, and more for what has
come. A pause may be no longer than those seconds either, however much came before it.
"""

from __future__ import annotations

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error

BODY_SECONDS = 30.0


def body_deadline(began: float, received: int, now: float, bytes_per_second: int) -> float:
    """When the next of a body has to be there, that ``began`` then and of which so much has been ``received``."""
    return min(now, began + received / bytes_per_second) + BODY_SECONDS


def too_slow(bytes_per_second: int) -> Answer:
    """What the sender of a body is told that did not come in time."""
    message = (
        f"the body came too slowly, and is not complete: it may pause for {BODY_SECONDS:g} seconds, and take as long "
        f"besides the time for {bytes_per_second} bytes a second (min_body_bytes_per_second)"
    )
    return error(Code.REQUEST_TIMEOUT, message)

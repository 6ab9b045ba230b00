"""Trust in the gateway's own certificate, and in no other; and what is said where TLS fails."""

from __future__ import annotations

import ssl
from pathlib import Path

from stoker.errors import StokerError

_BEGIN = "-----BEGIN CERTIFICATE-----"
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_END = "-----END CERTIFICATE-----"


def pinned(certfile: Path) -> ssl.SSLContext:
    """Trusts nobody but the bearer of the first certificate in the file, by whatever name it is called.

    Raises StokerError where the file is not to be used. Blocks.
    """
    try:
        text = certfile.read_text()
        first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
        context = ssl.create_default_context(cadata=first)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise StokerError(f"the certificate of the gateway, {certfile}, can't be used: {error}") from error
    context.check_hostname = False
    context.verify_flags = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


def tls_failure(error: BaseException | None) -> str | None:
    """What went wrong with TLS, if that is behind ``error``."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            if getattr(error, "reason", None) in _NO_TLS:  # one that Python itself raises has none
                return "it speaks no TLS (should its address begin with http://?)"
            return str(getattr(error, "verify_message", None) or error)
        error = error.__cause__ or error.__context__
    return None

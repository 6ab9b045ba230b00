"""The access log: a line for each request that is over. An observer as plugins have them, off the request path."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from logging.handlers import WatchedFileHandler

import attrs

from stoker.errors import StokerError
from stoker.log_formats import FIELDS, formatter
from stoker.model import RequestRecord

TO_STDERR = "-"


@attrs.frozen
class AccessLog:
    """Tells ``logger`` of every request that is over: who asked for what, who answered, how long it took.

    Never what was said, and no keys.
    """

    logger: logging.Logger
    plugin: str = "access-log"

    def __call__(self, **arguments: object) -> None:
        """Write one line. Raises OSError where it can't be written: whoever tells observers counts that."""
        record = arguments["record"]
        assert isinstance(record, RequestRecord)
        fields = {
            "path": record.path,
            "status": record.status,
            "model": record.asked,
            "engine": record.engine_id,
            "caller": record.caller,
            "stream": record.stream,
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "waited_seconds": _rounded(record.waited_seconds),
            "first_byte_seconds": _rounded(record.first_byte_seconds),
            "duration_seconds": _rounded(record.duration_seconds),
            "received_bytes": record.received_bytes,
            "sent_bytes": record.sent_bytes,
            "attempts": record.attempts,
            "request_id": record.request_id,
            "trace_id": record.trace_id,
            "error": record.error,
        }
        there = {name: value for name, value in fields.items() if value not in (None, "")}
        self.logger.info("request", extra={FIELDS: there})


@contextlib.contextmanager
def open_access_log(place: str, log_format: str) -> Iterator[AccessLog]:
    """The access log at ``place``: a file, or ``-``, which is where everything else is logged. Blocks.

    A file that is moved aside, as logrotate does it, is opened anew. Raises StokerError for one that can't be opened.
    """
    if place == TO_STDERR:
        yield AccessLog(logging.getLogger("stoker.access"))
        return
    try:
        file = _File(place, encoding="utf-8")
    except OSError as error:
        raise StokerError(
            f"the access log {place} can't be opened: {error.strerror}; see access_log in [gateway]"
        ) from error
    with contextlib.closing(file):
        file.setFormatter(formatter(log_format))
        logger = logging.Logger("stoker.access", logging.INFO)  # noqa: LOG001 - its own: nobody else writes there
        logger.addHandler(file)
        yield AccessLog(logger)


class _File(WatchedFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's
        """Raise it, which is just being handled: a full disk is to be told once, and not for each request."""
        raise

    def close(self) -> None:
        """Close it, also where the last of it can't be written: that was told when it happened."""
        with contextlib.suppress(OSError):
            super().close()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)

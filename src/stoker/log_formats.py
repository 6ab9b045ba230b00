"""How lines of the log look: for people, or as JSON for whoever collects them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

FIELDS = "fields"
"""What a record carries besides its message under this name, a mapping, follows the message in a text."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName", FIELDS}


def formatter(log_format: str) -> logging.Formatter:
    """The one for ``text`` or ``json``."""
    return JsonFormatter() if log_format == "json" else TextFormatter()


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, and the record's fields as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library calls it so
        """The line, without a traceback."""
        fields: Mapping[str, object] = getattr(record, FIELDS, {})
        return " ".join([super().formatMessage(record), *(f"{name}={_word(value)}" for name, value in fields.items())])


class JsonFormatter(logging.Formatter):
    """One JSON object on a line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, and what else there is.

    That is what the record was given as ``extra``, and ``exception``, the traceback, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        more = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            more["exception"] = self.formatException(record.exc_info)
        return json.dumps(said | more | getattr(record, FIELDS, {}) | said, default=str)


def _word(value: object) -> str:
    """A value that is one word, whatever is in it."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\')
    return text if text and plain else json.dumps(text)

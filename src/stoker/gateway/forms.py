"""Reading ``multipart/form-data`` (RFC 7578): where the values of a field stand. Files are stepped over unseen.

Where the RFC leaves room, a form is read as python-multipart does, which most engines use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
LONGEST_HEAD = 16 * 1024
MOST_PARTS = 1000

_END_OF_LINE = re.compile(rb"[ \t]*\r\n")
_FOLD = re.compile(rb"\r\n[ \t]+")
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("[^"\\]*(?:\\.[^"\\]*)*"|[^;]*)', re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')


class FormError(ValueError):
    """The form can't be read; the message says why."""


def is_form(content_type: bytes) -> bool:
    """Whether a content type announces such a form."""
    return content_type[:19].lower() == b"multipart/form-data"


def field_values(content_type: bytes, body: bytes, name: bytes) -> list[slice]:
    """Where in ``body`` the values of the fields ``name`` stand, in their order. A file is no field.

    A part that nothing ends is none: the form was cut off there. Raises :class:`FormError`.
    """
    boundary = _parameters(content_type).get(b"boundary", b"").rstrip()
    if not boundary:
        raise FormError("the form has no boundary in its Content-Type")
    if len(boundary) > LONGEST_BOUNDARY:
        raise FormError(f"the boundary of the form is longer than {LONGEST_BOUNDARY} characters")
    values = []
    for part in _parts(body, b"\r\n--" + boundary):
        head_end = body.find(b"\r\n\r\n", part.start, part.stop)
        if head_end < 0:
            continue
        if head_end - part.start > LONGEST_HEAD:
            raise FormError(f"a part of the form has a head of more than {LONGEST_HEAD // 1024} KiB")
        described = _disposition(body[part.start : head_end])
        if described.get(b"name") == name and not described.keys() & {b"filename", b"filename*"}:
            values.append(slice(head_end + 4, part.stop))
    return values


def _parts(body: bytes, delimiter: bytes) -> Iterator[slice]:
    """What stands between one delimiter and the next. A part begins with the end of its delimiter's line."""
    start: int | None = None
    found = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)  # the first one needs no line before it
    for _ in range(MOST_PARTS + 1):
        if found == -1:
            return
        after = found + len(delimiter)
        is_last = body.startswith(b"--", after)
        if is_last or _END_OF_LINE.match(body, after):
            if start is not None:
                yield slice(start, found)
            if is_last:
                return
            start = after
        found = body.find(delimiter, after)
    raise FormError(f"the form has more than {MOST_PARTS} parts")


def _disposition(head: bytes) -> Mapping[bytes, bytes]:
    described: Mapping[bytes, bytes] = {}
    for line in _FOLD.sub(b" ", head).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            described = _parameters(value)
    return described


def _parameters(value: bytes) -> Mapping[bytes, bytes]:
    """The parameters of a header; the last of one name counts."""
    return {name.lower(): _unquoted(text.strip()) for name, text in _PARAMETER.findall(value)}


def _unquoted(text: bytes) -> bytes:
    if len(text) >= 2 and text.startswith(b'"') and text.endswith(b'"'):
        return _ESCAPED.sub(rb"\1", text[1:-1])
    return text

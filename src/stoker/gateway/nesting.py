"""How deep a JSON text may nest.

Parsers end at the depth of the interpreter's stack, each at another one, and where it ends depends on who calls. So
that the answer does not, there is a limit of ours, which all of them reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

DEPTH = 500

_SQUARE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def is_deep(text: bytes) -> bool:
    """Whether ``text``, which some parser has accepted, nests deeper than ``DEPTH``."""
    if len(text) <= 2 * DEPTH or not _has_brackets_enough(text):
        return False
    brackets = b"".join(_outside_of_strings(text)).translate(_SQUARE, _OTHERS)
    levels = accumulate(1 if bracket == ord("[") else -1 for bracket in brackets)
    return max(levels, default=0) > DEPTH


def _has_brackets_enough(text: bytes) -> bool:
    """Whether there are enough of them, in strings or not. For most texts that is all there is to find out."""
    left = DEPTH
    for bracket in (b"[", b"{"):
        place = text.find(bracket)
        while place >= 0:
            left -= 1
            if left < 0:
                return True
            place = text.find(bracket, place + 1)
    return False


def _outside_of_strings(text: bytes) -> Iterator[bytes]:
    inside = False
    for piece in text.split(b'"'):
        if not inside:
            yield piece
            inside = True
        elif not piece.endswith(b"\\") or (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 0:  # the quote is not escaped
            inside = False

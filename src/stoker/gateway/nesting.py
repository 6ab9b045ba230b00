"""How deep a JSON text may nest.

Parsers end at the depth of the interpreter's stack, each at another one, and where it ends depends on who calls. So
that the answer does not, there is a limit of ours, which all of them reach.
"""

from __future__ import annotations

from itertools import accumulate

DEPTH = 64

_USUAL = 8  # levels, which few texts have more of
_SQUARE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def is_deep(text: bytes) -> bool:
    """Whether ``text``, which some parser has accepted, nests deeper than ``DEPTH``."""
    if len(text) <= 2 * DEPTH or text.count(b"[") + text.count(b"{") <= DEPTH:
        return False
    brackets = _outside_of_strings(text).translate(_SQUARE, _OTHERS)
    for _ in range(_USUAL):  # take away one level after the other, from within
        brackets = brackets.replace(b"[]", b"")
    if not brackets:
        return False
    levels = accumulate(1 if bracket == ord("[") else -1 for bracket in brackets)
    return max(levels) > DEPTH - _USUAL


def _outside_of_strings(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2])

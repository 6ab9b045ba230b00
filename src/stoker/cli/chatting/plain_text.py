"""Text that a terminal can be given, whoever wrote it. Pure."""

from __future__ import annotations

import re

# Control characters but for tab and new line (C1 too: some terminals obey them), and what turns text around, so that it
# reads otherwise than it is: https://trojansource.codes
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def harmless(text: str) -> str:
    """``text`` with a mark for each character that would do something. Carriage returns are left out.

    It works on any piece of a stream, for no character needs its neighbours to be judged.
    """
    return _UNSAFE.sub("�", sound(text).replace("\r", ""))


def escaped(document: str) -> str:
    """A JSON document, which is the same, without those characters."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", sound(document))


def sound(text: str) -> str:
    """``text`` without halves of surrogate pairs, which can neither be sent nor written."""
    return text.encode(errors="replace").decode()


def one_line(text: str) -> str:
    """``text`` as a line of its own."""
    return " ".join(harmless(text).split())

"""Where a chat is shown: answers as they come, remarks beside them."""

from __future__ import annotations

import sys
from typing import TextIO

import attrs

from stoker.cli.chatting.conversation import Ending
from stoker.cli.chatting.hearing import Heard
from stoker.cli.chatting.plain_text import harmless, one_line
from stoker.cli.terminal import console

DIM, BOLD, NORMAL = "\x1b[2m", "\x1b[1m", "\x1b[0m"


@attrs.define
class Screen:
    """A terminal, or a file. ``styled`` says whether it shows text in more than one way.

    Whatever a model or a gateway says loses here what would do something to a terminal.
    """

    out: TextIO
    styled: bool = False
    _column_is_first: bool = attrs.field(default=True, init=False)
    _style: str = attrs.field(default="", init=False)

    @classmethod
    def standard(cls) -> Screen:
        """Standard output."""
        rich = console()
        return cls(sys.stdout, rich.is_terminal and rich.color_system is not None)

    def piece(self, text: str) -> None:
        """Some of an answer."""
        self._write(text, "")

    def thought(self, text: str) -> None:
        """Some of what a model thinks before it answers."""
        self._write(text, DIM)

    def end_line(self) -> None:
        """What comes next begins a line."""
        self._turn_to("")
        if not self._column_is_first:
            self.out.write("\n")
        self._column_is_first = True
        self.out.flush()

    def note(self, text: str) -> None:
        """A remark, dim, in lines of its own."""
        self.end_line()
        self._write(text, DIM)
        self.end_line()

    def lines(self, texts: list[str]) -> None:
        """Several lines that were asked for."""
        self.end_line()
        self._write("\n".join(texts), "")
        self.end_line()

    def problem(self, text: str) -> None:
        """What went wrong, in one line."""
        self.end_line()
        self._write(f"! {one_line(text)}", BOLD)
        self.end_line()

    def _write(self, text: str, style: str) -> None:
        if not (shown := harmless(text)):
            return
        self._turn_to(style)
        self.out.write(shown)
        self.out.flush()
        self._column_is_first = shown.endswith("\n")

    def _turn_to(self, style: str) -> None:
        if self.styled and style != self._style:
            self.out.write(NORMAL + style)
        self._style = style


def measured(heard: Heard) -> str:
    """What there is to know of an answer, in a line."""
    parts = ["stopped"] if heard.ending is Ending.STOPPED else []
    if heard.tokens is not None:
        parts.append(f"{heard.tokens} token{'' if heard.tokens == 1 else 's'}")
    if (rate := heard.tokens_per_second) is not None:
        parts.append(f"{rate:.1f} tokens/s")
    if heard.first_seconds is not None:
        parts.append(f"first after {heard.first_seconds:.2f} s")
    if heard.engine:
        parts.append(f"engine {heard.engine}")
    if heard.finish_reason == "length":
        parts.append("cut off: that many tokens are all it may take")
    return ", ".join(parts)

"""A conversation as a value: what was said, what of it is sent, and what is asked again. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

Message = Mapping[str, Any]


class Ending(enum.Enum):
    """How an answer ended."""

    WHOLE = "it is all there"
    STOPPED = "it was stopped by whoever asked"
    BROKEN = "it did not come, or not to its end"


@attrs.frozen(kw_only=True)
class Turn:
    """A question and its answer, as far as it came. ``model`` is who was asked."""

    question: str
    answer: str
    model: str
    ending: Ending = Ending.WHOLE

    @property
    def counts(self) -> bool:
        """Whether the model is told of it again: there is something that was said, and was meant to be said."""
        return self.ending is Ending.WHOLE or (self.ending is Ending.STOPPED and self.answer != "")


@attrs.frozen(kw_only=True)
class Conversation:
    """What was said here, the first first. ``system`` is what the model is told before all else; empty, nothing."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def asking(self, question: str, *, kept_elsewhere: bool = False) -> list[Message]:
        """The messages to send: all, or only what is new where somebody else keeps the rest."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        if not kept_elsewhere:
            for turn in self.turns:
                if turn.counts:
                    messages += spoken(turn)
        return [*messages, {"role": "user", "content": question}]

    def told(self, system: str) -> Conversation:
        """The same with other instructions."""
        return attrs.evolve(self, system=system)

    def and_then(self, turn: Turn) -> Conversation:
        """The same with one more turn."""
        return attrs.evolve(self, turns=(*self.turns, turn))

    def without_last(self) -> Conversation:
        """The same less its last turn."""
        return attrs.evolve(self, turns=self.turns[:-1])

    def cleared(self) -> Conversation:
        """Only the instructions."""
        return Conversation(system=self.system)

    @property
    def last(self) -> Turn | None:
        """The last turn, however it ended."""
        return self.turns[-1] if self.turns else None


def spoken(turn: Turn) -> list[Message]:
    """A turn as messages; without an answer, only the question."""
    question: Message = {"role": "user", "content": turn.question}
    return [question, {"role": "assistant", "content": turn.answer}] if turn.answer else [question]

"""What a client gives back when it is asked for more than the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import attrs

from stoker.model import NOTHING

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


@attrs.frozen(kw_only=True)
class InferenceResult(Generic[T]):
    """An answer, and what there is to know of it.

    ``content`` is what the call returns without ``return_result``: a text, or the vectors. ``model`` is the engine's
    name for it. ``engine`` is the id of the engine that answered, None where several did or nobody says.
    ``latency_seconds`` passed from the call to the end of the answer, waiting and second tries included. ``raw`` is the
    whole answer as it came (tool calls, log probabilities, further choices); of a stream, and of several batches, it is
    empty.
    """

    content: T
    model: str
    engine: str | None
    usage: Usage | None
    latency_seconds: float
    finish_reason: str | None = None
    raw: Mapping[str, Any] = attrs.field(default=NOTHING, repr=False)

    @property
    def message(self) -> Mapping[str, Any]:
        """The first choice's message as it came, with its tool calls; empty where there is none."""
        choices = self.raw.get("choices") or [{}]
        message: Mapping[str, Any] = choices[0].get("message") or NOTHING
        return message


@attrs.frozen(kw_only=True)
class StreamChunk:
    """One event of a stream. ``content`` is its piece of the text, often empty; ``raw`` the whole event."""

    content: str
    finish_reason: str | None = None
    usage: Usage | None = None
    raw: Mapping[str, Any] = attrs.field(default=NOTHING, repr=False)

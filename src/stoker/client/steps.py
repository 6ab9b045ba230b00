"""The words between the core, which decides, and the two shells, which act.

A call is a generator: it yields what is to be done, is sent what came of it, and returns the call's result. Neither
side knows whether it is waited for with a thread or with ``await``.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"


@attrs.frozen(kw_only=True)
class Request:
    """An HTTP request. ``url`` is whole; ``headers`` are all there is to be sent besides what HTTP itself needs."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    content: bytes | None = attrs.field(default=None, repr=False)
    to_engine: bool = False


# What a call may ask its shell to do


@attrs.frozen(kw_only=True)
class Send:
    """Send a request. What comes of it is a Reply, a Broken or, where ``stream`` is true, an Opened.

    ``timeout_seconds`` is for the whole answer or, of a stream, until its first event; ``between_seconds`` for each
    event after that.
    """

    request: Request
    timeout_seconds: float | None
    stream: bool = False
    between_seconds: float | None = None

    @property
    def silence_seconds(self) -> float | None:
        """How long nothing at all may come: the most that either of the two allows."""
        return self.between_seconds if self.stream else self.timeout_seconds


@attrs.frozen
class Close:
    """Close a stream that was opened."""

    handle: Any


@attrs.frozen
class Pause:
    """Wait."""

    seconds: float


@attrs.frozen
class Together:
    """Run several calls at the same time, at most ``limit`` of them at once; the results come in their order.

    The first failure ends the others, and is raised.
    """

    calls: Sequence[Steps[Any]]
    limit: int


# What can come of it


@attrs.frozen(kw_only=True)
class Reply:
    """A whole answer. The names of ``headers`` are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Opened:
    """A stream that began with status 200: the data of its first event, None if it ended without one.

    ``handle`` is the shell's own; whoever is sent it has to close it in the end.
    """

    handle: Any
    headers: Mapping[str, str]
    first: str | None


class Break(enum.Enum):
    """How far a request came that got no answer."""

    UNSENDABLE = "it can't be written as HTTP"
    NOT_REACHED = "nobody was reached: refused, unknown, unreachable, or of the wrong certificate"
    BROKEN_OFF = "the connection broke, and the request may have been worked on"
    TIMED_OUT = "there was no answer in time"


@attrs.frozen
class Broken:
    """There is no answer. ``text`` says what happened."""

    kind: Break
    text: str


Effect = Send | Close | Pause | Together
Outcome = Reply | Opened | Broken
Steps = Generator[Effect, Any, T]

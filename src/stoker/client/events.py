"""Reads a stream of an answer, event by event. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.client.answers import error_event, usage_of
from stoker.client.errors import ClientError, StreamInterrupted, Timeout, UnexpectedAnswer
from stoker.client.records import InferenceResult, StreamChunk, Usage
from stoker.client.steps import Break, Broken

DONE = "[DONE]"


def first_error(data: str | None, engine: str | None) -> ClientError | None:
    """What is wrong with a stream that begins with this event; None if nothing is."""
    if data is None:
        return StreamInterrupted("the stream ended before it began", engine=engine)
    event = _event(data)
    if event is not None and event.get("error"):
        return error_event(event["error"], engine, begun=False)
    return None


class Transcript:
    """What has come of one stream so far. ``engine`` is who answers; ``over`` is true once the answer is whole."""

    def __init__(self, engine: str | None) -> None:
        self.engine = engine
        self.over = False
        self._pieces: list[str] = []
        self._model = ""
        self._usage: Usage | None = None
        self._finish_reason: str | None = None

    def take(self, data: str | None) -> StreamChunk | None:
        """What the next event says; None at the end of the answer. ``data`` is None where the connection ended.

        Raises StreamInterrupted for an error, and for an end that is none; UnexpectedAnswer for what is no event.
        """
        if data is None:
            raise StreamInterrupted("the stream ended before its answer did: it broke off", engine=self.engine)
        if data == DONE:
            self.over = True
            return None
        event = _event(data)
        if event is None:
            raise UnexpectedAnswer(f"an event of the stream is not JSON: {data[:200]!r}", engine=self.engine)
        if event.get("error"):
            raise error_event(event["error"], self.engine, begun=True)
        return self._chunk(event)

    def broke(self, broken: Broken) -> ClientError:
        """What it means that the connection broke, or that no event came in time."""
        if broken.kind is Break.TIMED_OUT:
            return Timeout(f"the stream stalled: {broken.text}", engine=self.engine)
        return StreamInterrupted(f"the stream ended before its answer did: {broken.text}", engine=self.engine)

    def result(self, latency_seconds: float) -> InferenceResult[str]:
        """All of it as one answer."""
        return InferenceResult(
            content="".join(self._pieces),
            model=self._model,
            engine=self.engine,
            usage=self._usage,
            latency_seconds=latency_seconds,
            finish_reason=self._finish_reason,
        )

    def _chunk(self, event: Mapping[str, Any]) -> StreamChunk:
        choices = event.get("choices")
        listed = choices if isinstance(choices, list) else []
        choice = next((one for one in listed if isinstance(one, dict) and not one.get("index")), {})
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        piece = text if isinstance(text, str) else ""
        usage = usage_of(event.get("usage"))
        self._pieces.append(piece)
        self._model = str(event.get("model") or self._model)
        self._usage = usage or self._usage
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return StreamChunk(content=piece, finish_reason=choice.get("finish_reason"), usage=usage, raw=event)


def _event(data: str) -> Mapping[str, Any] | None:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None

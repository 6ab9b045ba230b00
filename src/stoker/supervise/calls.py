"""What an engine is told besides its requests: to sleep, to wake, to load an adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import httpx2
import trio

from stoker.errors import ConflictError, UpstreamError
from stoker.supervise.probe import BROKEN, beginning_of

CALL_SECONDS = 300.0  # large weights come back slowly
MOST_ANSWER_BYTES = 64 * 1024
SHOWN_CHARACTERS = 400


@attrs.frozen
class Caller:
    """Calls one engine. Cancelling a call leaves open whether the engine did it."""

    engine_id: str
    client: httpx2.AsyncClient
    base_url: str
    headers: Mapping[str, str]

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """POST there, and return once the engine says that it is done.

        Raises :class:`ConflictError` with the engine's words where it refuses, and :class:`UpstreamError` where it
        fails, breaks off, or takes longer than five minutes.
        """
        try:
            with trio.fail_after(CALL_SECONDS):
                answer, text = await self._ask(path, None if body is None else dict(body))
        except trio.TooSlowError:
            raise UpstreamError(f"engine {self.engine_id!r}: {path} took over {CALL_SECONDS:g} s") from None
        except BROKEN as error:
            raise UpstreamError(f"engine {self.engine_id!r}: {path}: {str(error) or type(error).__name__}") from error
        if answer.is_success:
            return
        said = f"engine {self.engine_id!r} answered {answer.status_code} to {path}: {_words(text)}"
        raise ConflictError(said) if answer.is_client_error else UpstreamError(said)

    async def _ask(self, path: str, body: dict[str, Any] | None) -> tuple[httpx2.Response, str]:
        """The answer, and what of its text can be words: there could be no end to it."""
        url, headers = self.base_url + path, dict(self.headers)
        async with self.client.stream("POST", url, json=body, headers=headers) as answer:
            return answer, await beginning_of(answer, MOST_ANSWER_BYTES)


def _words(text: str) -> str:
    """What the engine says is wrong, in the shape that OpenAI has for it or in any other."""
    try:
        value = json.loads(text)
        for key in ("error", "message", "detail"):
            if isinstance(value, dict) and key in value:
                value = value[key]
        return str(value)[:SHOWN_CHARACTERS]
    except (ValueError, RecursionError):
        return text[:SHOWN_CHARACTERS].strip()

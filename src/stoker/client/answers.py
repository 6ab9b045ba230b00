"""Reads whole answers: results, and errors by type. Pure."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.client import errors as e
from stoker.client.records import InferenceResult, Usage
from stoker.client.steps import Reply

_NAMED: Mapping[int, type[e.ClientError]] = {
    401: e.AuthenticationFailed,
    403: e.PermissionDenied,
    409: e.Conflict,
    429: e.RateLimited,
    502: e.EngineUnavailable,
    503: e.EngineUnavailable,
    504: e.EngineUnavailable,
}
_LONGEST_MESSAGE = 2000


@attrs.frozen(kw_only=True)
class Answered:
    """An answer, by whom, and how long it took from the call on."""

    reply: Reply
    engine: str | None
    latency_seconds: float


def json_object(reply: Reply, where: str) -> Mapping[str, Any]:
    """The JSON object that an answer is. Raises the error that it means, or UnexpectedAnswer."""
    if not 200 <= reply.status < 300:
        raise error_of(reply, where)
    try:
        answer = json.loads(reply.content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise e.UnexpectedAnswer(f"{where} answered with {reply.status} and no JSON object", status=reply.status)
    return answer


def listing(reply: Reply, where: str) -> Sequence[Mapping[str, Any]]:
    """The things that an answer lists. Raises as :func:`json_object` does."""
    things = json_object(reply, where).get("data")
    if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
        raise e.UnexpectedAnswer(f"{where} gave no listing; is it a Stoker gateway?", status=reply.status)
    return things


def error_of(reply: Reply, where: str, engine: str | None = None) -> e.ClientError:
    """The error that an answer means, with its own message."""
    told = _error_object(reply.content)
    code, param = told.get("code"), told.get("param")
    message = told.get("message")
    if not isinstance(message, str) or not message:
        text = reply.content[:_LONGEST_MESSAGE].decode(errors="replace").strip()
        message = f"{where} answered with status {reply.status}" + (f": {text}" if text else "")
    kind = _kind(reply.status, code)
    error = kind(
        message,
        status=reply.status,
        code=None if code is None else str(code),
        param=param if isinstance(param, str) else None,
        request_id=reply.headers.get("x-request-id"),
        engine=engine or reply.headers.get("x-stoker-engine"),
    )
    if isinstance(error, e.RateLimited | e.EngineUnavailable):
        error.retry_after_seconds = _retry_after(reply.headers)
    return error


def error_event(error: Any, engine: str | None, *, begun: bool) -> e.ClientError:
    """What an error in a stream means; ``begun`` says whether anything came before it."""
    told = error if isinstance(error, dict) else {"message": str(error)}
    code = told.get("code")
    message = str(told.get("message") or "the engine reported an error without words")
    words = None if code is None else str(code)
    if begun:
        return e.StreamInterrupted(f"the stream ended before its answer did: {message}", code=words, engine=engine)
    if isinstance(code, int) and 400 <= code < 500:
        return _kind(code, code)(message, status=code, code=words, engine=engine)
    return e.EngineUnavailable(message, code=words, engine=engine)


def text_result(answered: Answered, where: str) -> InferenceResult[str]:
    """What a chat or a completion came to."""
    answer = json_object(answered.reply, where)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise e.UnexpectedAnswer(f"{where} gave an answer without choices", status=answered.reply.status)
    message = choices[0].get("message")
    text = message.get("content") if isinstance(message, dict) else choices[0].get("text")
    return InferenceResult(
        content=text if isinstance(text, str) else "",
        model=str(answer.get("model", "")),
        engine=answered.engine,
        usage=usage_of(answer.get("usage")),
        latency_seconds=answered.latency_seconds,
        finish_reason=choices[0].get("finish_reason"),
        raw=answer,
    )


def vectors_result(answered: Answered, expected: int, where: str) -> InferenceResult[list[list[float]]]:
    """What one batch of texts came to: as many vectors, in the order of the texts."""
    answer = json_object(answered.reply, where)
    try:
        data = sorted(answer["data"], key=lambda one: one["index"])
        vectors = [_vector(one["embedding"]) for one in data]
    except (KeyError, TypeError, ValueError, struct.error):
        vectors = []
    if len(vectors) != expected:
        message = f"{where} gave {len(vectors)} vectors that can be read, of {expected}"
        raise e.UnexpectedAnswer(message, status=answered.reply.status)
    return InferenceResult(
        content=vectors,
        model=str(answer.get("model", "")),
        engine=answered.engine,
        usage=usage_of(answer.get("usage")),
        latency_seconds=answered.latency_seconds,
        raw=answer,
    )


def joined(
    parts: Sequence[InferenceResult[list[list[float]]]], latency_seconds: float
) -> InferenceResult[list[list[float]]]:
    """The result of several batches."""
    if len(parts) == 1:
        return parts[0]
    engines = {part.engine for part in parts}
    usages = [part.usage for part in parts if part.usage is not None]
    return InferenceResult(
        content=[vector for part in parts for vector in part.content],
        model=parts[0].model if parts else "",
        engine=engines.pop() if len(engines) == 1 else None,
        usage=sum(usages[1:], usages[0]) if usages else None,
        latency_seconds=latency_seconds,
    )


def usage_of(told: object) -> Usage | None:
    """The tokens that an engine counted; None where it told none."""
    if not isinstance(told, dict):
        return None
    counts = {name: told.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return Usage(**{name: count for name, count in counts.items() if isinstance(count, int)})


def _kind(status: int, code: object) -> type[e.ClientError]:
    if status == 404:
        return e.EngineNotFound if code == "not_found" else e.ModelNotFound
    if status in _NAMED:
        return _NAMED[status]
    if 400 <= status < 500:
        return e.BadRequest
    return e.EngineFailed if status >= 500 else e.UnexpectedAnswer


def _error_object(content: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:  # a date: allowed, and nobody here sends one
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _vector(given: Any) -> list[float]:
    """A list of numbers, or what ``encoding_format="base64"`` makes of it."""
    if isinstance(given, str):
        data = base64.b64decode(given, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    return list(given)

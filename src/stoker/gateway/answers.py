"""Answers that the gateway gives itself. Errors have OpenAI's shape everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from stoker.core.codes import Code
from stoker.gateway.headers import HeaderList

RETRY_AFTER_SECONDS = 5
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SHOWN = 200


@attrs.frozen
class Answer:
    """A whole answer: one of ours, or an engine's that was held back until it was complete."""

    status: int
    headers: HeaderList
    body: bytes


def error(
    code: Code,
    message: str,
    *,
    param: str | None = None,
    headers: HeaderList = (),
    retry_after_seconds: int | None = None,
    status: int | None = None,
) -> Answer:
    """An error in OpenAI's shape. ``retry_after_seconds`` and ``status`` are told where they are not the usual ones."""
    body = error_body(code, message, param=param, status=status)
    if retry_after_seconds is None and code.retry:
        retry_after_seconds = RETRY_AFTER_SECONDS
    extra = [] if retry_after_seconds is None else [(b"retry-after", b"%d" % retry_after_seconds)]
    return Answer(status or code.status, [(b"content-type", b"application/json"), *headers, *extra], body)


def error_body(code: Code, message: str, *, param: str | None = None, status: int | None = None) -> bytes:
    """The JSON of an error; also what an event of a stream says when its engine has died."""
    status = status or code.status
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    inside = {"message": message, "type": kind, "param": param, "code": code.text}
    return json.dumps({"error": inside}).encode()


def shown(text: str) -> str:
    """``text`` as a message quotes it: what a client sent may be a megabyte of control characters."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, not more than ``most`` of them."""
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def too_large(limit: int) -> Answer:
    """The answer to a body that is longer than ``limit`` bytes."""
    message = f"the body is larger than {limit} bytes; raise max_body_bytes of [gateway] in stoker.toml to take it"
    return error(Code.REQUEST_TOO_LARGE, message)

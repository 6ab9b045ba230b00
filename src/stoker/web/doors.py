"""Which requests of the web app need a key or the admin token, and of what scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from quart import Request, request
from quart_trio.wrappers import TrioRequest

from stoker.core.keys import Scope
from stoker.gateway.answers import Answer
from stoker.gateway.callers import Caller
from stoker.gateway.keyring import ANY_SCOPE, INFERENCE, SESSIONS, KeyRing
from stoker.web.problems import RequestError

MANAGEMENT = "/v1/management"
OPEN_TO_ALL = frozenset({"/health", "/ready", "/openapi.json"})
FOR_CLIENTS_TOO = frozenset({f"{MANAGEMENT}/backends", f"{MANAGEMENT}/events"})
MOST_BODY_BYTES = 1024 * 1024
LONGER_BODIES: Mapping[str, int] = MappingProxyType({"/sessions/import": 64 * 1024 * 1024})
"""Paths that take more than the usual bytes, and how many."""

_ADMIN = frozenset({Scope.ADMIN})
_MISSING = (
    "management needs the admin token, which stands in $STOKER_HOME/admin-token, or a key of the scope admin, "
    "sent as 'Authorization: Bearer TOKEN'"
)


class CalledRequest(TrioRequest):
    """A request of which it is known who sent it, what it is called in logs, and how large it may be."""

    caller: Caller | None = None
    request_id: str = ""

    def __init__(
        self, method: str, scheme: str, path: str, *rest: Any, max_content_length: int | None = None, **more: Any
    ) -> None:
        self.most_body_bytes = LONGER_BODIES.get(path, max_content_length or MOST_BODY_BYTES)
        super().__init__(method, scheme, path, *rest, max_content_length=self.most_body_bytes, **more)


def is_management(path: str) -> bool:
    """Whether ``path`` is one of management, whatever it leads to."""
    return f"{path}/".startswith(f"{MANAGEMENT}/")


def require_caller(ring: KeyRing) -> Callable[[], Awaitable[None]]:
    """A check, before each request, that whoever sent it may: all but ``OPEN_TO_ALL`` is behind the door."""

    async def check() -> None:
        if request.path in OPEN_TO_ALL:
            return
        caller = _admitted(ring)
        if isinstance(caller, Answer):
            raise RequestError(caller)
        request.caller = caller  # type: ignore[attr-defined]  # of the app's own class of requests

    return check


def _admitted(ring: KeyRing) -> Caller | Answer:
    path, fields = request.path, dict(request.scope["headers"])
    if request.blueprint == "management" or is_management(path):
        scopes = _ADMIN | INFERENCE if path in FOR_CLIENTS_TOO and request.method in ("GET", "HEAD") else _ADMIN
        return ring.admit(fields, scopes, always=True, missing=_MISSING)
    if f"{path}/".startswith("/sessions/"):
        return ring.admit(fields, SESSIONS)
    return ring.admit(fields, INFERENCE if f"{path}/".startswith("/v1/models/") else ANY_SCOPE)


def models_of(asking: Request) -> frozenset[str] | None:
    """The names of models that whoever asks may know of; None: all."""
    caller: Caller | None = getattr(asking, "caller", None)
    return None if caller is None else caller.models

"""The door: who may come in, decided in memory for each request before anything is done for it.

Keys are looked up by the id in their text, and then compared by digest, in constant time. What a key may do is looked
at for every request, so that revoking one, and its expiry, act at once; only *whose* a head is is remembered with it.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from stoker.core.codes import Code
from stoker.core.keys import ApiKey, Scope, digest_of, key_id_in
from stoker.gateway.answers import Answer, error, listed, shown
from stoker.gateway.callers import Caller, Reach
from stoker.gateway.headers import Fields

REASONS = (
    Code.INVALID_API_KEY,
    Code.INSUFFICIENT_SCOPE,
    Code.MODEL_NOT_ALLOWED,
    Code.RATE_LIMIT_EXCEEDED,
    Code.CONCURRENCY_LIMIT_EXCEEDED,
)
ANY_SCOPE = frozenset(Scope)
INFERENCE = frozenset({Scope.INFERENCE})
SESSIONS = frozenset({Scope.SESSIONS})
_BUSY_SECONDS = 1
_LONGEST = 512  # of a secret
_CHALLENGE = [(b"www-authenticate", b'Bearer realm="stoker"')]
_MISSING = (
    "this needs an API key: send 'Authorization: Bearer KEY'; whoever runs the gateway makes one with "
    "`stoker key create`"
)
_UNKNOWN = "the key that was sent is none of this gateway's"


class Knocking(Protocol):
    """What the ring looks at of a request, and remembers with it: see :class:`stoker.gateway.heading.Heading`."""

    fields: Fields
    caller: Caller | None
    edition: object


class KeyRing:
    """All keys, and who holds them.

    ``is_admin`` says whether a text is the admin token. With ``require`` keys are asked for even if there are none;
    without it the gateway is open until there is one. ``clock`` gives monotonic seconds, ``wall`` those since the Unix
    epoch. ``refusals`` counts by reason. All methods return at once.
    """

    def __init__(
        self,
        is_admin: Callable[[str], bool],
        clock: Callable[[], float],
        *,
        require: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.refusals = dict.fromkeys((reason.text for reason in REASONS), 0)
        self._is_admin = is_admin
        self._clock = clock
        self._wall = wall
        self._require = require
        self._admin = Caller("admin token", frozenset({Scope.ADMIN}))
        self._anyone = Caller("anyone", INFERENCE)
        self._callers: dict[str, Caller] = {}
        self._edition = object()
        self.closed = require

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """These are all keys from now on. What was counted of those that stay goes on."""
        before, self._callers = self._callers, {}
        for key in keys:
            caller = before.get(key.key_id) or Caller.of(key)
            caller.renew(key)
            self._callers[key.key_id] = caller
        self._edition = object()
        self.closed = self._require or any(each.key and each.key.revoked_at is None for each in self._callers.values())

    def knock(self, request: Knocking) -> Caller | Answer:
        """Who wants something of an engine, or why it may not."""
        if not self.closed:
            return self._anyone
        if request.edition is not self._edition:
            request.edition, request.caller = self._edition, self.whose(request.fields)
        return self._admitted(request.caller, INFERENCE, request.fields)

    def admit(
        self, fields: Fields, scopes: frozenset[Scope], *, always: bool = False, missing: str = _MISSING
    ) -> Caller | Answer:
        """Who wants something that takes one of ``scopes``, or why it may not.

        An open gateway lets anyone in, unless ``always``. ``missing`` is what those are told who have no key.
        """
        if not (self.closed or always):
            return self._anyone
        return self._admitted(self.whose(fields), scopes, fields, missing)

    def reach(self, caller: Caller, fields: Fields) -> Reach | Answer:
        """Whose conversations ``caller`` may see, or why none. In an open gateway: those that nobody's key began."""
        if not self.closed:
            admin = self.whose(fields)
            return Reach(owner="", sees_all=admin is self._admin)
        admitted = self._admitted(caller, SESSIONS, fields)
        if isinstance(admitted, Answer):
            return admitted
        return Reach(owner="" if caller.key is None else caller.key.key_id, sees_all=Scope.ADMIN in caller.scopes)

    def enter(self, caller: Caller) -> Answer | None:
        """Count a request of ``caller``, who then has to :meth:`Caller.leave`; or say why there can be none now."""
        key = caller.key
        if key is not None:
            now = self._clock()
            if not key.is_active(self._wall()):
                return self._refuse_inactive(key)
            limit = key.concurrent_requests
            if limit is not None and caller.in_flight >= limit:
                return self._too_many_at_once(key, limit)
            if wait := caller.seconds_until_next(now):
                return self._too_many(key, wait)
            caller.enter(now)
        else:
            caller.enter(0.0)
        return None

    def refuse_model(self, caller: Caller, name: str) -> Answer | None:
        """Why ``caller`` may not ask for the model that clients call ``name``, or None."""
        if caller.models is None or caller.key is None or name in caller.models:
            return None
        may = listed(sorted(caller.models))
        message = f"the key {caller.key.key_id} may not use the model {shown(name)}; it may use: {may}"
        return self._refuse(Code.MODEL_NOT_ALLOWED, message, param="model")

    def whose(self, fields: Fields) -> Caller | None:
        """Whose secret a request carries, whatever that opens; None for one that nobody has."""
        secret = secret_in(fields)
        if secret is None:
            return None
        caller = self._callers.get(key_id_in(secret) or "")
        if caller is not None and caller.key is not None:
            return caller if hmac.compare_digest(digest_of(secret), caller.key.digest) else None
        return self._admin if self._is_admin(secret) else None

    def _admitted(
        self, caller: Caller | None, scopes: frozenset[Scope], fields: Fields, missing: str = _MISSING
    ) -> Caller | Answer:
        if caller is None:
            came = f"{_UNKNOWN}; " if secret_in(fields) else ""
            return self._refuse(Code.INVALID_API_KEY, came + missing)
        key = caller.key
        if key is not None and not key.is_active(self._wall()):
            return self._refuse_inactive(key)
        if not caller.has_any(scopes):
            have, need = (", ".join(sorted(each)) for each in (caller.scopes, scopes | {Scope.ADMIN}))
            message = f"{caller.who} has the scope {have}, and this needs one of: {need}"
            return self._refuse(Code.INSUFFICIENT_SCOPE, message)
        return caller

    def _refuse_inactive(self, key: ApiKey) -> Answer:
        what = "has expired" if key.revoked_at is None else "was revoked"
        return self._refuse(Code.INVALID_API_KEY, f"the key {key.key_id} {what}; ask for another one")

    def _too_many_at_once(self, key: ApiKey, limit: int) -> Answer:
        message = f"{limit} requests of the key {key.key_id} are under way, and it may have no more at once"
        return self._refuse(Code.CONCURRENCY_LIMIT_EXCEEDED, message, after=_BUSY_SECONDS)

    def _too_many(self, key: ApiKey, wait: float) -> Answer:
        message = f"the key {key.key_id} may send {key.requests_per_minute} requests per minute, and has sent them"
        return self._refuse(Code.RATE_LIMIT_EXCEEDED, message, after=math.ceil(wait))

    def _refuse(self, reason: Code, message: str, *, param: str | None = None, after: int | None = None) -> Answer:
        self.refusals[reason.text] += 1
        headers = list(_CHALLENGE) if reason.status == 401 else []
        seconds = None if after is None else max(1, after)
        return error(reason, message, param=param, headers=headers, retry_after_seconds=seconds)


def open_ring(clock: Callable[[], float] = time.monotonic) -> KeyRing:
    """A ring without keys, and without an admin: for a gateway that anyone may use."""
    return KeyRing(lambda _: False, clock)


def secret_in(fields: Fields) -> str | None:
    """What a request authenticates itself with: a bearer token, or ``x-api-key``, which Anthropic's clients send."""
    scheme, _, given = fields.get(b"authorization", b"").partition(b" ")
    secret = given.strip() if scheme.lower() == b"bearer" else b""
    secret = secret or fields.get(b"x-api-key", b"").strip()
    return secret.decode("latin-1") if 0 < len(secret) <= _LONGEST else None

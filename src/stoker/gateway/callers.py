"""Whoever a request comes from, and how many requests that is just now."""

from __future__ import annotations

from collections import deque

import attrs

from stoker.core.keys import ApiKey, Scope

WINDOW_SECONDS = 60.0


@attrs.frozen(kw_only=True)
class Reach:
    """Whose conversations somebody may see, and whose those are that it begins: ``owner``'s. An admin sees all."""

    owner: str
    sees_all: bool

    @property
    def whose(self) -> str | None:
        """The owner of those that it may see, None: everybody's."""
        return None if self.sees_all else self.owner


class Caller:
    """A key and what is counted of it; without a key the admin, or anyone at a gateway that asks for none.

    ``who`` is how logs and the audit trail call it. ``in_flight`` are its requests under way, ``recent`` the times of
    those that its key counts: a sliding window, so that no minute ever has more than the key allows.
    """

    __slots__ = ("in_flight", "key", "models", "recent", "scopes", "who")

    def __init__(self, who: str, scopes: frozenset[Scope], key: ApiKey | None = None) -> None:
        self.who = who
        self.scopes = scopes
        self.in_flight = 0
        self.recent: deque[float] = deque()
        self.renew(key)

    @classmethod
    def of(cls, key: ApiKey) -> Caller:
        """The holder of ``key``."""
        return cls(f"key {key.key_id}", key.scopes, key)

    def renew(self, key: ApiKey | None) -> None:
        """Take over what is known of the key now."""
        self.key = key
        self.models = None if key is None or key.models is None else frozenset(key.models)

    def has_any(self, scopes: frozenset[Scope]) -> bool:
        """Whether one of ``scopes`` is its own; the admin has all."""
        return Scope.ADMIN in self.scopes or not scopes.isdisjoint(self.scopes)

    def may_ask_for(self, name: str) -> bool:
        """Whether it may use the model that clients call ``name``."""
        return self.models is None or name in self.models

    def seconds_until_next(self, now: float) -> float:
        """How long until the rate of its key allows another request; 0 if it does. ``now`` is monotonic seconds."""
        most = None if self.key is None else self.key.requests_per_minute
        if most is None:
            return 0.0
        while self.recent and self.recent[0] <= now - WINDOW_SECONDS:
            self.recent.popleft()
        return 0.0 if len(self.recent) < most else self.recent[0] + WINDOW_SECONDS - now

    def enter(self, now: float) -> None:
        """Count one more request, at ``now``. :meth:`leave` is owed then."""
        self.in_flight += 1
        if self.key is not None and self.key.requests_per_minute is not None:
            self.recent.append(now)

    def leave(self) -> None:
        """The request is over."""
        self.in_flight -= 1

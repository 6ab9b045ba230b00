"""API keys: what one is, what it may do, how its text is taken apart, and what an order for a new one must say."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.errors import ConfigError, Mistake

PREFIX = "sk-stoker-"
MOST_MODELS = 1000
MOST_REQUESTS_PER_MINUTE = 100_000
MOST_CONCURRENT = 1_000_000
LONGEST_LIFE_SECONDS = 100 * 366 * 86400.0
_LONGEST_NAME = 64
_KEY = re.compile(r"sk-stoker-(?P<key_id>[0-9a-z]{4,32})-[A-Za-z0-9_-]{43}", re.ASCII)


class Scope(enum.StrEnum):
    """What a key may do. ``admin`` may do everything."""

    INFERENCE = "inference"
    SESSIONS = "sessions"
    ADMIN = "admin"


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key as it is kept: all of it but its text, of which ``digest`` is the SHA-256.

    The text holds 256 random bits, so there is nothing to guess that a slow hash would have to protect. ``models`` are
    the names that its holder may ask for, None: all. Times are seconds since the Unix epoch.
    """

    key_id: str
    digest: bytes = attrs.field(repr=False)
    name: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_active(self, now: float) -> bool:
        """Whether it opens anything at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def shown(self) -> dict[str, object]:
        """What may be shown of it, ready for JSON."""
        plain = attrs.asdict(self, filter=lambda field, _: field.name != "digest")
        return {**plain, "scopes": [scope.value for scope in Scope if scope in self.scopes]}


@attrs.frozen(kw_only=True)
class KeyOrder:
    """What somebody wants a new key to be."""

    name: str
    scopes: frozenset[Scope] = frozenset({Scope.INFERENCE})
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_in_seconds: float | None = None

    def key(self, key_id: str, digest: bytes, now: float) -> ApiKey:
        """The key, made at ``now``."""
        return ApiKey(
            key_id=key_id,
            digest=digest,
            name=self.name,
            scopes=self.scopes,
            models=self.models,
            requests_per_minute=self.requests_per_minute,
            concurrent_requests=self.concurrent_requests,
            created_at=now,
            expires_at=None if self.expires_in_seconds is None else now + self.expires_in_seconds,
        )


def key_id_in(text: str) -> str | None:
    """The id of the key that ``text`` may be, or None for what no key looks like."""
    match = _KEY.fullmatch(text)
    return None if match is None else match["key_id"]


def digest_of(text: str) -> bytes:
    """What is kept of a key's text."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def key_order(body: Mapping[str, Any], source: str) -> KeyOrder:
    """The order that ``body``, from JSON, is; null means "not given". Raises ConfigError with every mistake."""
    known = [field.name for field in attrs.fields(KeyOrder)]
    given = {key: value for key, value in body.items() if value is not None or key not in known}
    mistakes = [Mistake(key, f"is not known here; there are: {', '.join(known)}") for key in given if key not in known]
    mistakes += _mistakes(given)
    if mistakes:
        raise ConfigError(source, mistakes)
    changes: dict[str, Any] = dict(given)
    if "scopes" in given:
        changes["scopes"] = frozenset(map(Scope, given["scopes"]))
    if "models" in given:
        changes["models"] = tuple(dict.fromkeys(given["models"]))
    return KeyOrder(**changes)


def _mistakes(given: Mapping[str, Any]) -> Sequence[Mistake]:
    mistakes = []
    name = given.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        mistakes.append(Mistake("name", f"must say whose key it is, in at most {_LONGEST_NAME} characters"))
    scopes = given.get("scopes", ["inference"])
    if not _is_list(scopes) or not scopes or not all(scope in tuple(Scope) for scope in scopes):
        mistakes.append(Mistake("scopes", f"must be a list of: {', '.join(Scope)}"))
    models = given.get("models", ["any"])
    if not _is_list(models) or not 1 <= len(models) <= MOST_MODELS or not all(models):
        mistakes.append(Mistake("models", f"must be a list of 1 to {MOST_MODELS} names, or not be given: all models"))
    for field, most in (
        ("requests_per_minute", MOST_REQUESTS_PER_MINUTE),
        ("concurrent_requests", MOST_CONCURRENT),
    ):
        count = given.get(field, 1)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            mistakes.append(Mistake(field, f"must be a whole number from 1 to {most}"))
    seconds = given.get("expires_in_seconds", 1)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= LONGEST_LIFE_SECONDS:
        mistakes.append(Mistake("expires_in_seconds", f"must be a number up to {LONGEST_LIFE_SECONDS:.0f}"))
    return mistakes


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)

"""Which engines there are, and which of them a request goes to. Pure: a value, and functions of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any
from urllib.parse import urlsplit

import attrs

from stoker.model import NOTHING
from stoker.reaching import is_loopback

SUSPICION_SECONDS = 5.0
LOAD_SECONDS = 2.0  # after which it says nothing any more how many requests others had there


@attrs.frozen(kw_only=True)
class Known:
    """One engine as ``/management/backends`` shows it. ``usable`` says that requests can be sent to it from here."""

    engine_id: str
    url: str
    names: frozenset[str]
    paths: frozenset[str]
    state: str
    usable: bool
    in_flight: int = 0
    limit: int | None = None
    renames: Mapping[str, str] = NOTHING


@attrs.frozen(kw_only=True)
class Directory:
    """The engines that were listed when it was asked at ``asked_at``, and until when some of them are suspected.

    Times are monotonic seconds.
    """

    engines: tuple[Known, ...] = ()
    asked_at: float = float("-inf")
    suspected: Mapping[str, float] = NOTHING

    def choose(
        self, model: str, path: str, load: Mapping[str, int], tried: Set[str], now: float, turn: int
    ) -> Known | None:
        """The usable engine of the model with the fewest requests, suspected ones last, those that were tried never.

        ``load`` are the requests that went there from here; those of others count while the listing is new. Among
        equals ``turn`` decides, a number that grows.
        None where no engine takes it: the gateway may know more, or let it wait.
        """
        fresh = now - self.asked_at < LOAD_SECONDS

        def busy(engine: Known) -> int:
            return load.get(engine.engine_id, 0) + (engine.in_flight if fresh else 0)

        fit = [
            engine
            for engine in self.engines
            if engine.usable
            and model in engine.names
            and path in engine.paths
            and engine.engine_id not in tried
            and (engine.limit is None or busy(engine) < engine.limit)
        ]
        fit = [engine for engine in fit if self.suspected.get(engine.engine_id, now) <= now] or fit
        if not fit:
            return None
        least = min(map(busy, fit))
        calm = [engine for engine in fit if busy(engine) == least]
        return calm[turn % len(calm)]

    def listed(self, engines: Iterable[Known], asked_at: float) -> Directory:
        """What a listing says that was asked for then. An older one than is known changes nothing."""
        if asked_at < self.asked_at:
            return self
        suspected = {engine_id: until for engine_id, until in self.suspected.items() if until > asked_at}
        return attrs.evolve(self, engines=tuple(engines), asked_at=asked_at, suspected=suspected)

    def suspect(self, engine_id: str, now: float) -> Directory:
        """The engine failed a request: it is used last for some seconds, or until it becomes READY again."""
        return attrs.evolve(self, suspected={**self.suspected, engine_id: now + SUSPICION_SECONDS})

    def changed(self, engine_id: str, now: float, *, ready: bool) -> Directory:
        """The engine changed. One that is not READY gets nothing from now on; listings of before count no more."""
        if ready:
            suspected = {each: until for each, until in self.suspected.items() if each != engine_id}
            return attrs.evolve(self, suspected=suspected)
        engines = tuple(
            attrs.evolve(engine, usable=False) if engine.engine_id == engine_id else engine for engine in self.engines
        )
        return attrs.evolve(self, engines=engines, asked_at=now)


def known_of(entry: Mapping[str, Any], *, gateway_is_local: bool) -> Known | None:
    """An entry of ``/management/backends``; None where it has no address, or is none.

    An engine that wants a key is left to the gateway, which has it; so is one on the gateway's own machine, where that
    is not this one.
    """
    try:
        url = entry["url"].rstrip("/")
        reachable = gateway_is_local or not is_loopback(urlsplit(url).hostname or "")
        return Known(
            engine_id=str(entry["engine_id"]),
            url=url,
            names=frozenset(map(str, entry["names"])),
            paths=frozenset(map(str, entry.get("paths", ()))),
            state=str(entry["state"]),
            usable=bool(entry["healthy"]) and not entry.get("needs_key", True) and reachable,
            in_flight=int(entry.get("in_flight", 0)),
            limit=entry.get("limit"),
            renames=dict(entry.get("renames", {})),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None

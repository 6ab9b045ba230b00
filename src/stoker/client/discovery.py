"""What all requests of one client know of the engines, and what they do to it. Safe to share between threads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import RLock
from typing import Any

from stoker.client.directory import Directory, Known, known_of

REFRESH_SECONDS = 2.0


class Lease:
    """A request's place at an engine, counted until it is closed. Closing it again does nothing."""

    def __init__(self, discovery: Discovery, engine: Known) -> None:
        self._discovery: Discovery | None = discovery
        self.engine = engine

    def close(self) -> None:
        """The request is over."""
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            discovery._closed(self.engine.engine_id)  # noqa: SLF001 - the two are one thing


class Discovery:
    """Holds the directory. ``clock`` gives monotonic seconds; nothing here waits, but for its own lock.

    While somebody watches the gateway's events, he keeps it up to date; else whoever needs it does, every two seconds.
    """

    def __init__(self, clock: Callable[[], float], *, gateway_is_local: bool) -> None:
        self.clock = clock
        self.directory = Directory()
        self._local = gateway_is_local
        self._lock = RLock()  # a garbage collection in it may close a lease
        self._load: Counter[str] = Counter()
        self._turn = 0
        self._watched = False
        self._asking_since: float | None = None

    def open(self, model: str, path: str, tried: AbstractSet[str]) -> Lease | None:
        """A place at the best engine there is for a request, or None."""
        with self._lock:
            self._turn += 1
            engine = self.directory.choose(model, path, self._load, tried, self.clock(), self._turn)
            if engine is None:
                return None
            self._load[engine.engine_id] += 1
        return Lease(self, engine)

    def suspect(self, engine_id: str) -> None:
        """The engine failed a request."""
        with self._lock:
            self.directory = self.directory.suspect(engine_id, self.clock())

    def needs_listing(self) -> bool:
        """Whether the caller is to get a listing now. Of several that ask at once only one is, if anything is known.

        Whoever is told so has to call :meth:`listed` or :meth:`not_listed`.
        """
        with self._lock:
            now, known_at = self.clock(), self.directory.asked_at
            if known_at > float("-inf"):
                asked = self._asking_since is not None and now - self._asking_since < REFRESH_SECONDS
                if self._watched or asked or now - known_at < REFRESH_SECONDS:
                    return False
            self._asking_since = now
            return True

    def listed(self, entries: Sequence[Mapping[str, Any]], asked_at: float) -> None:
        """What ``/management/backends`` says; it was asked at ``asked_at``."""
        engines = [known_of(entry, gateway_is_local=self._local) for entry in entries]
        with self._lock:
            self._asking_since = None
            self.directory = self.directory.listed([engine for engine in engines if engine is not None], asked_at)

    def not_listed(self) -> None:
        """The listing could not be had; what is known stays."""
        with self._lock:
            self._asking_since = None

    def watched(self) -> None:
        """Somebody watches the events from now on, and has got a listing since he does."""
        with self._lock:
            self._watched = True

    def unwatched(self) -> None:
        """Nobody watches any more."""
        with self._lock:
            self._watched = False

    def told(self, event: str, data: str) -> bool:
        """Take over what an event of ``/management/events`` says; whether a listing has to be got because of it."""
        if event != "engine":
            return event == "snapshot"
        try:
            told = json.loads(data)
            engine_id, after = str(told["engine"]["engine_id"]), told["after"]
        except (ValueError, KeyError, TypeError):
            return True
        with self._lock:
            was = next((each for each in self.directory.engines if each.engine_id == engine_id), None)
            ready = after == "READY" and not told["engine"].get("asleep")
            if not ready or (was is not None and was.state != "READY"):
                self.directory = self.directory.changed(engine_id, self.clock(), ready=ready)
        return True

    def _closed(self, engine_id: str) -> None:
        with self._lock:
            self._load[engine_id] -= 1
            if not self._load[engine_id]:
                del self._load[engine_id]

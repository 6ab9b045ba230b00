"""Asks an engine whether it lives: its health path, and, when it seems stuck at work, one real token."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import httpx2
import trio

from stoker.core.addresses import NEVER_ALLOWED
from stoker.core.liveness import Verdict, judge
from stoker.model import Activity, EngineLoad, EngineSpec, LaunchPlan
from stoker.supervise.guarding import guarded_transport
from stoker.supervise.shortage import is_shortage

log = logging.getLogger("stoker.supervise")

# UnicodeError: a host name that IDNA can't write, or a key that a header can't carry. OSError: what a socket says that
# httpx2 did not expect it to say; no engine may end Stoker by that.
BROKEN = (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, OSError)
MODEL_LIST = "/v1/models"
PLAIN = "identity"
MOST_METRICS_BYTES = 4 * 1024 * 1024
TOKEN_PATIENCE = 4  # a token takes longer than a health answer


class _Exhausted(Exception):  # noqa: N818 - not the engine's error
    """This process has nothing left to probe with."""


@attrs.frozen
class ProbeResult:
    """What one round of probing found. ``error`` is empty for an engine that is alive or excused.

    ``silent`` is one that failed while it held requests of which none has moved for ``stall_seconds``, and ``stalled``
    one that failed because of that.
    ``asleep`` is None where the engine can't sleep, or could not be asked.
    """

    verdict: Verdict
    error: str = ""
    stalled: bool = False
    silent: bool = False
    asleep: bool | None = None


@attrs.define(eq=False)
class Prober:
    """Probes one incarnation, and remembers when it last saw it move.

    One that has stalled is alive again when it has answered a request: that it says so itself is not enough.
    """

    client: httpx2.AsyncClient
    plan: LaunchPlan
    spec: Callable[[], EngineSpec]
    activity: Callable[[], Activity]
    scrape: Callable[[str], EngineLoad]
    headers: Mapping[str, str]
    _busy_since: float | None = None
    _counter: float | None = None
    _counter_moved_at: float = 0.0
    _complained: bool = False
    _scraping: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _asleep: bool = False
    _has_stalled: bool = False

    async def probe(self) -> ProbeResult:
        """One round. Takes at most thrice the probe's time-out, and four of them more where a token is asked for."""
        try:
            error, timed_out = await self._ask_health()
        except _Exhausted:  # our own shortage says nothing about the engine
            return ProbeResult(Verdict.EXCUSED)
        asleep = None if error else await self._ask_whether_asleep()
        self._asleep = asleep is True
        if asleep:  # what it was asked for hangs until it wakes, and so would a token
            self._busy_since, self._has_stalled = None, False
            return ProbeResult(Verdict.ALIVE, asleep=True)
        return attrs.evolve(await self._judge(error, timed_out=timed_out), asleep=asleep)

    async def _judge(self, error: str, *, timed_out: bool) -> ProbeResult:
        now = trio.current_time()
        activity = self.activity()
        progress_at = await self._progress_at(activity, now)
        verdict = judge(
            answered=not error,
            timed_out=timed_out,
            activity=activity,
            progress_at=progress_at,
            stall_seconds=self.spec().stall_seconds,
            now=now,
        )
        silent = activity.active_requests > 0 and now - progress_at >= self.spec().stall_seconds
        if verdict is Verdict.TRY_A_REQUEST or (verdict is Verdict.ALIVE and self._has_stalled):
            result = await self._ask_for_a_token(activity, error)
            self._has_stalled = result.stalled
            return result
        return ProbeResult(verdict, error, silent=silent) if verdict is Verdict.FAILED else ProbeResult(verdict)

    async def _progress_at(self, activity: Activity, now: float) -> float:
        if activity.active_requests == 0:
            self._busy_since = self._counter = None
            return now
        if self._busy_since is None:
            self._busy_since, self._counter_moved_at = now, 0.0
        known = max(self._busy_since, activity.progress_at or 0.0, self._counter_moved_at)
        if now - known > 2 * self.spec().probe_interval_seconds:
            await self._look_at_counters(now)
        return max(known, self._counter_moved_at)

    async def load(self) -> EngineLoad | None:
        """What the engine's own metrics say; None where it sleeps or has none, or they can't be had in time."""
        if self.plan.metrics_path is None or self._asleep:
            return None
        try:
            with trio.fail_after(self.spec().probe_timeout_seconds):
                text = await self._read(self.plan.metrics_path)
                if not text:
                    return None
                # In a thread, as a page may be a thousand lines; in one of its own, as a plugin may hang.
                return await trio.to_thread.run_sync(
                    self._load_in, text, abandon_on_cancel=True, limiter=self._scraping
                )
        except (trio.TooSlowError, *BROKEN):
            return None

    async def list_models(self) -> Collection[str]:
        """The names in its model list; none where it has no such list, or it can't be had in time."""
        try:
            with trio.fail_after(self.spec().probe_timeout_seconds):
                return ids_in(await self._read(MODEL_LIST))
        except (trio.TooSlowError, *BROKEN):
            return ()

    async def _look_at_counters(self, now: float) -> None:
        """A long prefill sends no byte for minutes, but its counters move."""
        load = await self.load()
        if load is None:
            return
        if self._counter is not None and load.progress != self._counter:
            self._counter_moved_at = now
        self._counter = load.progress

    def _load_in(self, text: str) -> EngineLoad | None:
        try:
            load = self.scrape(text)
            if all(map(math.isfinite, (load.running, load.waiting, load.progress, load.kv_cache_used or 0.0))):
                return load
        except BaseException:  # the plugin boundary, in a thread: a runtime that can't read its metrics has none
            if not self._complained:
                self._complained = True
                log.exception("the metrics of %s can't be read, and count as no progress", self.plan.base_url)
        return None

    async def _ask_health(self) -> tuple[str, bool]:
        """An error, empty when the engine answered as it should; and whether it was a time-out."""
        path = self.plan.health_path
        try:
            with trio.fail_after(self.spec().probe_timeout_seconds):
                status = await self._ask("GET", path)
        except (trio.TooSlowError, httpx2.TimeoutException):
            return f"{path} did not answer within {self.spec().probe_timeout_seconds:g} s", True
        except BROKEN as error:
            if is_shortage(error):
                raise _Exhausted from error
            return f"{path}: {str(error) or type(error).__name__}", False
        if status != httpx2.codes.OK:
            return f"{path} answered {status}", False
        return "", False

    async def _ask_whether_asleep(self) -> bool | None:
        if self.plan.sleeping is None:
            return None
        try:
            with trio.fail_after(self.spec().probe_timeout_seconds):
                return flag_in(await self._read(self.plan.sleeping.asleep))
        except (trio.TooSlowError, *BROKEN):
            return None

    async def _ask_for_a_token(self, activity: Activity, error: str) -> ProbeResult:
        silence = f"no progress for {self.spec().stall_seconds:g} s"
        held = activity.active_requests
        told = f"{held} requests in flight and {silence}" if held else f"it has made {silence}"
        if self.plan.token_probe is None:  # nothing but its health can be asked
            return (
                ProbeResult(Verdict.FAILED, f"{told}; {error}", stalled=True) if error else ProbeResult(Verdict.ALIVE)
            )
        token = self.plan.token_probe
        patience = TOKEN_PATIENCE * self.spec().probe_timeout_seconds
        try:
            with trio.fail_after(patience):
                status = await self._ask("POST", token.path, token.body)
        except (trio.TooSlowError, *BROKEN) as error:
            slow = isinstance(error, trio.TooSlowError)
            what = f"no answer within {patience:g} s" if slow else str(error) or type(error).__name__
            return ProbeResult(Verdict.FAILED, f"{told}; a one-token request failed too ({what})", stalled=True)
        if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            return ProbeResult(Verdict.FAILED, f"{told}; a one-token request got {status}", stalled=True)
        self._busy_since = trio.current_time()
        return ProbeResult(Verdict.ALIVE)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> int:
        """The status alone: what an engine says besides could be without an end."""
        async with self._open(method, path, body) as answer:
            return answer.status_code

    async def _read(self, path: str) -> str:
        """The text at ``path``, or as much of it as metrics can be; empty where there is none."""
        async with self._open("GET", path) as answer:
            return await beginning_of(answer, MOST_METRICS_BYTES) if answer.status_code == httpx2.codes.OK else ""

    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        content = None if body is None else dict(body)
        return self.client.stream(method, self.plan.base_url + path, json=content, headers=dict(self.headers))


def flag_in(text: str) -> bool | None:
    """The one boolean member of a JSON object; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    flags = [each for each in value.values() if isinstance(each, bool)] if isinstance(value, dict) else []
    return flags[0] if len(flags) == 1 else None


def ids_in(text: str) -> Collection[str]:
    """The names in a model list of OpenAI's shape; none in anything else."""
    try:
        listed = json.loads(text)["data"]
        return [str(model["id"]) for model in listed]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ()


async def beginning_of(answer: httpx2.Response, most_bytes: int) -> str:
    """The text of an answer that is being streamed, or not much more than ``most_bytes`` of it.

    Empty where it is compressed: nobody asked for that, and a few of its bytes can be gigabytes.
    """
    if answer.headers.get("content-encoding", PLAIN) != PLAIN:
        return ""
    text = bytearray()
    with trio.CancelScope() as enough:  # leaving the loop would leave the generators behind it open
        async for chunk in answer.aiter_raw():
            text += chunk
            if len(text) > most_bytes:
                enough.cancel()
    return text.decode(errors="replace")


def make_client(barred: Callable[[str], bool] = NEVER_ALLOWED) -> httpx2.AsyncClient:
    """The client that probes use: no proxies, no redirects, a fresh connection each time. Blocks (reads certificates).

    It sends nothing to addresses that are ``barred``.

    A fresh connection proves that the engine still accepts; a kept one could outlive its listener.
    """
    limits = httpx2.Limits(max_keepalive_connections=0)
    headers = {"Accept-Encoding": PLAIN}
    transport = guarded_transport(barred, limits)
    return httpx2.AsyncClient(
        transport=transport, trust_env=False, follow_redirects=False, timeout=None, headers=headers
    )

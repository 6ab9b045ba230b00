"""The shell that blocks: carries out what calls ask for, in the thread that calls. Safe to use from several."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, TypeVar

import httpx2

from stoker.client.asking import Asking
from stoker.client.lines import Group, Lines
from stoker.client.steps import (
    Break,
    Broken,
    Close,
    Effect,
    Opened,
    Outcome,
    Pause,
    Reply,
    Request,
    Send,
    Steps,
    Together,
)
from stoker.client.watching import WatcherThread
from stoker.client.wire import Doors, broken_by, headers_of, is_stream, parts_of

T = TypeVar("T")


class Events:
    """The events of one answer."""

    def __init__(self, response: httpx2.Response, lines: Lines, between_seconds: float | None) -> None:
        self._response = response
        self._events = iter(httpx2.EventSource(response, max_event_size=None))
        self._lines = lines
        self._between_seconds = between_seconds

    def next(self) -> httpx2.ServerSentEvent | Broken | None:
        """The next one, None where there are no more."""
        with self._lines.until(_deadline(self._between_seconds)):
            return self.first()

    def first(self) -> httpx2.ServerSentEvent | Broken | None:
        """The same, in the time in which the stream has to begin."""
        try:
            return next(self._events)
        except StopIteration:
            return None
        except httpx2.HTTPError as error:
            return broken_by(error)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Tell the other side that nobody listens. May be done again."""
        self._response.close()


class BlockingShell:
    """Runs calls. Closed by :meth:`close`; what runs then in other threads fails."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._lines = Lines()
        self._gateway = doors.to_gateway(httpx2.Client, self._lines.transport)
        self._engines: dict[bool, httpx2.Client] = {}
        self._lock = Lock()
        self._watcher: WatcherThread | None = None
        self._closed = False

    def close(self) -> None:
        """Close every connection, and end the thread that watches, if there is one. May be done again."""
        with self._lock:
            self._closed = True
            watcher, self._watcher = self._watcher, None
        self._lines.everybody.end()
        if watcher is not None:
            watcher.close()
        for http in (self._gateway, *self._engines.values()):
            http.close()

    def watch(self, asking: Asking) -> None:
        """See to it that the gateway's events are listened to, from now until :meth:`close`."""
        with self._lock:
            if self._watcher is None and not self._closed:
                self._watcher = WatcherThread(self._doors, asking)

    def run(self, steps: Steps[T]) -> T:
        """Carry out a call and return what it returns."""
        try:
            effect = next(steps)
            while True:
                self._lines.check()
                effect = steps.send(self._perform(effect))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return self._send(effect)
            case Close():
                return effect.handle.close()
            case Pause():
                return time.sleep(effect.seconds)
            case Together():
                return self._together(effect)

    def _send(self, send: Send) -> Outcome:
        http, deadline = self._door_of(send.request), _deadline(send.timeout_seconds)
        try:
            request = http.build_request(**parts_of(send.request, send.silence_seconds))
            with self._lines.until(deadline):
                response = http.send(request, stream=True)
                try:
                    if send.stream and is_stream(response):
                        return _open(Events(response, self._lines, send.between_seconds), response)
                    return _read(response, deadline)
                except BaseException:
                    response.close()
                    raise
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return broken_by(error)

    def _together(self, together: Together) -> list[Any]:
        """In threads, which have ended when this returns or raises, as it does at once where it is interrupted."""
        group = Group("another part of the call failed")

        def work(call: Steps[Any]) -> Any:
            with self._lines.within(group):
                return self.run(call)

        count = min(together.limit, len(together.calls))
        with ThreadPoolExecutor(count, thread_name_prefix="stoker-client") as pool:
            try:
                futures = [pool.submit(work, call) for call in together.calls]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in futures if future in done and future.exception() is not None]
                return [future.result() for future in failed or futures]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                group.end()

    def _door_of(self, request: Request) -> httpx2.Client:
        if not request.to_engine:
            return self._gateway
        tls = request.url.startswith("https:")
        with self._lock:
            if tls not in self._engines:
                if self._closed:
                    raise RuntimeError("the client is closed")
                self._engines[tls] = self._doors.to_engines(httpx2.Client, self._lines.transport, tls=tls)
            return self._engines[tls]


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _open(events: Events, response: httpx2.Response) -> Outcome:
    first = events.first()
    if isinstance(first, Broken):
        events.close()
        return first
    return Opened(handle=events, headers=headers_of(response), first=None if first is None else first.data)


def _read(response: httpx2.Response, deadline: float | None) -> Outcome:
    """The whole answer. The deadline is for what comes through a proxy: there, our own lines are not used."""
    pieces = []
    for piece in response.iter_bytes():
        pieces.append(piece)
        if deadline is not None and time.monotonic() > deadline:
            response.close()
            return Broken(Break.TIMED_OUT, "no whole answer")
    response.close()
    return Reply(status=response.status_code, headers=headers_of(response), content=b"".join(pieces))

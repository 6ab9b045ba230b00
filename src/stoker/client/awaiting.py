"""The shell that awaits: carries out what calls ask for, on asyncio or on Trio."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import httpx2

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
from stoker.client.wire import Doors, broken_by, headers_of, is_stream, parts_of

T = TypeVar("T")


class AsyncEvents:
    """The events of one answer."""

    def __init__(self, response: httpx2.Response, between_seconds: float | None = None) -> None:
        self._response = response
        self._events = aiter(httpx2.EventSource(response, max_event_size=None))
        self._between_seconds = between_seconds

    async def next(self) -> httpx2.ServerSentEvent | Broken | None:
        """The next one, None where there are no more. A cancellation closes the stream."""
        try:
            with anyio.fail_after(self._between_seconds):
                return await self.first()
        except TimeoutError:
            return Broken(Break.TIMED_OUT, "no next event")

    async def first(self) -> httpx2.ServerSentEvent | Broken | None:
        """The same, in the time in which the stream has to begin."""
        try:
            return await anext(self._events)
        except StopAsyncIteration:
            return None
        except httpx2.HTTPError as error:
            return broken_by(error)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Tell the other side that nobody listens. May be done again."""
        with anyio.CancelScope(shield=True):
            await self._response.aclose()
            # httpx2 reads through generators within generators, and leaves them to the garbage collector, of which Trio
            # complains. What ends all of them is an error from the innermost, and from a closed connection that comes.
            with contextlib.suppress(httpx2.HTTPError, httpx2.StreamError):
                async for _ in self._events:
                    pass


class AsyncShell:
    """Runs calls. Closed by :meth:`aclose`; what runs then fails."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._gateway = doors.to_gateway(httpx2.AsyncClient)
        self._engines: dict[bool, httpx2.AsyncClient] = {}
        self._loop: object = None

    @property
    def gateway(self) -> httpx2.AsyncClient:
        """What leads to the gateway, on the event loop that runs."""
        self._settle()
        return self._gateway

    def _settle(self) -> None:
        """Begin anew where another event loop runs than before: connections can't be used, nor closed, on any other."""
        before, self._loop = self._loop, anyio.lowlevel.current_token()
        if before not in (None, self._loop) and not self._gateway.is_closed:
            self._gateway = self._doors.to_gateway(httpx2.AsyncClient)
            self._engines = {}

    async def aclose(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            for http in (self._gateway, *self._engines.values()):
                await http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Carry out a call and return what it returns. A cancellation ends it, and the engine's work for it."""
        try:
            effect = next(steps)
            while True:
                effect = steps.send(await self._perform(effect))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._send(effect)
            case Close():
                return await effect.handle.close()
            case Pause():
                return await anyio.sleep(effect.seconds)
            case Together():
                return await self._together(effect)

    async def _send(self, send: Send) -> Outcome:
        http = self._door_of(send.request)
        try:
            request = http.build_request(**parts_of(send.request, send.silence_seconds))
            with anyio.fail_after(send.timeout_seconds):
                response = await http.send(request, stream=True)
                try:
                    if send.stream and is_stream(response):
                        return await _open(AsyncEvents(response, send.between_seconds), response)
                    return await _read(response)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
                    raise
        except TimeoutError:
            return Broken(Break.TIMED_OUT, "no answer")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return broken_by(error)

    async def _together(self, together: Together) -> list[Any]:
        results: list[Any] = [None] * len(together.calls)
        failures: list[Exception] = []
        limit = anyio.Semaphore(together.limit)

        async def work(number: int, call: Steps[Any]) -> None:
            async with limit:
                try:
                    results[number] = await self.run(call)
                except Exception as error:  # noqa: BLE001 - raised below, alone and not in a group
                    failures.append(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for number, call in enumerate(together.calls):
                group.start_soon(work, number, call)
        if failures:
            raise failures[0]
        return results

    def _door_of(self, request: Request) -> httpx2.AsyncClient:
        self._settle()
        if not request.to_engine:
            return self._gateway
        tls = request.url.startswith("https:")
        if tls not in self._engines:
            self._engines[tls] = self._doors.to_engines(httpx2.AsyncClient, tls=tls)
        return self._engines[tls]


async def _open(events: AsyncEvents, response: httpx2.Response) -> Outcome:
    first = await events.first()
    if isinstance(first, Broken):
        await events.close()
        return first
    return Opened(handle=events, headers=headers_of(response), first=None if first is None else first.data)


async def _read(response: httpx2.Response) -> Reply:
    async with contextlib.aclosing(response):
        content = await response.aread()
    return Reply(status=response.status_code, headers=headers_of(response), content=content)

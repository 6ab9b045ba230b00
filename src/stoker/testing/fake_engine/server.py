"""The fake engine at work: it listens, hears signals, and answers everything but inference itself."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import h11
import trio

from stoker.testing.fake_engine import openai
from stoker.testing.fake_engine.faults import Faults, UnknownFault
from stoker.testing.fake_engine.http import Connection, Request
from stoker.testing.fake_engine.responder import Counts, Responder
from stoker.testing.fake_engine.tended import Tended

REMEMBERED_REQUESTS = 32
REMEMBERED_BODY_BYTES = 1024 * 1024
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError)


class FakeEngine:
    """Serves ``names`` until told to stop. ``children`` are pids that were left before; they are only shown."""

    def __init__(self, *, names: tuple[str, ...], kind: str, faults: Faults, children: tuple[int, ...] = ()) -> None:
        self.faults = faults
        self.counts = Counts()
        self._tended = Tended()
        self._responder = Responder(names, self.counts, self._tended)
        self._names = names
        self._kind = kind
        self._children = children
        self._ready_at = 0.0
        self._seen: deque[Mapping[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._changed = trio.Event()

    def change(self, faults: Faults) -> None:
        """From now on these faults hold."""
        self.faults = faults
        self._touch()

    def _touch(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Running

    async def run(self, host: str, port: int, *, stop_with_stdin: bool = False) -> None:
        """Listen, serve, and return after SIGTERM or SIGINT, or when whoever holds the other end of stdin is gone."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, host, port, nursery)
                if stop_with_stdin:
                    nursery.start_soon(_until_stdin_closes, nursery.cancel_scope)
                await self._until_stopped(signals)
                nursery.cancel_scope.cancel()

    async def _until_stopped(self, signals: Any) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                self.change(Faults())
                continue
            self.counts.sigterms += 1
            lost = self.faults.lose_first_sigterm and self.counts.sigterms == 1
            if number == signal.SIGTERM and (self.faults.ignore_sigterm or lost):
                continue
            while self.faults.sigterm_waits and self.counts.active:
                await self._changed.wait()
            return

    async def _listen(self, host: str, port: int, nursery: trio.Nursery) -> None:
        """Keep the listening socket as the faults want it: open, or closed."""
        await trio.sleep(self.faults.start_delay_seconds)
        self._ready_at = trio.current_time() + self.faults.load_seconds
        while True:
            if not self.faults.refuse_connections:
                listeners = await trio.open_tcp_listeners(port, host=host)
                port = listeners[0].socket.getsockname()[1]
                print(f"listening on {host}:{port}", flush=True)  # noqa: T201 - its log
                async with trio.open_nursery() as accepting:
                    serve = partial(trio.serve_listeners, self._converse, listeners, handler_nursery=nursery)
                    accepting.start_soon(serve)
                    await self._until_refusing()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
            await self._changed.wait()

    async def _until_refusing(self) -> None:
        while not self.faults.refuse_connections:
            await self._changed.wait()

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        try:
            while (request := await connection.next_request()) is not None:
                await self._answer(connection, request)
        except h11.RemoteProtocolError as wrong:
            with trio.move_on_after(1):
                await stream.send_all(f"HTTP/1.1 {wrong.error_status_hint} Bad Request\r\n\r\n".encode())
        except BROKEN:
            pass  # the client left, or a fault broke the connection
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    # Answering

    async def _answer(self, connection: Connection, request: Request) -> None:
        match (request.method, request.path):
            case (_, path) if path.startswith("/fake/"):
                await self._control(connection, request)
            case ("GET", "/health"):
                await self._health(connection)
            case ("GET", "/v1/models"):
                models = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self._names]
                await connection.answer(200, {"object": "list", "data": models})
            case ("GET", "/metrics"):
                await connection.answer(200, self._metrics().encode())
            case ("POST", path) if path in openai.PATHS[self._kind]:
                await self._infer(connection, request)
            case _:
                if not await self._tended.answer(connection, request):
                    await connection.answer(404, {"detail": "Not Found"})

    async def _health(self, connection: Connection) -> None:
        if self.faults.health_hangs:
            await connection.until_client_leaves()
            return
        loading = self.faults.never_ready or trio.current_time() < self._ready_at
        await connection.answer(500 if self.faults.health_fails else 503 if loading else 200, b"")

    def _metrics(self) -> str:
        label = f'{{engine="0",model_name="{self._names[0]}"}}'
        metrics = {
            "vllm:num_requests_running": ("gauge", self.counts.active),
            "vllm:num_requests_waiting": ("gauge", 0),
            "vllm:kv_cache_usage_perc": ("gauge", min(1.0, self.counts.active / 100)),
            "vllm:prompt_tokens_total": ("counter", self.counts.prompt_tokens),
            "vllm:generation_tokens_total": ("counter", self.counts.generated_tokens),
        }
        return "".join(
            f"# TYPE {name} {kind}\n{name}{label} {float(value)}\n" for name, (kind, value) in metrics.items()
        )

    async def _infer(self, connection: Connection, request: Request) -> None:
        """One inference request, cancelled when its client leaves."""
        self._remember(request)
        self.counts.requests += 1
        spent = self.faults.first_requests is not None and self.counts.requests > self.faults.first_requests
        faults = Faults(exit_after_requests=self.faults.exit_after_requests) if spent else self.faults
        gone = trio.Event()
        self.counts.active += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_client, connection, gone, nursery.cancel_scope)
                try:
                    await self._responder.respond(connection, request, faults)
                except BROKEN:
                    gone.set()
                nursery.cancel_scope.cancel()
        finally:
            self.counts.active -= 1
            self.counts.cancelled += gone.is_set()
            self._touch()
        if faults.exit_after_requests is not None and self.counts.answered >= faults.exit_after_requests:
            os._exit(0)

    def _remember(self, request: Request) -> None:
        small = len(request.body) <= REMEMBERED_BODY_BYTES
        self._seen.append(
            {
                "method": request.method,
                "target": request.target,
                "headers": request.headers,
                "body_base64": base64.b64encode(request.body).decode() if small else None,
                "body_sha256": hashlib.sha256(request.body).hexdigest(),
                "body_size": len(request.body),
            }
        )

    # What tests ask

    async def _control(self, connection: Connection, request: Request) -> None:
        match (request.method, request.path):
            case ("GET", "/fake/state"):
                await connection.answer(200, self._state())
            case ("GET", "/fake/requests"):
                await connection.answer(200, {"requests": list(self._seen)})
            case ("POST", "/fake/go-on"):
                self._tended.go_on()
                await connection.answer(200, {})
            case ("POST", "/fake/faults"):
                await self._change_faults(connection, request)
            case ("DELETE", "/fake/faults"):
                self.change(Faults())
                await connection.answer(200, attrs.asdict(self.faults))
            case _:
                await connection.answer(404, {"detail": "Not Found"})

    def _state(self) -> Mapping[str, Any]:
        return {
            "pid": os.getpid(),
            "children": self._children,
            "names": self._names,
            "kind": self._kind,
            "adapters": list(self._tended.adapters),
            **attrs.asdict(self.counts),
            "faults": attrs.asdict(self.faults),
        }

    async def _change_faults(self, connection: Connection, request: Request) -> None:
        try:
            changes = json.loads(request.body)
            if not isinstance(changes, dict):
                raise UnknownFault("faults are a JSON object")
            faults = self.faults.changed(changes)
        except ValueError as wrong:
            await connection.answer(400, openai.error(400, str(wrong), "BadRequestError"))
            return
        self.change(faults)  # before the answer: whoever has that finds the faults there
        await connection.answer(200, attrs.asdict(faults))


async def _watch_client(connection: Connection, gone: trio.Event, work: trio.CancelScope) -> None:
    await connection.until_client_leaves()
    gone.set()
    work.cancel()


async def _until_stdin_closes(work: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some():
            pass
    work.cancel()

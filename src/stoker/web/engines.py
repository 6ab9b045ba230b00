"""The management endpoints of single engines: start, register, look at, stop, restart, forget, read the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio
from quart import Blueprint, Response, request

from stoker.core.codes import Code
from stoker.errors import NotFoundError
from stoker.gateway.answers import Answer, error
from stoker.model import EngineInfo, EngineSpec, EngineState
from stoker.web.allowing import Allowing
from stoker.web.control import Control
from stoker.web.orders import adapter_order, drain_seconds, remote_spec, take_engine_id
from stoker.web.problems import RequestError, bad_request
from stoker.web.reading import Query, read_object
from stoker.web.streams import LogStream, OpenEnds
from stoker.web.wire import Wire

ReadSpec = Callable[[Mapping[str, Any], str], EngineSpec]

_SOURCE = "the request"
TAIL_LINES = 1000
MOST_LINES = 1_000_000
_TEXT = "text/plain; charset=utf-8"


@attrs.frozen
class EngineEndpoints:
    """What stands below ``/v1/management/engines``."""

    control: Control
    wire: Wire
    ends: OpenEnds
    read_spec: ReadSpec
    allowing: Allowing

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``, below its prefix."""
        one = "/engines/<engine_id>"
        blueprint.add_url_rule("/engines", view_func=self.listing, methods=["GET"])
        blueprint.add_url_rule("/engines/start", view_func=self.start, methods=["POST"])
        blueprint.add_url_rule("/engines/register", view_func=self.register, methods=["POST"])
        blueprint.add_url_rule(one, view_func=self.show, methods=["GET"])
        blueprint.add_url_rule(one, view_func=self.forget, methods=["DELETE"])
        blueprint.add_url_rule(f"{one}/start", view_func=self.start_again, methods=["POST"])
        blueprint.add_url_rule(f"{one}/stop", view_func=self.stop, methods=["POST"])
        blueprint.add_url_rule(f"{one}/restart", view_func=self.restart, methods=["POST"])
        blueprint.add_url_rule(f"{one}/logs", view_func=self.logs, methods=["GET"])
        blueprint.add_url_rule(f"{one}/sleep", view_func=self.sleep, methods=["POST"])
        blueprint.add_url_rule(f"{one}/wake", view_func=self.wake, methods=["POST"])
        blueprint.add_url_rule(f"{one}/adapters", view_func=self.adapters, methods=["GET"])
        blueprint.add_url_rule(f"{one}/adapters", view_func=self.load_adapter, methods=["POST"])
        blueprint.add_url_rule(f"{one}/adapters/<any_text:name>", view_func=self.unload_adapter, methods=["DELETE"])

    async def listing(self) -> Response:
        """``GET /engines``: every engine."""
        return self.wire.listing(self.control.infos())

    async def show(self, engine_id: str) -> Response:
        """``GET /engines/{id}``: one engine."""
        return self.wire.answer(self.control.info(engine_id))

    async def start(self) -> Response:
        """``POST /engines/start``: start what the body describes, as an ``[[engine]]`` table does.

        Answers with the first of its engines, and in ``engine_ids`` with all of them. 403 for what may not come
        this way.
        """
        wait = _query("wait").choice("wait", "ready")
        body = await read_object(request)
        engine_id = take_engine_id(body, _SOURCE)
        spec = self.read_spec(body, _SOURCE)
        await self.allowing.check(spec)
        try:
            engine_ids = self.control.start(spec, engine_id)
        except NotFoundError as problem:  # not what the URL names, but what the body does
            raise bad_request(str(problem), "runtime") from None
        return await self._started(engine_ids, wait=wait)

    async def start_again(self, engine_id: str) -> Response:
        """``POST /engines/{id}/start``: start an engine that is STOPPED or in ERROR; 409 for any other."""
        wait = _query("wait").choice("wait", "ready")
        self.control.start_again(engine_id)
        return await self._started([engine_id], wait=wait)

    async def restart(self, engine_id: str) -> Response:
        """``POST /engines/{id}/restart``: drain, stop and start an engine. The body is as for ``stop``."""
        wait = _query("wait").choice("wait", "ready")
        drain = drain_seconds(await read_object(request, optional=True), _SOURCE)
        self.control.restart(engine_id, drain_timeout_seconds=drain)
        return await self._started([engine_id], wait=wait)

    async def register(self) -> Response:
        """``POST /engines/register``: route to an engine that runs already.

        It takes ``model``, and ``url`` or ``host`` and ``port``. 409 for one that is known, 403 for an address outside
        ``register_hosts``, or an ``api_key_env`` that is not among ``api_key_variables``.
        """
        body = await read_object(request)
        engine_id = take_engine_id(body, _SOURCE)
        spec = self.read_spec(remote_spec(body, _SOURCE), _SOURCE)
        await self.allowing.check(spec)
        engine_id = self.control.register(spec, engine_id)
        return self.wire.answer(self.control.info(engine_id), 201, _location(engine_id))

    async def stop(self, engine_id: str) -> Response:
        """``POST /engines/{id}/stop``: drain and stop an engine.

        ``{"drain": false}`` does not wait for its requests; ``{"drain_timeout_seconds": n}`` waits so long for them.
        """
        return await self._stop(engine_id, forget=False)

    async def forget(self, engine_id: str) -> Response:
        """``DELETE /engines/{id}``: drain, stop and forget an engine. The body is as for ``stop``."""
        return await self._stop(engine_id, forget=True)

    async def logs(self, engine_id: str) -> Response:
        """``GET /engines/{id}/logs``: the end of the log of an engine, as text."""
        query = _query("tail", "follow")
        tail = query.number("tail", most=MOST_LINES)
        tail = TAIL_LINES if tail is None else tail
        follow = query.flag("follow")
        self.control.info(engine_id)
        if follow:
            return Response(LogStream(self.control.follow_log(engine_id, tail), self.ends), content_type=_TEXT)
        text = await self.control.log_text(engine_id, tail)
        return Response(text.encode(errors="replace"), content_type=_TEXT)

    async def sleep(self, engine_id: str) -> Response:
        """``POST /engines/{id}/sleep``: let an engine finish its requests, and put it to sleep; answers when it sleeps.

        409 where it can't, or is not idle within its ``drain_timeout_seconds``.
        """
        await read_object(request, optional=True)
        await self.control.tending.sleep(engine_id)
        return self.wire.answer(self.control.info(engine_id))

    async def wake(self, engine_id: str) -> Response:
        """``POST /engines/{id}/wake``: wake an engine; answers when it is awake."""
        await read_object(request, optional=True)
        await self.control.tending.wake(engine_id)
        return self.wire.answer(self.control.info(engine_id))

    async def adapters(self, engine_id: str) -> Response:
        """``GET /engines/{id}/adapters``: the LoRA adapters that were loaded into an engine while it runs."""
        return self.wire.listing([{"name": name} for name in self.control.info(engine_id).adapters])

    async def load_adapter(self, engine_id: str) -> Response:
        """``POST /engines/{id}/adapters``: load a LoRA adapter; answers when clients can ask for it.

        It takes ``name`` and ``path``. 409 for a name that is taken, or with the engine's own words.
        """
        name, path = adapter_order(await read_object(request), _SOURCE)
        await self.control.tending.load_adapter(engine_id, name, path)
        return self.wire.answer(self.control.info(engine_id), 201)

    async def unload_adapter(self, engine_id: str, name: str) -> Response:
        """``DELETE /engines/{id}/adapters/{name}``: unload an adapter."""
        await self.control.tending.unload_adapter(engine_id, name)
        return self.wire.answer(self.control.info(engine_id))

    async def _stop(self, engine_id: str, *, forget: bool) -> Response:
        wait = _query("wait").choice("wait", "stopped")
        drain = drain_seconds(await read_object(request, optional=True), _SOURCE)
        last_seen = self.control.info(engine_id)
        self.control.stop(engine_id, drain_timeout_seconds=drain, forget=forget)
        now: EngineInfo | None
        try:
            now = await self.control.wait_until_stopped(engine_id) if wait else self.control.info(engine_id)
        except NotFoundError:
            now = None
        if now is None:
            return self.wire.answer({**self.wire.plain(last_seen), "state": EngineState.STOPPED, "deleted": True})
        done = now.state is EngineState.STOPPED
        return self.wire.answer(now, 200 if done else 202)

    async def _started(self, engine_ids: Sequence[str], *, wait: bool) -> Response:
        if wait:
            await self._wait_until_ready(engine_ids)
        first = self.wire.plain(self.control.info(engine_ids[0]))
        body = {**first, "engine_ids": engine_ids}
        return self.wire.answer(body, 200 if wait else 202, _location(engine_ids[0]))

    async def _wait_until_ready(self, engine_ids: Sequence[str]) -> None:
        failures: list[Answer] = []

        async def watch(engine_id: str) -> None:
            failure = await self._failure(engine_id)
            if failure is not None:
                failures.append(failure)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for engine_id in engine_ids:
                nursery.start_soon(watch, engine_id)
        if failures:
            raise RequestError(failures[0])

    async def _failure(self, engine_id: str) -> Answer | None:
        """Wait until the engine is READY; what to answer if it never is."""
        try:
            info = await self.control.wait_until_settled(engine_id)
        except NotFoundError:
            return error(Code.ENGINE_STOPPED, f"engine {engine_id!r} was deleted before it was READY")
        if info.state is EngineState.STARTING:
            return error(Code.ENGINE_WAITS, f"engine {engine_id!r} is not READY yet; it {info.reason}")
        if info.state is EngineState.ERROR:
            message = f"engine {engine_id!r} did not become READY: {info.last_error} ({info.reason})"
            return error(Code.ENGINE_FAILED, message)
        if info.state is not EngineState.READY:
            return error(Code.ENGINE_STOPPED, f"engine {engine_id!r} was stopped before it was READY")
        return None


def _query(*known: str) -> Query:
    return Query(request.query_string, known)


def _location(engine_id: str) -> dict[str, str]:
    return {"location": f"/v1/management/engines/{engine_id}"}

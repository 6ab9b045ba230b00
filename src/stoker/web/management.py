"""The management endpoints of the whole: backends, GPUs, status, events, reload."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import attrs
from quart import Blueprint, Response, request

from stoker import __version__
from stoker.gateway.choosing import Chooser
from stoker.gateway.routing import RoutingTable
from stoker.model import EngineInfo, EngineState
from stoker.settings import GatewaySettings
from stoker.web.control import Control, Operations
from stoker.web.doors import models_of
from stoker.web.orders import flags
from stoker.web.reading import read_object
from stoker.web.streams import EventStream, OpenEnds
from stoker.web.wire import Wire

_EVENTS = "text/event-stream; charset=utf-8"


def _may_know() -> Callable[[EngineInfo], bool]:
    """Whether whoever asks may know of an engine: a key for certain models knows of theirs alone."""
    visible = models_of(request)
    return lambda info: visible is None or not visible.isdisjoint((info.model, *info.names))


@attrs.frozen
class ManagementEndpoints:
    """What stands directly below ``/v1/management``. ``started_at`` is in seconds since the Unix epoch."""

    control: Control
    operations: Operations
    table: RoutingTable
    wire: Wire
    ends: OpenEnds
    settings: GatewaySettings
    started_at: float
    keep_alive_seconds: float

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``, below its prefix."""
        blueprint.add_url_rule("/backends", view_func=self.backends, methods=["GET"])
        blueprint.add_url_rule("/gpu", view_func=self.gpu, methods=["GET"])
        blueprint.add_url_rule("/gpu/ledger", view_func=self.gpu_ledger, methods=["GET"])
        blueprint.add_url_rule("/status", view_func=self.status, methods=["GET"])
        blueprint.add_url_rule("/events", view_func=self.events, methods=["GET"])
        blueprint.add_url_rule("/reload", view_func=self.reload, methods=["POST"])
        blueprint.add_url_rule("/strays", view_func=self.strays, methods=["GET"])
        blueprint.add_url_rule("/prune", view_func=self.prune, methods=["POST"])
        blueprint.add_url_rule("/gateway/stop", view_func=self.stop_gateway, methods=["POST"])
        blueprint.add_url_rule("/gateway/restart", view_func=self.restart_gateway, methods=["POST"])

    async def backends(self) -> Response:
        """``GET /backends``: what clients may talk to, with or without the gateway between."""
        known = filter(_may_know(), self.control.infos())
        return self.wire.listing([self._backend(info) for info in known if info.base_url is not None])

    async def gpu(self) -> Response:
        """``GET /gpu``: the GPUs, or an empty list with the ``reason``."""
        return self.wire.answer(await self.operations.gpus())

    async def gpu_ledger(self) -> Response:
        """``GET /gpu/ledger``: what engines were measured to use of GPUs, the latest last.

        ``used`` are the bytes of each GPU in the last run, ``used_before`` those in the one before.
        """
        return self.wire.listing(self.operations.gpu_ledger())

    async def status(self) -> Response:
        """``GET /status``: version, uptime, policies, queue, counts, lanes, what reads requests, plugins."""
        counts = Counter(info.state for info in self.control.infos())
        own = {
            "version": __version__,
            "started_at": self.started_at,
            "uptime_seconds": max(0.0, time.time() - self.started_at),
            "policy": self.settings.policy,
            "policies": [self._policy(chooser) for chooser in self.table.policies.used()],
            "queue": {
                "in_flight": self.table.in_flight(),
                "waiting": self.table.waiting(),
                "size": self.settings.queue_size,
                "seconds": self.settings.queue_seconds,
            },
            "counters": self.table.counters,
            "engines": {state: counts[state] for state in EngineState},
            "shutting_down": self.operations.shutting_down(),
        }
        return self.wire.answer({**own, **self.operations.status()})

    async def events(self) -> Response:
        """``GET /events``: server-sent events: a ``snapshot`` of all engines, then an ``engine`` for every change."""
        stream = EventStream(self.control, self.wire, self.ends, self.keep_alive_seconds, _may_know())
        # Buffering proxies would keep events to themselves.
        return Response(stream, 200, {"x-accel-buffering": "no"}, content_type=_EVENTS)

    async def reload(self) -> Response:
        """``POST /reload``: read the configuration again, do what changed in it, and answer with the difference.

        400 with every mistake; then nothing changed.
        """
        await read_object(request, optional=True)
        return self.wire.answer(await self.operations.reload())

    async def strays(self) -> Response:
        """``GET /strays``: processes with this home's marker that belong to no engine.

        ``engine_id`` is what the marker says.
        """
        return self.wire.listing(await self.control.strays())

    async def prune(self) -> Response:
        """``POST /prune``: take engines that are STOPPED, or in ERROR for good, off the list, and end strays.

        Engines of the configuration stay, and with ``{"keep_ended": true}`` all do. Answers with what was ``forgotten``
        and ``ended``, and what is ``remaining``.
        """
        order = flags(await read_object(request, optional=True), ("keep_ended",), "the order")
        forgotten = [] if order["keep_ended"] else self.control.forget_ended()
        ended = await self.control.end_strays()
        return self.wire.answer({"forgotten": forgotten, "ended": ended.found, "remaining": ended.remaining})

    async def stop_gateway(self) -> Response:
        """``POST /gateway/stop``: end the gateway.

        With ``{"keep_engines": true}`` its engines run on; with ``{"now": true}`` it does not wait for requests.
        """
        order = flags(await read_object(request, optional=True), ("keep_engines", "now"), "the stop")
        self.operations.stop_gateway(keep_engines=order["keep_engines"], now=order["now"])
        return self.wire.answer({"stopping": True}, 202)

    async def restart_gateway(self) -> Response:
        """``POST /gateway/restart``: have the gateway replaced by what its file is by now, in the same process.

        400 with what keeps the new one from starting. ``now`` is as for ``stop``.
        """
        order = flags(await read_object(request, optional=True), ("now",), "the restart")
        await self.operations.restart_gateway(now=order["now"])
        return self.wire.answer({"restarting": True}, 202)

    def _policy(self, chooser: Chooser) -> dict[str, object]:
        return {
            "name": chooser.name,
            "plugin": chooser.plugin,
            "in_service": chooser.in_service,
            "models": self.table.models_by(chooser),
            "failures": chooser.failures,
        }

    def _backend(self, info: EngineInfo) -> dict[str, object]:
        backend = self.table.backend(info.engine_id)
        return {
            "engine_id": info.engine_id,
            "url": info.base_url,
            "model": info.model,
            "names": info.names if backend is None else backend.names,
            "kind": info.kind,
            "state": info.state,
            "healthy": backend is not None and backend.accepting,
            "in_flight": self.table.activity(info.engine_id).active_requests,
            "limit": info.max_concurrency,
            "paths": [] if backend is None else sorted(backend.paths),
            "renames": {} if backend is None else dict(backend.renames),
            "needs_key": backend is None or backend.api_key is not None,
        }

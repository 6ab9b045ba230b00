"""The data plane, put together: all that stands between a client's socket and an engine's."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Self

import attrs
import trio

from stoker.core.addresses import HostRules
from stoker.gateway.asking import best_reader
from stoker.gateway.conversing import Archive, Conversations
from stoker.gateway.express import ExpressLane
from stoker.gateway.forward import Finished, Forwarder
from stoker.gateway.framing import Framing
from stoker.gateway.heading import Guard, HeadReader
from stoker.gateway.hub import Hub
from stoker.gateway.keyring import KeyRing
from stoker.gateway.llhttp import best_framing
from stoker.gateway.measures import Measures
from stoker.gateway.retrying import Probed, Report
from stoker.gateway.rewriting import rewrite_model
from stoker.gateway.routing import RoutingTable
from stoker.gateway.saying import best_saying_reader
from stoker.gateway.upstream import UpstreamPool
from stoker.settings import GatewaySettings, SessionSettings


@attrs.frozen(eq=False)
class DataPlane:
    """The parts that others need: a server its lane and its hub, those who watch its measures."""

    table: RoutingTable
    hub: Hub
    forwarder: Forwarder
    framing: Framing
    settings: GatewaySettings
    measures: Measures

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        table: RoutingTable,
        settings: GatewaySettings,
        *,
        report: Report,
        probed: Probed,
        httptools: ModuleType | None,
        msgspec: ModuleType | None,
        finished: Finished | None = None,
        keys: KeyRing | None = None,
        archive: Archive | None = None,
        sessions: SessionSettings | None = None,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> AsyncIterator[Self]:
        """Open it, and close it in the end: the connections to engines first, then the hub.

        ``httptools`` and ``msgspec`` are the modules, or None where plain Python has to do. The rest is as with
        :class:`Forwarder` and :class:`UpstreamPool`. Without ``archive`` no conversations are kept.
        """
        barred = HostRules.of(settings.register_hosts).bars
        hub, measures, framing = Hub(), Measures(), best_framing(httptools)
        pool = UpstreamPool(
            hub, framing, table.clock, settings.connect_timeout_seconds, ssl_context=ssl_context, barred=barred
        )
        conversations = None
        if archive is not None:
            conversations = Conversations(archive, sessions or SessionSettings(), settings, table.counters)
        forwarder = Forwarder(
            table,
            pool,
            settings,
            report=report,
            probed=probed,
            reader=best_reader(msgspec),
            read_said=best_saying_reader(msgspec),
            rewrite=partial(rewrite_model, msgspec=msgspec),
            measures=measures,
            finished=finished,
            keys=keys,
            conversations=conversations,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            async with pool:
                yield cls(table, hub, forwarder, framing, settings, measures)
            nursery.cancel_scope.cancel()

    def lane(self, guard: Guard | None) -> ExpressLane:
        """The express lane, for those whom ``guard`` lets in."""
        return ExpressLane(self.forwarder, self.settings, HeadReader(self.framing, guard), self.table.clock)

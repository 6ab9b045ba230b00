"""``/metrics``, for Prometheus and whoever reads its formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
import trio
from prometheus_client.exposition import choose_encoder
from quart import Blueprint, Response, request

from stoker.gateway.measures import Measures
from stoker.gateway.routing import RoutingTable
from stoker.model import NOTHING
from stoker.settings import GatewaySettings
from stoker.web.control import Control
from stoker.web.measurements import ObserverState, Page, PolicyState

Encode = Callable[[Page], bytes]


class Listener(Protocol):
    """What is counted of a plugin that observes."""

    plugin: str
    dropped: int
    failures: int


@attrs.frozen
class MetricsEndpoint:
    """One page: names of models and engines, and numbers. ``refusals`` are counted by the ring of keys."""

    control: Control
    table: RoutingTable
    measures: Measures
    settings: GatewaySettings
    listeners: Sequence[Listener] = ()
    refusals: Mapping[str, int] = NOTHING
    _turn: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoint to ``blueprint``."""
        blueprint.add_url_rule("/metrics", view_func=self.metrics, methods=["GET"])

    async def metrics(self) -> Response:
        """``GET /metrics``: what is measured; OpenMetrics for those that accept it, else Prometheus' own text."""
        encode, content_type = choose_format(request.headers.get("accept", ""))
        async with self._turn:  # one thread is enough for it, whoever asks how often
            body = await trio.to_thread.run_sync(encode, self._page())
        return Response(body, content_type=content_type)

    def _page(self) -> Page:
        return Page(
            measured=self.measures.snapshot(),
            counters=attrs.evolve(self.table.counters),
            engines=self.control.infos(),
            policies=tuple(
                PolicyState(policy.name, attrs.asdict(policy.failures), policy.in_service)
                for policy in self.table.policies.used()
            ),
            observers=tuple(ObserverState(each.plugin, each.dropped, each.failures) for each in self.listeners),
            refusals=dict(self.refusals),
            waiting=self.table.waiting(),
            waiting_limit=self.settings.queue_size,
        )


def choose_format(accept: str) -> tuple[Encode, str]:
    """The encoder for what an ``Accept`` header wants, and the content type of what it makes."""
    try:
        return choose_encoder(accept)
    except TypeError:  # what it wants has a version that is not made of numbers
        return choose_encoder("")

"""The plugin boundary of routing policies: whatever a stranger's policy does, the request is served."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs

from stoker.contracts import RoutingPolicy
from stoker.gateway.counters import Counters
from stoker.model import Candidate, RouteRequest

logger = logging.getLogger("stoker.gateway")


@attrs.define(eq=False)
class Chooser:
    """Asks ``policy``, and ``fallback`` for those requests at which it fails. The first failure is logged, all are
    counted.
    """

    policy: RoutingPolicy
    fallback: RoutingPolicy
    counters: Counters
    _complained: bool = attrs.field(default=False, init=False)

    def choose(
        self, request: RouteRequest, candidates: Sequence[Candidate], now: float
    ) -> tuple[RoutingPolicy, Candidate]:
        """One of ``candidates`` (at least one), and the policy that chose it and is to be told of the lease."""
        for policy in (self.policy, self.fallback):
            try:
                chosen = policy.choose(request, candidates, now)
                if chosen in candidates:
                    return policy, chosen
                raise ValueError(f"it chose {chosen!r}, which was not offered")  # noqa: TRY301 - as if it had raised
            except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
                self._complain(policy, error)
        return self.fallback, min(candidates, key=lambda candidate: candidate.in_flight)

    def opened(self, policy: RoutingPolicy, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is open."""
        try:
            policy.opened(request, candidate)
        except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            self._complain(policy, error)

    def closed(self, policy: RoutingPolicy, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is closed."""
        try:
            policy.closed(request, candidate)
        except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            self._complain(policy, error)

    def _complain(self, policy: RoutingPolicy, error: Exception) -> None:
        self.counters.policy_fallbacks += 1
        if not self._complained:
            self._complained = True
            message = "routing policy %r failed; requests at which it does go by %r from now on, without further notice"
            logger.error(message, policy.name, self.fallback.name, exc_info=error)

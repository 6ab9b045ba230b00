"""The plugin boundary of routing policies: whatever a stranger's policy does, the request is served."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

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

    def choose(self, request: RouteRequest, candidates: Mapping[str, Candidate], now: float) -> Choice:
        """One of ``candidates`` (by engine id; at least one)."""
        offered = tuple(candidates.values())
        for policy in (self.policy, self.fallback):
            chosen = self._ask(policy, request, offered, now)
            if chosen is not None:
                return Choice(self, policy, request, chosen)
        return Choice(self, self.fallback, request, min(offered, key=lambda candidate: candidate.in_flight))

    def _ask(
        self, policy: RoutingPolicy, request: RouteRequest, offered: Sequence[Candidate], now: float
    ) -> Candidate | None:
        try:
            return _one_of(offered, policy.choose(request, offered, now))
        except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            self.complain(policy, error)
            return None

    def complain(self, policy: RoutingPolicy, error: Exception) -> None:
        """Count a failure of ``policy``, and log it if it is the first."""
        self.counters.policy_fallbacks += 1
        if not self._complained:
            self._complained = True
            message = "routing policy %r failed; requests at which it does go by %r from now on, without further notice"
            logger.error(message, policy.name, self.fallback.name, exc_info=error)


def _one_of(offered: Sequence[Candidate], chosen: Candidate) -> Candidate:
    if chosen not in offered:
        raise ValueError(f"it chose {chosen!r}, which was not offered")
    return chosen


@attrs.frozen(eq=False)
class Choice:
    """What a policy chose, and that policy, which is told of the lease's beginning and end."""

    _chooser: Chooser
    _policy: RoutingPolicy
    _request: RouteRequest
    candidate: Candidate

    def opened(self) -> None:
        """Tell the policy that the lease is open."""
        try:
            self._policy.opened(self._request, self.candidate)
        except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            self._chooser.complain(self._policy, error)

    def closed(self) -> None:
        """Tell the policy that the lease is closed."""
        try:
            self._policy.closed(self._request, self.candidate)
        except Exception as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            self._chooser.complain(self._policy, error)

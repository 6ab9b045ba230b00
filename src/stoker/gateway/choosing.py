"""The plugin boundary of routing policies: whatever a stranger's policy does, the request is served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

import attrs

from stoker.containing import held
from stoker.contracts import RoutingPolicy
from stoker.gateway.slowness import MOST_SECONDS, MOST_STRIKES, Slowness
from stoker.model import Candidate, RouteRequest

logger = logging.getLogger("stoker.gateway")

T = TypeVar("T")


@attrs.define
class Failures:
    """How often a policy failed, by the reason."""

    raised: int = 0
    not_a_candidate: int = 0
    slow: int = 0

    def count(self, error: BaseException) -> None:
        """Count one that raised, or would have."""
        if isinstance(error, NotACandidate):
            self.not_a_candidate += 1
        else:
            self.raised += 1


class NotACandidate(Exception):  # noqa: N818 - as if the policy had raised it
    """A policy chose what it was not offered."""


class Trusted:
    """The policy that serves where others fail. It is Stoker's own, so its time is not measured."""

    in_service = True

    def __init__(self, policy: RoutingPolicy, name: str, plugin: str) -> None:
        self.policy = policy
        self.name = name
        self.plugin = plugin
        self.needs = policy.needs
        self.failures = Failures()
        self._complained = False

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """One of ``candidates`` (at least one), always."""
        try:
            chosen = self.policy.choose(request, candidates, now)
            if chosen in candidates:
                return chosen
            self._complain(NotACandidate(_unknown(chosen, candidates)))
        except Exception as error:  # noqa: BLE001 - contained as everybody's
            self._complain(error)
        return min(candidates, key=lambda candidate: candidate.in_flight)

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is open."""
        try:
            self.policy.opened(request, candidate)
        except Exception as error:  # noqa: BLE001 - contained as everybody's
            self._complain(error)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is closed."""
        try:
            self.policy.closed(request, candidate)
        except Exception as error:  # noqa: BLE001 - contained as everybody's
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        self.failures.count(error)
        if not self._complained:
            self._complained = True
            logger.error("routing policy %r of the plugin %r failed", self.name, self.plugin, exc_info=error)


class Guarded:
    """A policy that may do anything: raise, choose what was not offered, take its time.

    The first failure and the first slow call are logged, all are counted. One that is too slow too often
    (:mod:`stoker.gateway.slowness`) is taken out of service: it is not called any more, and asks for nothing of a
    request.

    What it raises is contained even if it is no ``Exception``: nothing that a policy calls can wait, so it is no
    cancellation of ours, and ``sys.exit`` is not its business. Only Ctrl-C passes. The ``with`` of
    :func:`~stoker.containing.contained` would take longer than most policies do, three times in every request.
    """

    def __init__(self, policy: RoutingPolicy, name: str, plugin: str, fallback: Trusted) -> None:
        self.policy = policy
        self.name = name
        self.plugin = plugin
        self.needs = frozenset(policy.needs) | fallback.needs
        self.failures = Failures()
        self.in_service = True
        self._fallback = fallback
        self._slowness = Slowness()
        self._complained = False

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate | None:
        """One of ``candidates`` (at least one), or None where the fallback has to choose."""
        return self._call(chosen_by, self.policy, request, candidates, now)

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is open."""
        self._call(self.policy.opened, request, candidate)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Tell the policy that the lease is closed."""
        self._call(self.policy.closed, request, candidate)

    def _call(self, function: Callable[..., T], *args: object) -> T | None:
        if not self.in_service:
            return None
        result, failure = None, None
        began = self._slowness.begin()
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001 - the plugin boundary: contained, named, counted
            failure = held(error)
        if self._slowness.end(began):
            self._was_slow(perf_counter() - began)
        if failure is not None:
            self._complain(failure)  # only now: to write a traceback takes time that is not the policy's
            failure = None  # it holds this frame
        return result

    def _complain(self, error: BaseException) -> None:
        self.failures.count(error)
        if not self._complained:
            self._complained = True
            message = (
                "routing policy %r of the plugin %r failed; requests at which it does go by %r from now on, without "
                "further notice"
            )
            logger.error(message, self.name, self.plugin, self._fallback.name, exc_info=error)

    def _was_slow(self, seconds: float) -> None:
        self.failures.slow += 1
        if self.failures.slow == 1:
            message = (
                "routing policy %r of the plugin %r held up every request for %.0f ms (or the machine did, if it was "
                "busy); one that takes more than %g ms %d times within an hour is not asked any more"
            )
            logger.warning(message, self.name, self.plugin, seconds * 1000, MOST_SECONDS * 1000, MOST_STRIKES)
        if self._slowness.too_often:
            self.in_service = False
            self.needs = self._fallback.needs
            message = (
                "routing policy %r of the plugin %r is out of service: it took more than %g ms %d times within an "
                "hour; its models go by %r until Stoker is started again"
            )
            logger.error(message, self.name, self.plugin, MOST_SECONDS * 1000, MOST_STRIKES, self._fallback.name)


Chooser = Trusted | Guarded
"""A policy behind the boundary. Its methods don't raise what the policy raises."""


def chosen_by(policy: RoutingPolicy, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
    """What ``policy`` chooses of ``candidates``, of which it gets a copy. Raises what it raises, or NotACandidate."""
    chosen = policy.choose(request, tuple(candidates), now)
    if type(chosen) is Candidate and chosen in candidates:  # by its identity, not a stranger's idea of equality
        return chosen
    raise NotACandidate(_unknown(chosen, candidates))


def _unknown(chosen: object, candidates: Sequence[Candidate]) -> str:
    if type(chosen) is Candidate and chosen.engine_id in [each.engine_id for each in candidates]:
        return f"it chose a copy of {chosen.engine_id!r}; it must return one of the very objects that it was given"
    what = f"the engine {chosen.engine_id!r}" if type(chosen) is Candidate else f"a {type(chosen).__name__}"
    return f"it chose {what}, which was not offered"

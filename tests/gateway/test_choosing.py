"""The boundary of routing policies: one may fail in any way and at any time, and costs nobody an answer."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio

from stoker.builtin.policies import LeastLoad
from stoker.gateway import slowness
from stoker.gateway.choosing import Failures, Guarded, Trusted
from stoker.gateway.slowness import FORGIVEN_AFTER, MOST_STRIKES, REMEMBERED_SECONDS, Slowness
from stoker.model import Candidate, RouteRequest

from .played import Played, nothing

REQUEST = RouteRequest(request_id="r", model="m", path="/v1/completions")
ONE, TWO = Candidate(engine_id="one"), Candidate(engine_id="two")


def guarded(policy: Played) -> Guarded:
    return Guarded(policy, "played", "plays", Trusted(LeastLoad(), "least-load", "builtin"))


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def slow() -> None:
    time.sleep(1.2 * slowness.MOST_SECONDS)


def use(policy: Guarded, times: int = 1) -> list[Candidate | None]:
    chosen = []
    for _ in range(times):
        candidate = policy.choose(REQUEST, [ONE, TWO], 0.0)
        policy.opened(REQUEST, TWO)
        policy.closed(REQUEST, TWO)
        chosen.append(candidate)
    return chosen


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


class Bare(BaseException):
    """What no ``except Exception`` catches."""


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError("not even this")


@pytest.mark.parametrize(
    "error", [LookupError("no"), SystemExit(3), GeneratorExit(), Bare(), UnspeakableError()], ids=repr
)
def test_whatever_it_raises_stays_inside(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    policy = guarded(Played(before=raising(error), at_opened=raising(error), at_closed=raising(error)))
    assert use(policy, 2) == [None, None]
    assert policy.failures == Failures(raised=6)
    [said] = complaints(caplog)
    assert "'played' of the plugin 'plays' failed" in said
    assert "'least-load'" in said
    assert policy.in_service


def test_ctrl_c_is_not_a_failure_of_the_policy() -> None:
    policy = guarded(Played(before=raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        use(policy)
    assert policy.failures == Failures()


async def test_a_cancellation_that_it_kept_from_somewhere_ends_nobody() -> None:
    kept: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    policy = guarded(Played(before=raising(kept[0])))
    assert use(policy) == [None]
    assert policy.failures.raised == 1


class Anything:
    """Equal to whatever it is compared with."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("made_up", [None, "two", Candidate(engine_id="two"), Anything(), 7])
def test_what_was_not_offered_is_not_chosen(made_up: object) -> None:
    @attrs.define(eq=False)
    class Inventive(Played):
        def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
            return made_up  # type: ignore[return-value]

    policy = guarded(Inventive())
    assert use(policy) == [None]
    assert policy.failures == Failures(not_a_candidate=1)


@pytest.mark.parametrize(
    ("made_up", "says"),
    [
        (Candidate(engine_id="two"), "a copy of 'two'; it must return one of the very objects that it was given"),
        (Candidate(engine_id="ten"), "the engine 'ten', which was not offered"),
        ("two", "a str, which was not offered"),
    ],
)
def test_what_it_chose_instead_is_said(made_up: object, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """A copy of a candidate was said not to have been offered, which is hard to believe for who reads its id."""

    @attrs.define(eq=False)
    class Inventive(Played):
        def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
            return made_up  # type: ignore[return-value]

    use(guarded(Inventive()))
    assert f"it chose {says}" in caplog.text


def test_it_gets_a_copy_of_the_candidates() -> None:
    @attrs.define(eq=False)
    class Greedy(Played):
        def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
            candidates.clear()  # type: ignore[attr-defined]
            return ONE

    offered = [ONE, TWO]
    assert guarded(Greedy()).choose(REQUEST, offered, 0.0) is None
    assert offered == [ONE, TWO]


# Time


@pytest.mark.parametrize("when", ["before", "at_opened", "at_closed"])
def test_one_that_is_slow_again_and_again_is_taken_out_of_service(when: str, caplog: pytest.LogCaptureFixture) -> None:
    played = Played(needs=frozenset({"prompt"}))
    policy = guarded(played)
    assert policy.needs == {"prompt"}
    assert use(policy) == [TWO]
    setattr(played, when, slow)
    use(policy, MOST_STRIKES)
    assert not policy.in_service
    assert policy.failures == Failures(slow=MOST_STRIKES)
    [said] = complaints(caplog)
    assert "'played' of the plugin 'plays' is out of service" in said
    assert "5 ms" in said
    assert policy.needs == frozenset()
    asked = len(played.seen)
    assert use(policy, 3) == [None] * 3
    assert len(played.seen) == asked
    assert len(complaints(caplog)) == 1


def test_one_that_blocks_and_then_raises_is_slow_too() -> None:
    def block_and_fail() -> None:
        slow()
        raise TimeoutError("the service that I ask does not answer")

    policy = guarded(Played(before=block_and_fail))
    use(policy, MOST_STRIKES)
    assert not policy.in_service
    assert policy.failures == Failures(raised=MOST_STRIKES, slow=MOST_STRIKES)


def test_the_first_slow_call_is_logged_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    """It was never logged: only its removal was."""
    played = Played(before=slow)
    policy = guarded(played)
    use(policy)
    played.before = nothing
    use(policy, 3)
    [said] = [record.getMessage() for record in caplog.records]
    assert "'played' of the plugin 'plays' held up every request for " in said
    assert "more than 5 ms 3 times within an hour" in said
    assert policy.failures == Failures(slow=1)


def test_one_that_blocks_now_and_then_is_taken_out_of_service() -> None:
    """At every 40th request: the quick calls between, three for each request, wiped the strikes out for ever."""
    played = Played()
    policy = guarded(played)
    for _ in range(MOST_STRIKES):
        assert policy.in_service
        played.before = slow
        use(policy)
        played.before = nothing
        use(policy, 39)
    assert not policy.in_service
    assert policy.failures == Failures(slow=MOST_STRIKES)


def test_the_time_it_takes_to_log_its_failure_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback, to a terminal that is slow to take it."""
    policy = guarded(Played(before=raising(LookupError())))
    monkeypatch.setattr("stoker.gateway.choosing.logger.error", lambda *_, **__: slow())
    use(policy)
    assert policy.failures == Failures(raised=1)


@attrs.define
class Machine:
    """Says how long a call took, and what the threads did meanwhile."""

    now: float = 0.0
    computed: float = 0.0
    by_others: float = 0.0
    blocked: int = 0

    def call(
        self, watch: Slowness, seconds: float, *, computed: float = 0.0, blocked: int = 0, by_others: float = 0.0
    ) -> bool:
        began = watch.begin()
        self.now += seconds
        self.computed += computed
        self.blocked += blocked
        self.by_others += by_others
        return watch.end(began)

    def quick(self, watch: Slowness, times: int) -> None:
        assert not any(self.call(watch, 0.0001) for _ in range(times))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(slowness, "perf_counter", lambda: machine.now)
    monkeypatch.setattr(slowness, "thread_time", lambda: machine.computed)
    monkeypatch.setattr(slowness, "process_time", lambda: machine.computed + machine.by_others)
    monkeypatch.setattr(slowness, "_times_blocked", lambda: machine.blocked)
    monkeypatch.setattr(slowness, "_THREAD", 1)
    return machine


def test_who_computes_too_long_is_too_slow(machine: Machine) -> None:
    watch = Slowness()
    assert [machine.call(watch, 0.006, computed=0.006) for _ in range(3)] == [True] * 3
    assert watch.too_often


def test_who_waits_too_long_is_too_slow(machine: Machine) -> None:
    watch = Slowness()
    assert [machine.call(watch, 0.006, blocked=1) for _ in range(3)] == [True] * 3
    assert watch.too_often


def test_five_milliseconds_may_be_taken(machine: Machine) -> None:
    watch = Slowness()
    assert not any(machine.call(watch, 0.0049, computed=0.0049) for _ in range(100))


def test_who_is_preempted_is_not(machine: Machine) -> None:
    """The first time nobody looked; from then on the processor time tells."""
    watch = Slowness()
    assert machine.call(watch, 0.02)
    assert not any(machine.call(watch, 0.02) for _ in range(50))
    assert not watch.too_often


@pytest.mark.parametrize("doing", [{"computed": 0.006}, {"blocked": 1}], ids=["computing", "waiting"])
def test_quick_calls_make_up_for_nothing_that_was_the_policys_own(machine: Machine, doing: dict[str, Any]) -> None:
    watch = Slowness()
    for _ in range(MOST_STRIKES):
        assert not watch.too_often
        assert machine.call(watch, 0.006, **doing)
        machine.quick(watch, 10 * FORGIVEN_AFTER)
    assert watch.too_often


def test_what_happens_once_an_hour_does_not_add_up(machine: Machine) -> None:
    watch = Slowness()
    for _ in range(100):
        assert machine.call(watch, 0.006, computed=0.006)
        machine.now += REMEMBERED_SECONDS / (MOST_STRIKES - 1)
        assert not watch.too_often


def test_accidents_do_not_add_up_over_months(machine: Machine) -> None:
    """Whatever their distance: of those within an hour one at most counts without proof."""
    watch = Slowness()
    for minutes in range(1, 200):
        machine.call(watch, 0.02)
        assert watch.strikes <= 1
        machine.now += 60.0 * minutes


def test_who_had_to_give_way_to_another_thread_is_forgiven(machine: Machine) -> None:
    """The interpreter's lock: a policy that is called often is interrupted often by a thread that computes."""
    watch = Slowness()
    machine.call(watch, 0.006)
    for _ in range(100):
        assert machine.call(watch, 0.0055, blocked=2, by_others=0.005)
        machine.quick(watch, FORGIVEN_AFTER)
        assert watch.strikes == 1


def test_who_waits_for_another_thread_again_and_again_is_too_slow(machine: Machine) -> None:
    watch = Slowness()
    for _ in range(MOST_STRIKES):
        assert machine.call(watch, 0.02, blocked=1, by_others=0.02)
        machine.quick(watch, FORGIVEN_AFTER - 1)
    assert watch.too_often


def test_where_nobody_can_tell_quick_calls_make_up_for_slow_ones(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowness, "_THREAD", None)
    watch = Slowness()
    machine.call(watch, 0.006)
    for _ in range(10):
        assert machine.call(watch, 0.006)
        machine.quick(watch, FORGIVEN_AFTER)
    assert not watch.too_often


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells whether a thread waited")
def test_a_thread_that_computes_beside_it_costs_a_policy_nothing() -> None:
    """On a real machine, where nearly every turn of the lock comes in the middle of a call."""
    policy = guarded(Played(before=lambda: sum(range(1000))))
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(number * number for number in range(100_000))
            time.sleep(0.02)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        until = time.perf_counter() + 1.0
        while time.perf_counter() < until:
            use(policy, 10)
    finally:
        over.set()
        thread.join()
    assert policy.in_service


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells whether a thread waited")
def test_sleeping_is_seen_as_waiting() -> None:
    before = slowness._times_blocked()
    time.sleep(0.001)
    assert slowness._times_blocked() > before

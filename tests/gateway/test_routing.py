"""The routing table: leases balance whatever happens, and nobody waits while there is room."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stoker.builtin.policies import LeastLoad
from stoker.gateway.admission import WaitingRoom
from stoker.gateway.answers import Answer
from stoker.gateway.policies import Policies
from stoker.gateway.routing import Lease, Prospect, RoutingTable, Ticket
from stoker.model import Activity, Backend, Candidate, RouteRequest
from stoker.settings import GatewaySettings

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"


def backend(engine_id: str, **changes: Any) -> Backend:
    plain = Backend(
        engine_id=engine_id,
        incarnation=1,
        base_url="http://127.0.0.1:1",
        model="m",
        names=("m",),
        kind="llm",
        runtime="fake",
        paths=frozenset({CHAT}),
        accepting=True,
    )
    return attrs.evolve(plain, **changes)


def ticket(model: str = "m", path: str = CHAT) -> Ticket:
    return Ticket(RouteRequest(request_id="r", model=model, path=path), patience_seconds=60.0, woken=trio.Event())


def table_of(*backends: Backend) -> RoutingTable:
    table = RoutingTable(Policies(LeastLoad(), LeastLoad()), lambda: 0.0)
    table.update(backends)
    return table


@attrs.define(eq=False)
class MoodyPolicy:
    """Chooses well, or not at all, as it is told; keeps count of what it was told."""

    mood: str = "good"
    open: list[Candidate] = attrs.field(factory=list)
    name: str = "moody"
    needs: frozenset[str] = frozenset()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        match self.mood:
            case "raises":
                raise LookupError("not today")
            case "makes one up":
                return Candidate(engine_id="nobody", in_flight=0)
            case "forgets to":
                return None  # type: ignore[return-value]
        return candidates[-1]

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        self.open.append(candidate)
        if self.mood == "raises at opened":
            raise LookupError

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        self.open.remove(candidate)
        if self.mood == "raises at closed":
            raise LookupError


@attrs.define(eq=False)
class Meddling:
    """Counts in the candidates, where it has no business to, and keeps what it is shown."""

    when: str
    then_fails: bool = False
    shown: list[int] = attrs.field(factory=list)
    name: str = "meddling"
    needs: frozenset[str] = frozenset()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        self.shown.append(candidates[0].in_flight)
        self._meddle("choose", candidates[0])
        if self.then_fails:
            raise LookupError
        return candidates[0]

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        self._meddle("opened", candidate)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        self._meddle("closed", candidate)

    def _meddle(self, when: str, candidate: Candidate) -> None:
        if when == self.when:
            candidate.in_flight += 7


class Renaming(MoodyPolicy):
    """Chooses the first, under the name of the last."""

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        candidates[0].engine_id = candidates[-1].engine_id
        return candidates[0]


def test_a_lease_is_closed_exactly_once() -> None:
    table = table_of(backend("one"))
    lease = table.open(ticket())
    assert lease is not None
    assert (table.in_flight(), table.activity("one").active_requests) == (1, 1)
    lease.close()
    with pytest.raises(RuntimeError, match="one was closed twice"):
        lease.close()
    assert (table.in_flight(), table.activity("one").active_requests) == (0, 0)


def test_a_lease_of_a_dead_incarnation_does_not_count_for_the_next() -> None:
    table = table_of(backend("one", max_concurrency=1))
    lease = table.open(ticket())
    assert lease is not None
    table.update([backend("one", max_concurrency=1, incarnation=2)])
    assert table.activity("one") == Activity()
    assert table.in_flight() == 1
    second = table.open(ticket())
    assert second is not None
    lease.close()
    assert table.activity("one").active_requests == 1
    second.close()


def test_idle_is_told_once_when_the_last_lease_is_closed() -> None:
    table = table_of(backend("one"))
    leases = [table.open(ticket()), table.open(ticket())]
    told: list[str] = []
    table.when_idle("one", lambda: told.append("idle"))
    table.update([backend("one", accepting=False)])
    for lease in leases:
        assert told == []
        assert lease is not None
        lease.close()
    assert told == ["idle"]
    table.when_idle("one", lambda: told.append("at once"))
    table.when_idle("unknown", lambda: told.append("at once"))
    assert told == ["idle", "at once", "at once"]


@pytest.mark.parametrize("mood", ["raises", "makes one up", "forgets to", "raises at opened", "raises at closed"])
def test_a_policy_that_fails_fails_alone(mood: str, caplog: pytest.LogCaptureFixture) -> None:
    policy = MoodyPolicy(mood)
    table = RoutingTable(Policies(policy, LeastLoad(), plugins={"moody": "moods"}), lambda: 0.0)
    table.update([backend("one"), backend("two")])
    for _ in range(3):
        lease = table.open(ticket())
        assert lease is not None
        lease.close()
    [used] = table.policies.used()
    failures = {"raised": 0, "not_a_candidate": 0, "slow": 0}
    reason = "not_a_candidate" if mood in ("makes one up", "forgets to") else "raised"
    assert attrs.asdict(used.failures) == {**failures, reason: 3}
    complaints = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(complaints) == 1
    assert "'moody' of the plugin 'moods'" in complaints[0]
    assert policy.open == []


def test_even_without_any_policy_the_least_busy_engine_answers() -> None:
    table = RoutingTable(Policies(MoodyPolicy("raises"), MoodyPolicy("raises")), lambda: 0.0)
    table.update([backend("one"), backend("two")])
    leases = [table.open(ticket()), table.open(ticket())]
    assert [lease.backend.engine_id for lease in leases if lease is not None] == ["one", "two"]
    assert table.policies.fallback.failures.raised == 2


def open_and_close(table: RoutingTable) -> str | None:
    """Which engine a request gets, if any."""
    lease = table.open(ticket())
    if lease is None:
        return None
    lease.close()
    return lease.backend.engine_id


@pytest.mark.parametrize("when", ["opened", "closed", "choose"])
def test_what_a_policy_writes_as_the_load_of_an_engine_changes_nothing(when: str) -> None:
    """It was the gateway's own count: an engine was full for ever after four requests, and never idle."""
    policy = Meddling(when)
    table = RoutingTable(Policies(policy, LeastLoad()), lambda: 0.0)
    table.update([backend("one", max_concurrency=4)])
    for _ in range(10):
        assert open_and_close(table) == "one"
    assert table.activity("one").active_requests == 0
    told: list[str] = []
    table.when_idle("one", lambda: told.append("idle"))
    assert told == ["idle"]
    assert policy.shown == [0] * 10, "what it wrote was shown to it"
    leases = [table.open(ticket()) for _ in range(5)]
    assert [lease is not None for lease in leases] == [True] * 4 + [False]


def test_the_policy_that_serves_instead_is_shown_the_true_load() -> None:
    table = RoutingTable(Policies(Meddling("choose", then_fails=True), LeastLoad()), lambda: 0.0)
    table.update([backend("one"), backend("two")])
    leases = [table.open(ticket()) for _ in range(4)]
    assert [lease.backend.engine_id for lease in leases if lease is not None] == ["one", "two"] * 2


def test_a_policy_that_renames_engines_misleads_nobody() -> None:
    table = RoutingTable(Policies(Renaming(), LeastLoad()), lambda: 0.0)
    table.update([backend("one"), backend("two")])
    assert [open_and_close(table) for _ in range(3)] == ["one"] * 3
    assert table.in_flight() == 0


def test_a_suspected_engine_is_used_last_for_a_while() -> None:
    now = 0.0
    table = RoutingTable(Policies(MoodyPolicy(), LeastLoad()), lambda: now)
    table.update([backend("one"), backend("two")])

    def chosen() -> str:
        lease = table.open(ticket())
        assert lease is not None
        lease.close()
        return lease.backend.engine_id

    assert chosen() == "two"
    lease = table.open(ticket())
    assert lease is not None
    lease.suspect()
    lease.close()
    assert chosen() == "one"
    now = 60.0
    assert chosen() == "two"
    lease.suspect()
    assert chosen() == "one"
    lease.succeeded()
    assert chosen() == "two"


async def test_a_request_that_comes_back_waits_only_for_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    table = table_of(backend("one", accepting=False, expected=True))
    room = WaitingRoom(table, GatewaySettings())
    coming_back = ticket()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def become_ready_for_a_while() -> None:
            await trio.sleep(40)
            table.update([backend("one")])
            table.update([backend("one", accepting=False, expected=True)])

        lease = await room.admit(coming_back)
    assert isinstance(lease, Lease)
    lease.close()
    began = trio.current_time()
    answer = await room.admit(coming_back)
    assert isinstance(answer, Answer)
    assert answer.status == 503
    assert trio.current_time() - began == pytest.approx(20)


# What is likely stands first and often, so that there is something to run into: engines of one model, and full.
MODELS = ("m", "m", "m", "alias", "other")
engine = st.builds(
    backend,
    st.sampled_from(("one", "two", "three")),
    incarnation=st.sampled_from((1, 1, 1, 2)),
    model=st.sampled_from(("m", "m", "m", "other")),
    names=st.sampled_from(((), ("alias",), ("alias", "m"))),
    paths=st.sampled_from((frozenset({CHAT}), frozenset({CHAT, EMBED}), frozenset({EMBED}))),
    max_concurrency=st.sampled_from((1, 1, 2, None)),
    accepting=st.sampled_from((True, True, False)),
    expected=st.booleans(),
)
engines = st.lists(engine, max_size=3, unique_by=lambda backend: backend.engine_id)


class Routing(RuleBasedStateMachine):
    """Everything that can happen to a table, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = MoodyPolicy()
        self.table = RoutingTable(Policies(self.policy, MoodyPolicy()), lambda: 0.0)
        self.open: list[Lease] = []
        self.queue: list[Ticket] = []
        self.awaited: set[int] = set()
        self.told: list[int] = []

    @rule(backends=engines)
    def fleet_changes(self, backends: list[Backend]) -> None:
        self.table.update(backends)
        self.collect()

    @rule(changed=engine)
    def one_engine_changes(self, changed: Backend) -> None:
        others = [known for known in self.table.models() if known.engine_id != changed.engine_id]
        self.table.update([*others, changed])
        self.collect()

    @rule(mood=st.sampled_from(["good", "raises", "makes one up", "raises at opened", "raises at closed"]))
    def policy_changes_its_mood(self, mood: str) -> None:
        self.policy.mood = mood

    @rule(model=st.sampled_from(MODELS), path=st.sampled_from((CHAT, CHAT, EMBED)))
    def request_comes(self, model: str, path: str) -> None:
        self.admit(ticket(model, path))

    @rule(choice=st.randoms(use_true_random=False), suspect=st.booleans(), retry=st.booleans())
    def request_ends(self, choice: Any, suspect: bool, retry: bool) -> None:
        if not self.open:
            return
        lease = choice.choice(self.open)
        self.open.remove(lease)
        if suspect:
            lease.suspect()
        lease.close()
        self.collect()
        if retry:
            again = ticket(lease.backend.model)
            again.excluded |= {lease.term}
            self.admit(again)

    @rule(choice=st.randoms(use_true_random=False))
    def client_gives_up(self, choice: Any) -> None:
        if self.queue:
            leaving = choice.choice(self.queue)
            self.queue.remove(leaving)
            self.table.withdraw(leaving)

    @rule(engine_id=st.sampled_from(("one", "two", "three")))
    def somebody_wants_to_know_when_it_is_idle(self, engine_id: str) -> None:
        number = len(self.awaited)
        self.awaited.add(number)
        self.table.when_idle(engine_id, lambda: self.told.append(number))

    @rule(really=st.integers(0, 9))
    def doors_close(self, really: int) -> None:
        if really == 9:
            self.table.close_doors("closed")
            self.collect()

    def admit(self, new: Ticket) -> None:
        lease = self.table.open(new)
        if lease is not None:
            assert lease.term not in new.excluded
            self.keep(lease)
        elif self.table.prospect(new) is Prospect.WAIT:
            self.table.enqueue(new)
            self.queue.append(new)

    def collect(self) -> None:
        """Do what woken requests do; see that they were woken in their order."""
        served = [waiting for waiting in self.queue if waiting.lease is not None]
        for waiting in served:
            earlier = self.queue[: self.queue.index(waiting)]
            for other in earlier:
                same = (other.request.model, other.request.path) == (waiting.request.model, waiting.request.path)
                assert other.lease is not None or other.excluded or not same, "overtaken"
        for waiting in served:
            assert waiting.woken is not None
            assert waiting.woken.is_set()
            assert waiting.lease is not None
            assert waiting.lease.term not in waiting.excluded
            self.keep(waiting.lease)
        woken = [waiting for waiting in self.queue if waiting.woken is not None and waiting.woken.is_set()]
        hopeless = [waiting for waiting in woken if waiting.lease is None]
        for waiting in hopeless:
            assert self.table.prospect(waiting) is not Prospect.WAIT
            self.table.withdraw(waiting)
        self.queue = [waiting for waiting in self.queue if waiting not in served and waiting not in hopeless]

    def keep(self, lease: Lease) -> None:
        limit = lease.backend.max_concurrency
        now = next(known for known in self.table.models() if known.engine_id == lease.backend.engine_id)
        assert now == lease.backend
        assert now.accepting
        assert limit is None or self.table.activity(now.engine_id).active_requests <= limit
        self.open.append(lease)

    @invariant()
    def leases_balance(self) -> None:
        assert self.table.in_flight() == len(self.open) == len(self.policy.open) + len(self.fallback.open)
        for known in self.table.models():
            here = [lease for lease in self.open if lease.backend.engine_id == known.engine_id]
            of_this_one = [lease for lease in here if lease.backend.incarnation == known.incarnation]
            assert self.table.activity(known.engine_id).active_requests <= len(of_this_one)

    @property
    def fallback(self) -> MoodyPolicy:
        fallback = self.table.policies.fallback.policy
        assert isinstance(fallback, MoodyPolicy)
        return fallback

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert self.table.waiting() == len(self.queue)
        for waiting in self.queue:
            assert self.table.prospect(waiting) is Prospect.WAIT
            assert self.table.open(waiting) is None

    @invariant()
    def idle_is_told_once(self) -> None:
        assert len(set(self.told)) == len(self.told)

    def teardown(self) -> None:
        while self.open:
            self.open.pop().close()
            self.collect()
        assert self.table.in_flight() == 0
        assert set(self.told) == self.awaited
        assert self.policy.open == self.fallback.open == []


TestRouting = Routing.TestCase
TestRouting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


async def test_a_request_cancelled_in_the_moment_it_is_let_in_leaves_no_lease() -> None:
    table = table_of(backend("one", accepting=False, expected=True))
    room = WaitingRoom(table, GatewaySettings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.admit, ticket())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        table.update([backend("one")])
        assert table.in_flight() == 1
    assert (table.in_flight(), table.waiting()) == (0, 0)


async def test_a_request_let_in_at_the_end_of_its_patience_is_let_in(autojump_clock: trio.testing.MockClock) -> None:
    table = table_of(backend("one", accepting=False, expected=True))
    room = WaitingRoom(table, GatewaySettings())
    admitted: list[Lease | Answer] = []

    async def wait() -> None:
        admitted.append(await room.admit(ticket()))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(wait)
        await trio.sleep(60)
        table.update([backend("one")])
        let_in = table.in_flight()
    leases = [lease for lease in admitted if isinstance(lease, Lease)]
    assert len(leases) == let_in
    for lease in leases:
        lease.close()
    assert (table.in_flight(), table.waiting()) == (0, 0)


visits = st.lists(
    st.fixed_dictionaries(
        {
            "arrives": st.integers(0, 20),
            "stays": st.integers(0, 10),
            "patience": st.integers(0, 10),
            "leaves": st.none() | st.integers(0, 20),
            "model": st.sampled_from(MODELS),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(visits, st.lists(st.tuples(st.integers(0, 20), engines), max_size=5), st.none() | st.integers(0, 20))
def test_every_request_gets_its_lease_or_an_error_at_any_moment(
    visits: list[dict[str, Any]], changes: list[tuple[int, list[Backend]]], doors: int | None
) -> None:
    """Times are whole seconds, so that many things happen in the same moment."""

    async def main() -> None:
        table = RoutingTable(Policies(LeastLoad(), LeastLoad()), trio.current_time)
        room = WaitingRoom(table, GatewaySettings(queue_size=4))
        ended = 0

        async def visit(about: dict[str, Any]) -> None:
            nonlocal ended
            await trio.sleep(about["arrives"])
            with trio.move_on_after(float("inf") if about["leaves"] is None else about["leaves"]):
                request = RouteRequest(request_id="r", model=about["model"], path=CHAT)
                admitted = await room.admit(Ticket(request, patience_seconds=about["patience"]))
                if isinstance(admitted, Answer):
                    assert admitted.status in (404, 429, 503)
                else:
                    try:
                        await trio.sleep(about["stays"])
                    finally:
                        admitted.close()
            ended += 1

        async def change(at: int, backends: list[Backend]) -> None:
            await trio.sleep(at)
            table.update(backends)

        async def close(at: int) -> None:
            await trio.sleep(at)
            table.close_doors("closed")

        async with trio.open_nursery() as nursery:
            for about in visits:
                nursery.start_soon(visit, about)
            for at, backends in changes:
                nursery.start_soon(change, at, backends)
            if doors is not None:
                nursery.start_soon(close, doors)
        assert ended == len(visits)
        assert (table.in_flight(), table.waiting()) == (0, 0)
        assert all(
            table.activity(engine_id) == Activity() or table.activity(engine_id).active_requests == 0
            for engine_id in ("one", "two", "three")
        )

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

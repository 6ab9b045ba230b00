"""The list of engines is kept whole, in order, and before anything depends on it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
import trio.testing

from stoker.core import events as e
from stoker.core.engine import Fleet
from stoker.core.fleet import step
from stoker.model import EngineRun, EngineSpec, KeptEngine, LaunchPlan, Origin
from stoker.supervise.keeping import Keeper

SPEC = EngineSpec(model="m", runtime="command")


class Shelf:
    """Where the list is kept; slow, if told to be."""

    def __init__(self) -> None:
        self.lists: list[Sequence[KeptEngine]] = []
        self.go_on = trio.Event()
        self.go_on.set()
        self.at_once = 0

    async def save(self, engines: Sequence[KeptEngine]) -> None:
        self.at_once += 1
        assert self.at_once == 1
        await trio.lowlevel.checkpoint()
        await self.go_on.wait()
        self.lists.append(engines)
        self.at_once -= 1


def a_run(incarnation: int = 1) -> EngineRun:
    return EngineRun(
        engine_id="a",
        incarnation=incarnation,
        mark=f"mark-{incarnation}",
        boot_id="boot",
        pid=7,
        started=1,
        host="127.0.0.1",
        port=1,
        plan=LaunchPlan(base_url="http://127.0.0.1:1"),
    )


def after(*events: e.Event, fleet: Fleet | None = None) -> Fleet:
    fleet = fleet or Fleet()
    for event in events:
        fleet, _ = step(fleet, event, 0.0)
    return fleet


STARTED = e.StartRequested("a", SPEC, Origin.MANAGED)
READY = (e.Launched("a", 1, e.Endpoint(pid=7)), e.ProbeSucceeded("a", 1))
STOP = e.StopRequested("a", 10.0, 1.0)


async def test_what_is_about_to_run_is_kept_when_that_returns() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save, configured={"a"})
    keeper.fleet_changed(after(STARTED))
    await keeper.keep(a_run())
    expected = KeptEngine(engine_id="a", spec=SPEC, origin=Origin.MANAGED, configured=True, wanted=True, run=a_run())
    assert shelf.lists[-1] == (expected,)
    assert keeper.marks() == {"mark-1"}


async def test_many_changes_are_one_writing_and_the_last_one_counts() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        shelf.go_on = trio.Event()
        keeper.fleet_changed(after(STARTED))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            keeper.fleet_changed(after(STARTED, *READY))
        keeper.fleet_changed(after(STARTED, *READY, e.StartRequested("b", SPEC, Origin.MANAGED)))
        shelf.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(shelf.lists) == 2
    assert [each.engine_id for each in shelf.lists[-1]] == ["a", "b"]


async def test_in_the_end_all_is_kept_though_it_was_cancelled() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        keeper.fleet_changed(after(STARTED))
        nursery.cancel_scope.cancel()
    assert [each.engine_id for each in shelf.lists[-1]] == ["a"]


async def kept(keeper: Keeper, shelf: Shelf, fleet: Fleet) -> KeptEngine:
    keeper.fleet_changed(fleet)
    await keeper.flush()
    [one] = shelf.lists[-1]
    return one


async def test_the_process_is_kept_until_nothing_of_it_is_left() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    await keeper.keep(a_run())
    ready = after(STARTED, *READY)
    assert (await kept(keeper, shelf, ready)).run == attrs.evolve(a_run(), ready=True)
    adapters = after(e.AdaptersChanged("a", 1, ("sql",)), fleet=ready)
    assert (await kept(keeper, shelf, adapters)).run == attrs.evolve(a_run(), adapters=("sql",), ready=True)
    stopping = after(STOP, e.EngineIdle("a", 1), fleet=ready)
    assert (await kept(keeper, shelf, stopping)).run == attrs.evolve(a_run(), ready=True), "it may be there yet"
    stopped = after(e.ProcessStopped("a", 1), fleet=stopping)
    assert (await kept(keeper, shelf, stopped)).run is None
    again = after(STARTED, fleet=stopped)
    assert (await kept(keeper, shelf, again)).run is None, "that was the one before"


async def test_what_somebody_stopped_is_not_wanted_and_what_fails_is() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    ready = after(STARTED, *READY)
    assert not (await kept(keeper, shelf, after(STOP, fleet=ready))).wanted
    restarting = after(attrs.evolve(STOP, after=e.AfterStop.START), fleet=ready)
    assert (await kept(keeper, shelf, restarting)).wanted
    failed = after(e.LaunchFailed("a", 1, "no", retryable=False), fleet=after(STARTED))
    assert (await kept(keeper, shelf, failed)).wanted


async def test_what_stops_because_stoker_ends_is_wanted_by_the_next_one() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    ready = after(STARTED, *READY)
    keeper.fleet_changed(ready)
    keeper.freeze_wishes()
    assert (await kept(keeper, shelf, after(STOP, fleet=ready))).wanted


async def test_what_was_stopped_by_hand_stays_stopped_unless_the_configuration_wants_it_at_the_next_start() -> None:
    stopped = after(STARTED, *READY, STOP)
    for configured, whole_end, wanted in ((False, True, False), (True, False, False), (True, True, True)):
        shelf = Shelf()
        keeper = Keeper(shelf.save, configured={"a"} if configured else ())
        keeper.fleet_changed(stopped)
        keeper.freeze_wishes(and_start_what_is_configured=whole_end)
        assert (await kept(keeper, shelf, stopped)).wanted is wanted


async def test_what_is_to_be_forgotten_is_not_kept() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    keeper.fleet_changed(after(STARTED, *READY, attrs.evolve(STOP, after=e.AfterStop.FORGET)))
    await keeper.flush()
    assert shelf.lists[-1] == ()


async def test_whether_one_was_ready_is_kept_over_any_number_of_stokers() -> None:
    shelf = Shelf()
    keeper = Keeper(shelf.save)
    await keeper.keep(a_run())
    assert (await kept(keeper, shelf, after(STARTED))).run == a_run()
    run = (await kept(keeper, shelf, after(STARTED, *READY))).run
    assert run is not None
    assert run.ready
    found = after(e.EngineAdopted("a", SPEC, run, e.Endpoint()))
    assert (await kept(keeper, shelf, found)).run == run, "though it has not answered yet"

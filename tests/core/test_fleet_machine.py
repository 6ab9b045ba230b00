"""A Hypothesis machine: whatever happens in whatever order, the fleet keeps its promises.

The machine plays the world: it remembers which incarnations have a task and a process, obeys commands when it pleases,
and tells events, also late ones of incarnations long dead.
"""

from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Fleet, Phase
from stoker.core.fleet import next_deadline, step
from stoker.core.states import TRANSITIONS
from stoker.errors import IllegalTransition
from stoker.model import EngineRun, EngineSpec, EngineState, ExitStatus, LaunchPlan, Origin, StartProgress

IDS = st.sampled_from(["a", "b", "c"])
SPEC = EngineSpec(model="m", startup_timeout_seconds=50, restart_limit=2, drain_timeout_seconds=20)


def a_run(engine_id: str, incarnation: int) -> EngineRun:
    plan = LaunchPlan(base_url="http://x")
    return EngineRun(
        engine_id=engine_id,
        incarnation=incarnation,
        mark="m",
        boot_id="b",
        pid=7,
        started=1,
        host="x",
        port=1,
        plan=plan,
    )


STEPS = {(before, after) for (before, _), after in TRANSITIONS.items()}
# Two or three arrows of the table in one step: an engine in ERROR with nothing left of it has nothing to drain, and a
# restart passes through STOPPED.
SHORT_CUTS = {
    (EngineState.ERROR, EngineState.STOPPED),
    (EngineState.DRAINING, EngineState.STARTING),
}


SIGHTINGS = ("ok", "failed", "stalled", "taken", "suspected", "idle", "exited")
PLACING = ("delayed", "resumed")
RESTING = ("asleep", "awake", "withheld", "given back", "adapters")


@attrs.define
class Task:
    """What the supervisor would run for an incarnation."""

    origin: Origin
    has_process: bool = False
    told_to_stop: bool = False
    waits_for_gpus: bool = False


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.now = 0.0
        self.tasks: dict[tuple[str, int], Task] = {}
        self.dead: list[tuple[str, int]] = []

    def tell(self, event: e.Event) -> None:
        before = self.fleet
        self.fleet, commands = step(before, event, self.now)
        for command in commands:
            self.obey(command)
        for engine_id, engine in self.fleet.engines.items():
            old = before.get(engine_id)
            if old is not None and old.state is not engine.state:
                assert (old.state, engine.state) in STEPS | SHORT_CUTS

    def obey(self, command: c.Command) -> None:
        key = (command.engine_id, command.incarnation)
        if isinstance(command, c.Launch):
            alive = [other for other in self.tasks if other[0] == command.engine_id]
            assert not alive, f"{key} launched while {alive} is not gone"
            assert command.origin is not Origin.ADOPTED, "what is started anew is no find"
            self.tasks[key] = Task(command.origin)
        elif isinstance(command, c.Adopt):
            assert key not in self.tasks
            self.tasks[key] = Task(command.origin, has_process=True)
        elif isinstance(command, c.StopProcess):
            assert key in self.tasks
            self.tasks[key].told_to_stop = True
        else:
            assert key in self.tasks

    @rule(engine_id=IDS)
    def an_earlier_one_is_found_again(self, engine_id: str) -> None:
        run = a_run(engine_id, self.fleet.launches + 1)
        legal = self.fleet.get(engine_id) is None
        try:
            if legal:
                self.dead = [key for key in self.dead if key != (engine_id, run.incarnation)]
            self.tell(e.EngineAdopted(engine_id, SPEC, run, e.Endpoint(base_url="http://x", pid=7)))
        except IllegalTransition:
            assert not legal
        else:
            assert legal

    @rule(engine_id=IDS, origin=st.sampled_from([Origin.MANAGED, Origin.REGISTERED]))
    def one_that_was_stopped_is_kept(self, engine_id: str, origin: Origin) -> None:
        if self.fleet.get(engine_id) is None:
            self.tell(e.EngineKept(engine_id, SPEC, origin))

    @rule(engine_id=IDS, origin=st.sampled_from([Origin.MANAGED, Origin.REGISTERED]))
    def start(self, engine_id: str, origin: Origin) -> None:
        engine = self.fleet.get(engine_id)
        legal = engine is None or engine.state in (EngineState.STOPPED, EngineState.ERROR)
        try:
            self.tell(e.StartRequested(engine_id, SPEC, origin if engine is None else engine.origin))
        except IllegalTransition:
            assert not legal
        else:
            assert legal

    @rule(
        engine_id=IDS,
        drain=st.sampled_from([0.0, 20.0]),
        grace=st.sampled_from([0.0, 10.0]),
        after=st.sampled_from(e.AfterStop),
    )
    def stop(self, engine_id: str, drain: float, grace: float, after: e.AfterStop) -> None:
        if self.fleet.get(engine_id) is not None:
            self.tell(e.StopRequested(engine_id, drain, grace, after))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), ok=st.booleans(), retryable=st.booleans())
    def launch_ends(self, data: st.DataObject, ok: bool, retryable: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        if task.has_process:
            return
        if ok:
            if task.waits_for_gpus:
                self.tell(e.LaunchResumed(*key))
            task.has_process, task.waits_for_gpus = True, False
            self.tell(e.Launched(*key, e.Endpoint(base_url="http://x", pid=7)))
        else:
            del self.tasks[key]
            self.dead.append(key)
            self.tell(e.LaunchFailed(*key, "no", retryable))

    @precondition(lambda self: any(not task.has_process for task in self.tasks.values()))
    @rule(data=st.data(), refused=st.none() | st.booleans())
    def gpus_are_waited_for_or_there(self, data: st.DataObject, refused: bool | None) -> None:
        key = data.draw(st.sampled_from([key for key, task in sorted(self.tasks.items()) if not task.has_process]))
        self.tasks[key].waits_for_gpus = refused is not None
        before = self.fleet.engines[key[0]]
        self.tell(e.LaunchResumed(*key) if refused is None else e.LaunchDelayed(*key, "waits for GPUs", refused))
        after = self.fleet.engines[key[0]]
        assert (after.state, after.restarts, after.attempts) == (before.state, before.restarts, before.attempts)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), kind=st.sampled_from([*SIGHTINGS, *RESTING]))
    def something_is_seen(self, data: st.DataObject, kind: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        if task.has_process and not task.told_to_stop and not (kind == "exited" and task.origin is Origin.REGISTERED):
            self.tell(self.sighting(kind, key))

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), kind=st.sampled_from([*SIGHTINGS, *RESTING, *PLACING, "stopped"]))
    def a_dead_incarnation_speaks(self, data: st.DataObject, kind: str) -> None:
        key = data.draw(st.sampled_from(self.dead))
        before = self.fleet
        self.tell(self.sighting(kind, key))
        assert self.fleet == before

    def sighting(self, kind: str, key: tuple[str, int]) -> e.Event:
        makers: dict[str, Any] = {
            "ok": e.ProbeSucceeded(*key),
            "failed": e.ProbeFailed(*key, "no answer"),
            "stalled": e.EngineStalled(*key, "stalled"),
            "taken": e.PortTaken(*key, "somebody else listens there"),
            "suspected": e.EngineSuspected(*key, "reset"),
            "idle": e.EngineIdle(*key),
            "exited": e.ProcessExited(*key, ExitStatus(code=0)),
            "stopped": e.ProcessStopped(*key),
            "delayed": e.LaunchDelayed(*key, "waits for GPUs", refused=True),
            "resumed": e.LaunchResumed(*key),
            "progressed": e.StartProgressed(*key, StartProgress("loading weights", 0.4)),
            "asleep": e.SleepChanged(*key, asleep=True),
            "awake": e.SleepChanged(*key, asleep=False),
            "withheld": e.SleepWanted(*key, wanted=True),
            "given back": e.SleepWanted(*key, wanted=False),
            "adapters": e.AdaptersChanged(*key, ("sql",)),
        }
        event: e.Event = makers[kind]
        return event

    @precondition(lambda self: any(task.told_to_stop and task.has_process for task in self.tasks.values()))
    @rule(data=st.data())
    def a_stop_is_verified(self, data: st.DataObject) -> None:
        key = data.draw(
            st.sampled_from([key for key, t in sorted(self.tasks.items()) if t.told_to_stop and t.has_process])
        )
        del self.tasks[key]
        self.dead.append(key)
        self.tell(e.ProcessStopped(*key))

    @rule(seconds=st.floats(0, 120))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(e.TimePassed())
        due = next_deadline(self.fleet)
        assert due is None or due > self.now, "a deadline that has come must be acted on, or the timer spins"

    @invariant()
    def every_task_belongs_to_the_current_incarnation(self) -> None:
        for engine_id, incarnation in self.tasks:
            engine = self.fleet.get(engine_id)
            assert engine is not None, f"{engine_id} was forgotten with a task running"
            assert engine.incarnation == incarnation
        for engine_id, engine in self.fleet.engines.items():
            assert ((engine_id, engine.incarnation) in self.tasks) == (engine.phase is not Phase.NONE)

    @invariant()
    def the_details_fit_the_state(self) -> None:
        for engine in self.fleet.engines.values():
            assert engine.attempts <= SPEC.restart_limit
            if engine.state is EngineState.READY:
                assert engine.phase is Phase.ALIVE
                assert engine.ready_at is not None
                assert engine.accepting is not (engine.endpoint.asleep or engine.endpoint.withheld)
            else:
                assert not engine.accepting
            if engine.phase is Phase.LAUNCHING:
                assert engine.endpoint == e.Endpoint(), "a new incarnation neither sleeps nor has adapters"
            if engine.state is EngineState.STOPPED:
                assert engine.phase is Phase.NONE
                assert engine.endpoint == e.Endpoint()
            if engine.state is EngineState.STARTING and engine.origin is not Origin.REGISTERED:
                task = self.tasks[engine.engine_id, engine.incarnation]
                assert (engine.startup_deadline is None) == task.waits_for_gpus
            assert not engine.refused or engine.state is EngineState.STARTING
            if engine.state is EngineState.DRAINING and engine.phase is not Phase.STOPPING:
                assert engine.drain_deadline is not None

    def teardown(self) -> None:
        """Whatever happened: told to stop, and obeyed, everything ends STOPPED."""
        for engine_id in self.fleet.engines:
            self.tell(e.StopRequested(engine_id, 0, 0))
        while self.tasks:
            key, task = next(iter(self.tasks.items()))
            if not task.has_process:
                task.has_process = True
                self.tell(e.Launched(*key, e.Endpoint()))
            assert task.told_to_stop
            del self.tasks[key]
            self.tell(e.ProcessStopped(*key))
            for engine_id, engine in self.fleet.engines.items():
                if engine.state is EngineState.STARTING and not self.tasks.get((engine_id, engine.incarnation)):
                    raise AssertionError(f"{engine_id} starts without a task")
                if engine.state is EngineState.STARTING:  # it was restarting; a stop now holds
                    self.tell(e.StopRequested(engine_id, 0, 0))
        assert all(engine.state is EngineState.STOPPED for engine in self.fleet.engines.values())


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

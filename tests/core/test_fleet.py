"""Stories of single engines, told to the step function."""

import attrs
import pytest

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.describe import backend_of, describe
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.fleet import next_deadline, step
from stoker.errors import IllegalTransition
from stoker.model import Activity, EngineRun, EngineSpec, EngineState, ExitStatus, LaunchPlan, Origin, StartProgress

SPEC = EngineSpec(model="m", runtime="command", startup_timeout_seconds=100, restart_limit=2)
HERE = e.Endpoint(base_url="http://127.0.0.1:1", host="127.0.0.1", port=1, pid=42)


class Story:
    """A fleet with one engine ``a``, told events in turn; keeps the commands of the last one."""

    def __init__(self, spec: EngineSpec = SPEC, origin: Origin = Origin.MANAGED) -> None:
        self.fleet = Fleet()
        self.now = 0.0
        self.commands: tuple[c.Command, ...] = ()
        self.tell(e.StartRequested("a", spec, origin))

    @property
    def engine(self) -> Engine:
        engine = self.fleet.get("a")
        assert engine is not None
        return engine

    def tell(self, event: e.Event, *, after: float = 0.0) -> None:
        self.now += after
        self.fleet, self.commands = step(self.fleet, event, self.now)

    def wait_for_deadline(self) -> None:
        due = next_deadline(self.fleet)
        assert due is not None
        self.now = max(self.now, due)
        self.tell(e.TimePassed())

    def launched(self) -> None:
        self.tell(e.Launched("a", self.engine.incarnation, HERE))

    def ready(self) -> None:
        self.launched()
        self.tell(e.ProbeSucceeded("a", self.engine.incarnation))

    def exited(self, code: int = 1) -> None:
        self.tell(e.ProcessExited("a", self.engine.incarnation, ExitStatus(code=code), "boom"))

    def stopped(self, note: str = "") -> None:
        self.tell(e.ProcessStopped("a", self.engine.incarnation, note))

    def stop(self, drain: float = 30.0, grace: float = 10.0, after: e.AfterStop = e.AfterStop.STAY) -> None:
        self.tell(e.StopRequested("a", drain, grace, after))


def test_a_start_is_launched_and_ready_with_its_first_answered_probe() -> None:
    story = Story()
    assert story.engine.state is EngineState.STARTING
    assert story.commands == (c.Launch("a", 1, SPEC, Origin.MANAGED),)
    story.ready()
    assert story.engine.state is EngineState.READY
    assert story.engine.endpoint == HERE
    assert next_deadline(story.fleet) is None


def test_it_is_known_since_when_it_is_as_it_is() -> None:
    """The listing once said of an engine that had just died since when it had been READY."""
    story = Story()
    story.now = 5.0
    story.ready()
    assert story.engine.state_since == 5.0
    story.tell(e.ProbeFailed("a", 1, "refused"), after=10)
    assert story.engine.state_since == 5.0
    story.now = 20.0
    story.exited()
    assert (story.engine.state, story.engine.state_since) == (EngineState.ERROR, 20.0)
    story.stopped()
    story.wait_for_deadline()
    assert (story.engine.state, story.engine.state_since) == (EngineState.STARTING, story.now)
    assert describe(story.engine, Activity(), epoch=1000.0).state_since == round(1000.0 + story.now, 3)


def test_failed_probes_while_starting_do_not_count_until_the_time_is_up() -> None:
    story = Story()
    story.launched()
    for _ in range(50):
        story.tell(e.ProbeFailed("a", 1, "refused"), after=1)
    assert story.engine.state is EngineState.STARTING
    story.wait_for_deadline()
    assert story.engine.state is EngineState.ERROR
    assert story.engine.last_error == "not ready 100 s after its start"
    assert story.commands == (c.StopProcess("a", 1, 10.0),)


def test_a_port_that_somebody_else_took_is_an_error_at_once_and_is_tried_again() -> None:
    story = Story()
    story.launched()
    story.tell(e.PortTaken("a", 1, "port 9 is not the engine's"))
    assert (story.engine.state, story.engine.last_error) == (EngineState.ERROR, "port 9 is not the engine's")
    assert story.commands == (c.StopProcess("a", 1, 10.0),)
    assert story.engine.restart_at is not None


def test_an_engine_that_was_believed_once_is_not_doubted_later() -> None:
    story = Story()
    story.ready()
    story.tell(e.PortTaken("a", 1, "port 9 is not the engine's"))
    assert story.engine.state is EngineState.READY


def test_an_engine_that_went_to_the_background_is_told_to_stay_in_the_foreground() -> None:
    story = Story()
    story.launched()
    story.tell(e.ProcessExited("a", 1, ExitStatus(code=0), "the log", left=2))
    assert (story.engine.last_error or "").startswith(
        "its process ended while starting: exit code 0; it left 2 in the background, where engines can't be watched: "
        "keep it in the foreground; the end of its log:\nthe log"
    )


def test_three_failed_probes_in_a_row_are_an_error_and_one_success_between_forgives() -> None:
    story = Story()
    story.ready()
    for _ in range(2):
        story.tell(e.ProbeFailed("a", 1, "timed out"))
    story.tell(e.ProbeSucceeded("a", 1))
    for _ in range(2):
        story.tell(e.ProbeFailed("a", 1, "timed out"))
    assert story.engine.state is EngineState.READY
    story.tell(e.ProbeFailed("a", 1, "timed out"))
    assert story.engine.state is EngineState.ERROR
    assert "3 probes in a row" in (story.engine.last_error or "")


def test_sleep_is_detail_beside_ready_and_ends_with_the_process() -> None:
    story = Story()
    story.ready()
    story.tell(e.SleepWanted("a", 1, wanted=True))
    assert (story.engine.state, story.engine.accepting, story.engine.expected) == (EngineState.READY, False, False)
    story.tell(e.SleepChanged("a", 1, asleep=True))
    story.tell(e.SleepWanted("a", 1, wanted=False))
    assert not story.engine.accepting
    backend = backend_of(story.engine, frozenset(), None)
    assert backend.detail == "asleep; wake it with: stoker engine wake a"
    story.tell(e.SleepChanged("a", 1, asleep=False))
    assert story.engine.accepting
    story.tell(e.SleepChanged("a", 1, asleep=True))
    story.exited()
    story.stopped()
    assert not story.engine.endpoint.asleep


def test_adapters_are_names_that_are_never_renamed() -> None:
    story = Story()
    story.tell(e.Launched("a", 1, attrs.evolve(HERE, names=("theirs",))))
    story.tell(e.AdaptersChanged("a", 1, ("sql",)))
    backend = backend_of(story.engine, frozenset(), None)
    assert backend.names == ("m", "sql")
    assert backend.renames == {"m": "theirs"}


def test_a_crash_is_cleared_away_then_restarted_in_its_place() -> None:
    story = Story()
    story.tell(e.StartRequested("b", SPEC))
    story.ready()
    story.exited(code=0)  # vLLM exits 0 when its core was killed
    assert story.engine.state is EngineState.ERROR
    assert story.engine.last_exit == "exit code 0"
    assert "boom" in (story.engine.last_error or "")
    assert story.commands == (c.StopProcess("a", 1, 10.0),)
    story.tell(e.TimePassed(), after=1000)
    assert story.engine.phase is Phase.STOPPING  # never two incarnations at once, however late it is
    story.stopped()
    story.tell(e.TimePassed())
    assert story.engine.state is EngineState.STARTING
    assert story.commands[0] == c.Launch("a", 3, SPEC, Origin.MANAGED)
    assert list(story.fleet.engines) == ["a", "b"]
    assert story.engine.restarts == 1


def test_the_budget_ends_in_error_for_good() -> None:
    story = Story()
    for _ in range(2):
        story.launched()
        story.exited()
        story.stopped()
        story.wait_for_deadline()
        assert story.engine.state is EngineState.STARTING
    story.launched()
    story.exited()
    story.stopped()
    assert story.engine.state is EngineState.ERROR
    assert story.engine.reason == "given up after 2 restarts"
    assert next_deadline(story.fleet) is None
    assert not story.engine.expected


def test_an_error_that_a_retry_cannot_mend_is_not_retried() -> None:
    story = Story()
    story.tell(e.LaunchFailed("a", 1, "no such executable: 'vlm'", retryable=False))
    assert story.engine.state is EngineState.ERROR
    assert next_deadline(story.fleet) is None
    story.tell(e.StartRequested("a", SPEC))
    assert story.engine.state is EngineState.STARTING
    assert story.engine.attempts == 0


def test_events_of_a_dead_incarnation_are_dropped() -> None:
    story = Story()
    story.ready()
    story.exited()
    story.stopped()
    story.wait_for_deadline()
    before = story.fleet
    story.tell(e.ProcessExited("a", 1, ExitStatus(code=0)))
    story.tell(e.ProbeSucceeded("a", 1))
    story.tell(e.ProcessStopped("a", 1))
    assert story.fleet == before
    assert story.commands == ()


def test_a_stop_drains_until_idle_then_stops_the_process() -> None:
    story = Story()
    story.ready()
    story.stop()
    assert story.engine.state is EngineState.DRAINING
    assert story.commands == (c.AwaitIdle("a", 1),)
    story.tell(e.EngineIdle("a", 1))
    assert story.commands == (c.StopProcess("a", 1, 10.0),)
    assert story.engine.state is EngineState.DRAINING
    story.stopped()
    assert story.engine.state is EngineState.STOPPED


def test_a_drain_that_takes_too_long_is_ended_by_its_deadline() -> None:
    story = Story()
    story.ready()
    story.stop(drain=30)
    assert next_deadline(story.fleet) == story.now + 30
    story.wait_for_deadline()
    assert story.commands == (c.StopProcess("a", 1, 10.0),)
    assert next_deadline(story.fleet) is None


def test_a_second_stop_only_shortens() -> None:
    story = Story()
    story.ready()
    story.stop(drain=30)
    story.stop(drain=300)
    assert story.engine.drain_deadline == 30
    story.stop(drain=0, grace=0)
    assert story.commands == (c.StopProcess("a", 1, 0),)
    story.stop(drain=0, grace=60)
    assert story.commands == (c.StopProcess("a", 1, 0),)


def test_a_process_that_exits_while_draining_is_still_stopped_verified() -> None:
    story = Story()
    story.ready()
    story.stop()
    story.exited(0)
    assert story.engine.state is EngineState.DRAINING
    assert story.commands == (c.StopProcess("a", 1, 10.0),)


def test_a_restart_keeps_spec_id_and_place() -> None:
    story = Story()
    story.ready()
    changed = attrs.evolve(SPEC, max_concurrency=7)
    story.tell(e.StopRequested("a", 0, 0, e.AfterStop.START, changed))
    story.stopped()
    assert story.engine.state is EngineState.STARTING
    assert story.commands == (c.Launch("a", 2, changed, Origin.MANAGED),)


def test_a_forgotten_engine_is_gone_once_stopped_and_its_last_words_are_ignored() -> None:
    story = Story()
    story.ready()
    story.stop(after=e.AfterStop.FORGET)
    story.stop()  # a plain stop does not take "forget" back
    story.tell(e.EngineIdle("a", 1))
    story.tell(e.ProcessStopped("a", 1))
    assert story.fleet.get("a") is None
    story.tell(e.ProcessExited("a", 1, ExitStatus(code=0)))
    assert story.commands == ()


def test_stopping_an_engine_in_error_waits_for_what_is_left_of_it() -> None:
    story = Story()
    story.ready()
    story.exited()
    story.stop()
    assert story.engine.state is EngineState.DRAINING
    story.stopped()
    assert story.engine.state is EngineState.STOPPED
    assert story.engine.restart_at is None


def test_a_start_while_the_old_processes_go_follows_them() -> None:
    story = Story()
    story.ready()
    story.exited()
    story.tell(e.StartRequested("a", SPEC))
    assert story.commands == ()
    assert not story.engine.settled  # whoever waits for the start must not be told of the old error
    story.stopped()
    story.wait_for_deadline()
    assert story.engine.state is EngineState.STARTING


def test_a_stop_during_the_spawn_stops_what_was_spawned() -> None:
    story = Story()
    story.stop(drain=0)
    assert story.commands == (c.StopProcess("a", 1, 10.0),)
    story.launched()
    assert story.engine.phase is Phase.STOPPING
    story.stopped()
    assert story.engine.state is EngineState.STOPPED


def test_a_launch_that_fails_after_its_time_was_up_is_just_gone() -> None:
    story = Story()
    story.wait_for_deadline()
    assert story.engine.state is EngineState.ERROR
    story.tell(e.LaunchFailed("a", 1, "too late"))
    assert story.engine.state is EngineState.ERROR
    assert story.engine.phase is Phase.NONE


def test_a_registered_engine_comes_and_goes_with_its_probes() -> None:
    story = Story(origin=Origin.REGISTERED)
    story.ready()
    for _ in range(3):
        story.tell(e.ProbeFailed("a", 1, "refused"))
    assert story.engine.state is EngineState.ERROR
    assert story.commands == ()  # nothing of ours to stop, and nothing to restart
    assert next_deadline(story.fleet) is None
    story.tell(e.ProbeSucceeded("a", 1))
    assert story.engine.state is EngineState.READY


def test_a_registered_engine_that_never_answers_is_in_error_but_watched() -> None:
    story = Story(origin=Origin.REGISTERED)
    story.launched()
    for _ in range(3):
        story.tell(e.ProbeFailed("a", 1, "refused"))
    assert story.engine.state is EngineState.ERROR
    story.tell(e.ProbeSucceeded("a", 1))
    assert story.engine.state is EngineState.READY


def test_a_suspicion_asks_for_a_probe_and_changes_nothing_else() -> None:
    story = Story()
    story.ready()
    story.tell(e.EngineSuspected("a", 1, "connection reset"))
    assert story.engine.state is EngineState.READY
    assert story.commands == (c.ProbeNow("a", 1),)


def test_a_stalled_engine_is_an_error_at_once() -> None:
    story = Story()
    story.ready()
    story.tell(e.EngineStalled("a", 1, "no progress"))
    assert story.engine.state is EngineState.ERROR
    assert story.commands == (c.FailRequests("a", 1, "no progress"), c.StopProcess("a", 1, 10.0))


def test_a_registered_engine_that_stalls_is_in_error_and_what_it_holds_fails() -> None:
    """Nobody can end it: what it held waited for ever."""
    story = Story(origin=Origin.REGISTERED)
    story.ready()
    story.tell(e.EngineStalled("a", 1, "no progress"))
    assert (story.engine.state, story.engine.last_error) == (EngineState.ERROR, "no progress")
    assert story.commands == (c.FailRequests("a", 1, "no progress"),)
    story.tell(e.EngineStalled("a", 1, "still none"))
    assert story.commands == (c.FailRequests("a", 1, "still none"),)
    story.tell(e.ProbeSucceeded("a", 1))
    assert story.engine.state is EngineState.READY


def test_a_registered_engine_that_stops_listening_may_answer_what_it_holds_while_that_moves() -> None:
    story = Story(origin=Origin.REGISTERED)
    story.ready()
    for _ in range(5):
        story.tell(e.ProbeFailed("a", 1, "refused"))
        assert story.commands == ()
    assert story.engine.state is EngineState.ERROR
    story.tell(e.ProbeFailed("a", 1, "refused", silent=True))
    assert story.commands == (c.FailRequests("a", 1, "refused"),)


def test_a_draining_engine_that_stalls_is_not_waited_for() -> None:
    story = Story()
    story.ready()
    story.stop(drain=3600)
    story.tell(e.EngineStalled("a", 1, "no progress"))
    assert story.engine.state is EngineState.DRAINING
    assert story.commands == (c.FailRequests("a", 1, "no progress"),)


def test_what_a_registered_engine_holds_ends_with_its_drain_time() -> None:
    story = Story(origin=Origin.REGISTERED)
    story.ready()
    story.stop(drain=30)
    assert story.commands == (c.AwaitIdle("a", 1),)
    story.wait_for_deadline()
    assert story.commands == (c.FailRequests("a", 1, "it was stopped"), c.StopProcess("a", 1, 10.0))


def test_starting_what_runs_raises() -> None:
    story = Story()
    story.ready()
    with pytest.raises(IllegalTransition):
        story.tell(e.StartRequested("a", SPEC))
    with pytest.raises(IllegalTransition):
        story.tell(e.StopRequested("nobody", 0, 0))


def test_an_id_that_is_used_again_is_not_mistaken_for_its_former_bearer() -> None:
    """Found by the state machine: incarnations once counted per engine, and began anew for a forgotten id."""
    story = Story()
    story.ready()
    story.stop(drain=0, after=e.AfterStop.FORGET)
    story.stopped()
    story.tell(e.StartRequested("a", SPEC))
    story.tell(e.ProcessExited("a", 1, ExitStatus(code=0)))
    assert story.engine.state is EngineState.STARTING
    assert story.engine.incarnation == 2


def test_the_spec_of_a_restart_survives_what_is_ordered_while_it_drains() -> None:
    story = Story()
    story.ready()
    changed = attrs.evolve(SPEC, args=("--new",))
    story.tell(e.StopRequested("a", 30, 10, e.AfterStop.START, changed))
    updated = attrs.evolve(changed, max_concurrency=7)
    story.tell(e.SpecUpdated("a", updated))
    story.stop(drain=5, after=e.AfterStop.START)  # somebody else restarts it too, and knows nothing of the new spec
    assert story.engine.spec == SPEC  # what runs until then
    story.tell(e.EngineIdle("a", 1))
    story.stopped()
    assert story.commands == (c.Launch("a", 2, updated, Origin.MANAGED),)


def test_an_engine_that_is_stopped_while_it_restarts_takes_the_new_spec_along() -> None:
    story = Story()
    story.ready()
    changed = attrs.evolve(SPEC, args=("--new",))
    story.tell(e.StopRequested("a", 30, 10, e.AfterStop.START, changed))
    story.stop(drain=0)
    story.stopped()
    assert story.engine.state is EngineState.STOPPED
    assert (story.engine.spec, story.engine.next_spec) == (changed, None)


def test_a_dead_url_that_is_registered_anew_elsewhere_is_watched_there() -> None:
    old = EngineSpec(model="m", runtime="remote", url="http://127.0.0.1:1")
    story = Story(old, Origin.REGISTERED)
    story.ready()
    for _ in range(3):
        story.tell(e.ProbeFailed("a", 1, "refused"))
    new = attrs.evolve(old, url="http://127.0.0.1:2")
    story.tell(e.StartRequested("a", new, Origin.REGISTERED))
    assert story.commands == (c.FailRequests("a", 1, "it was stopped"), c.StopProcess("a", 1, 0.0))
    story.tell(e.ProbeSucceeded("a", 1))  # of the old one
    assert story.engine.state is EngineState.DRAINING
    story.stopped()
    assert story.commands == (c.Launch("a", 2, new, Origin.REGISTERED),)


def test_an_id_of_a_dead_url_can_be_given_to_an_engine_of_ours() -> None:
    story = Story(EngineSpec(model="m", runtime="remote", url="http://127.0.0.1:1"), Origin.REGISTERED)
    story.launched()
    for _ in range(3):
        story.tell(e.ProbeFailed("a", 1, "refused"))
    story.tell(e.StartRequested("a", SPEC))
    story.stopped()
    assert story.commands == (c.Launch("a", 2, SPEC, Origin.MANAGED),)


def test_a_url_that_can_not_be_watched_is_not_said_to_be() -> None:
    story = Story(origin=Origin.REGISTERED)
    story.tell(e.LaunchFailed("a", 1, "no such URL", retryable=False))
    assert story.engine.state is EngineState.ERROR
    assert "change what the error names" in story.engine.reason
    assert next_deadline(story.fleet) is None


def test_a_late_probe_does_not_hide_why_the_engine_failed() -> None:
    """A new user saw "all attempts to connect failed" in place of the exit code and the log."""
    story = Story()
    story.ready()
    story.exited(7)
    story.tell(e.ProbeFailed("a", 1, "connection refused"))
    assert "exit code 7" in (story.engine.last_error or "")


def test_what_clients_are_told_of_a_broken_engine_has_the_end_of_its_log() -> None:
    story = Story()
    story.ready()
    story.exited(7)
    detail = backend_of(story.engine, frozenset(), None).detail
    assert detail == (
        "ERROR; restart 1 of 2 follows; its process ended while ready: exit code 7; the end of its log: boom"
    )


def test_an_engine_is_asked_by_a_name_it_knows_whatever_clients_call_it() -> None:
    def renames() -> dict[str, str]:
        return dict(backend_of(story.engine, frozenset(), None).renames)

    story = Story(attrs.evolve(SPEC, names=("n", "o")))
    story.ready()
    assert renames() == {}  # it knows all
    story.tell(e.StopRequested("a", 0, 10, e.AfterStop.START))
    story.stopped()
    story.tell(e.Launched("a", story.engine.incarnation, attrs.evolve(HERE, names=("o", "mine"))))
    assert renames() == {"m": "o", "n": "o"}
    story.tell(e.SpecUpdated("a", attrs.evolve(SPEC, names=("mine", "new"))))
    assert renames() == {"m": "o", "new": "o"}
    story.exited()
    story.stopped()
    assert renames() == {}  # nobody knows yet what the next one will know


def test_waiting_for_gpus_uses_up_neither_start_up_time_nor_restarts() -> None:
    story = Story()
    story.tell(e.LaunchDelayed("a", 1, "waits for GPUs: b holds them", refused=True))
    assert (story.engine.state, story.engine.reason) == (EngineState.STARTING, "waits for GPUs: b holds them")
    assert story.engine.settled, "whoever waits for the start is told"
    assert next_deadline(story.fleet) is None
    story.tell(e.TimePassed(), after=10_000)
    assert (story.engine.state, story.commands) == (EngineState.STARTING, ())
    story.tell(e.LaunchDelayed("a", 1, "waits for c, which is starting on GPU 0", refused=False))
    assert not story.engine.settled
    story.tell(e.LaunchResumed("a", 1))
    assert next_deadline(story.fleet) == story.now + SPEC.startup_timeout_seconds
    story.ready()
    assert (story.engine.state, story.engine.restarts, story.engine.attempts) == (EngineState.READY, 0, 0)


def test_how_far_a_start_is_stands_beside_the_state_while_it_lasts() -> None:
    story = Story()

    def told() -> tuple[str, StartProgress | None]:
        info = describe(story.engine, Activity(), 0.0)
        return info.reason, info.progress

    loading = StartProgress("loading weights", 0.4)
    story.tell(e.StartProgressed("a", 1, loading))
    assert told() == ("loading weights, 40%", loading)
    story.tell(e.StartProgressed("a", 1, StartProgress("compiling")))
    assert told()[0] == "compiling"
    story.ready()
    assert told() == ("", None)
    story.tell(e.StartProgressed("a", 1, loading))
    assert told() == ("", None), "what its log says now is no start"
    story.exited()
    story.stopped()
    story.tell(e.TimePassed(), after=1000)
    assert (story.engine.state, told()) == (EngineState.STARTING, ("restarting", None))
    story.tell(e.StartProgressed("a", story.engine.incarnation, loading))
    assert told()[0] == "restarting: loading weights, 40%"


def test_what_is_said_of_gpus_after_a_stop_was_asked_changes_nothing() -> None:
    story = Story()
    story.tell(e.LaunchDelayed("a", 1, "waits for GPUs: b holds them", refused=True))
    story.stop()
    assert not story.engine.refused
    before = story.engine
    story.tell(e.LaunchDelayed("a", 1, "waits for GPUs: still", refused=True))
    story.tell(e.LaunchResumed("a", 1))
    assert story.engine == before


@pytest.mark.parametrize(("was_ready", "state"), [(True, EngineState.ERROR), (False, EngineState.STARTING)])
def test_one_that_was_ready_before_it_was_found_again_does_not_have_the_time_of_a_start(
    was_ready: bool, state: EngineState
) -> None:
    story = Story()
    spec = attrs.evolve(SPEC, stall_seconds=20)
    plan = LaunchPlan(base_url="http://127.0.0.1:1")
    run = EngineRun(
        engine_id="b",
        incarnation=7,
        mark="mark",
        boot_id="boot",
        pid=42,
        started=1,
        host="127.0.0.1",
        port=1,
        plan=plan,
        ready=was_ready,
    )
    story.tell(e.EngineAdopted("b", spec, run, HERE))
    failed = e.ProbeFailed("b", 7, "no answer")
    for _ in range(5):
        story.tell(failed, after=3)
        assert story.fleet.engines["b"].state is EngineState.STARTING, "it may be busy with what it held"
    story.tell(failed, after=5)
    assert story.fleet.engines["b"].state is state

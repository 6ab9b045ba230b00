"""Engines that live, fail, come back and go, in real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from stoker.builtin.runtimes import Command
from stoker.errors import ConfigError, ConflictError, NotFoundError, PluginError
from stoker.gateway.routing import RoutingTable
from stoker.home import Home
from stoker.model import EngineInfo, EngineSpec, EngineState, LaunchPlan, Placement
from stoker.supervise import leftovers, proctable
from stoker.supervise.incarnation import SUSPECTED_PROBE_SECONDS
from stoker.testing.engines import fake_engine_spec, open_fake_engine
from stoker.testing.fake_engine.faults import Faults

from .conftest import HANG_GUARD_SECONDS, OpenSupervisor, marked, quick, until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # killed supervisors leave their children to us


def spec(*, faults: Faults | None = None, **fields: object) -> EngineSpec:
    return attrs.evolve(quick(fake_engine_spec(faults=faults or Faults())), **fields)  # type: ignore[arg-type]


async def test_an_engine_starts_is_ready_and_stops_without_a_trace(open_supervisor: OpenSupervisor, home: Home) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec())
        assert supervisor.info(engine_id).state is EngineState.STARTING
        info = await supervisor.wait_until_settled(engine_id)
        assert info.state is EngineState.READY
        assert info.pid in {entry.pid for entry in marked(home)}
        assert info.base_url == f"http://127.0.0.1:{info.port}"
        supervisor.stop(engine_id)
        stopped = await supervisor.wait_until_stopped(engine_id)
        assert stopped is not None
        assert stopped.pid is None
        assert stopped.last_exit == "exit code 0"
        assert marked(home) == []
        assert "listening on" in await supervisor.log_text(engine_id, 5)


async def test_a_killed_engine_is_replaced_in_its_place(open_supervisor: OpenSupervisor, home: Home) -> None:
    async with open_supervisor() as supervisor:
        ids = supervisor.start(spec(replicas=2))
        for engine_id in ids:
            await supervisor.wait_until_settled(engine_id)
        before = supervisor.info(ids[0])
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        await until(supervisor, ids[0], lambda info: info.state is EngineState.ERROR)
        await until(supervisor, ids[0], lambda info: info.state is EngineState.READY)
        after = supervisor.info(ids[0])
        assert after.restarts == 1
        assert after.last_exit == "killed by signal 9"
        assert [info.engine_id for info in supervisor.infos()] == list(ids)
        assert supervisor.info(ids[1]).restarts == 0
        assert len({entry.session for entry in marked(home)}) == 2


async def test_an_engine_that_exits_at_once_is_given_up_with_the_end_of_its_log(
    open_supervisor: OpenSupervisor, home: Home
) -> None:
    async with open_supervisor() as supervisor:
        bad = spec(faults=Faults(exit_at_start=3, message="ValueError: no such model"), restart_limit=2)
        (engine_id,) = supervisor.start(bad)
        first = await supervisor.wait_until_settled(engine_id)
        assert first.state is EngineState.ERROR
        assert "exit code 3" in (first.last_error or "")
        assert "ValueError: no such model" in (first.last_error or "")
        await until(supervisor, engine_id, lambda info: "given up" in info.reason)
        assert supervisor.info(engine_id).restarts == 2
        assert marked(home) == []


@pytest.mark.parametrize("faults", [Faults(child=True), Faults(setsid_grandchild=True), Faults(double_fork=True)])
async def test_what_a_killed_engine_leaves_behind_is_ended_before_it_starts_again(
    open_supervisor: OpenSupervisor, home: Home, faults: Faults
) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec(faults=faults, restart_limit=0))
        info = await supervisor.wait_until_settled(engine_id)
        assert len(marked(home)) > 1
        assert info.pid is not None
        os.kill(info.pid, signal.SIGKILL)
        await until(supervisor, engine_id, lambda info: info.pid is None)
        assert supervisor.info(engine_id).state is EngineState.ERROR
        assert marked(home) == []


async def test_a_stopped_process_fails_three_probes_and_is_replaced(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec())
        info = await supervisor.wait_until_settled(engine_id)
        assert info.pid is not None
        os.kill(info.pid, signal.SIGSTOP)
        await until(supervisor, engine_id, lambda info: info.restarts == 1)
        settled = await supervisor.wait_until_settled(engine_id)
        assert settled.state is EngineState.READY
        assert "3 probes in a row failed" in (settled.last_error or "")


async def test_an_engine_that_never_gets_ready_is_an_error_when_its_time_is_up(
    open_supervisor: OpenSupervisor,
) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(
            spec(faults=Faults(never_ready=True), startup_timeout_seconds=1.5, restart_limit=0)
        )
        info = await supervisor.wait_until_settled(engine_id)
        assert info.state is EngineState.ERROR
        assert info.last_error == "not ready 1.5 s after its start"


async def test_a_missing_executable_is_said_at_once_and_not_retried(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        supervisor.start(spec(command=("no-such-program", "{port}")), "typo")
        info = await supervisor.wait_until_settled("typo")
        assert info.state is EngineState.ERROR
        assert info.restart_at is None
        assert info.last_error == (
            "the command that runtime 'command' has for engine 'typo' can't be run: there is no executable "
            "'no-such-program' on the PATH; install it, or name it with its whole path"
        )


async def test_a_runtime_that_plans_what_is_no_command_costs_its_engine_and_is_named(
    open_supervisor: OpenSupervisor,
) -> None:
    class Careless(Command):
        name = "careless"

        def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
            argv: Any = ("serve", port)
            return LaunchPlan(argv=argv, base_url="http://127.0.0.1:1")

    async with open_supervisor() as supervisor:
        supervisor.crew.runtimes = {"careless": Careless()}
        supervisor.start(spec(runtime="careless"), "tiny")
        info = await supervisor.wait_until_settled("tiny")
        assert (info.state, info.restart_at) == (EngineState.ERROR, None)
        assert "runtime 'careless' could not plan it: TypeError: its argv is made of texts" in (info.last_error or "")


async def test_a_runtime_that_breaks_on_a_spec_is_named_and_nothing_is_started(open_supervisor: OpenSupervisor) -> None:
    class Careless(Command):
        def paths(self, spec: EngineSpec) -> frozenset[str]:
            return frozenset({3})  # type: ignore[arg-type]

    async with open_supervisor() as supervisor:
        supervisor.crew.runtimes = {"careless": Careless()}
        with pytest.raises(PluginError, match="runtime 'careless' broke when it was asked"):
            supervisor.start(spec(runtime="careless"), "tiny")
        assert supervisor.infos() == ()


async def test_what_can_not_be_is_refused_and_hurts_nobody(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        supervisor.start(spec(), "one")
        with pytest.raises(NotFoundError, match=r"no runtime 'vlm'.*did you mean vllm"):
            supervisor.start(EngineSpec(model="m", runtime="vlm"))
        with pytest.raises(ConfigError, match="there is no command"):
            supervisor.start(EngineSpec(model="m", runtime="command"))
        with pytest.raises(ConflictError, match="'one' already"):
            supervisor.start(spec(), "one")
        with pytest.raises(
            ConflictError, match=r"know 'fake' \(engine 'one'\) as 'fake' already; give 'other' other names"
        ):
            supervisor.start(spec(model="other", names=("fake",)))
        with pytest.raises(ConfigError, match="can't be an engine id"):
            supervisor.start(spec(), "../one")
        with pytest.raises(NotFoundError, match="no engine 'two'; there are: one"):
            supervisor.stop("two")
        assert (await supervisor.wait_until_settled("one")).state is EngineState.READY


async def test_several_engines_that_are_given_an_id_have_it_with_a_number(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        assert supervisor.start(spec(replicas=2), "pair") == ("pair", "pair-2")
        assert [info.engine_id for info in supervisor.infos()] == ["pair", "pair-2"]


async def test_a_registered_url_is_watched_but_never_stopped(open_supervisor: OpenSupervisor) -> None:
    async with open_fake_engine("far") as far, open_supervisor() as supervisor:
        url = quick(EngineSpec(model="far", runtime="remote", url=far.base_url))
        engine_id = supervisor.register(url)
        assert (await supervisor.wait_until_settled(engine_id)).state is EngineState.READY
        with pytest.raises(ConflictError, match="registered for 'far' already"):
            supervisor.register(url)
        os.kill(far.pid, signal.SIGSTOP)
        await until(supervisor, engine_id, lambda info: info.state is EngineState.ERROR)
        os.kill(far.pid, signal.SIGCONT)
        await until(supervisor, engine_id, lambda info: info.state is EngineState.READY)
        supervisor.stop(engine_id, forget=True)
        assert await supervisor.wait_until_stopped(engine_id) is None
        assert far.process.poll() is None


async def test_the_data_plane_is_told_what_an_engine_calls_its_model(open_supervisor: OpenSupervisor) -> None:
    async with open_fake_engine("far") as far, open_supervisor() as supervisor:

        def renames(engine_id: str) -> dict[str, str]:
            table = supervisor.traffic
            assert isinstance(table, RoutingTable)
            return next(dict(one.renames) for one in table.models() if one.engine_id == engine_id)

        url = quick(EngineSpec(model="far", names=("away",), runtime="remote", url=far.base_url))
        engine_id = supervisor.register(url)
        (own_id,) = supervisor.start(attrs.evolve(fake_engine_spec("own"), names=("ours",)))
        (told_id,) = supervisor.start(fake_engine_spec("told", names=("known",)))
        for each in (engine_id, own_id, told_id):
            await supervisor.wait_until_settled(each)
        assert renames(engine_id) == {"away": "far"}
        assert renames(own_id) == {"ours": "own"}
        assert renames(told_id) == {}
        supervisor.update(engine_id, attrs.evolve(url, names=("away", "abroad")))
        assert renames(engine_id) == {"away": "far", "abroad": "far"}


async def test_a_restart_is_a_new_process_under_the_same_id(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec())
        old = await supervisor.wait_until_settled(engine_id)
        supervisor.restart(engine_id)
        new = await supervisor.wait_until_settled(engine_id)
        assert new.state is EngineState.READY
        assert new.pid != old.pid
        assert new.created_at == old.created_at


async def test_a_doubt_is_settled_by_the_next_answered_probe_or_by_the_engines_end(
    open_supervisor: OpenSupervisor,
) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec(probe_interval_seconds=3600))
        info = await supervisor.wait_until_settled(engine_id)
        supervisor.suspect(engine_id, 1, "it answered 500")
        await supervisor.wait_until_probed(engine_id, 1)
        assert supervisor.info(engine_id).last_heartbeat != info.last_heartbeat
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.wait_until_probed, engine_id, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert info.pid is not None
            os.kill(info.pid, signal.SIGKILL)


async def test_changes_are_told_in_order_and_heartbeats_are_not_changes(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        with supervisor.subscribe() as changes:
            (engine_id,) = supervisor.start(spec())
            await supervisor.wait_until_settled(engine_id)
            heartbeat = supervisor.info(engine_id).last_heartbeat
            while supervisor.info(engine_id).last_heartbeat == heartbeat:
                await trio.sleep(0.01)
            supervisor.stop(engine_id, drain_timeout_seconds=0, forget=True)
            await supervisor.wait_until_stopped(engine_id)
            seen: list[EngineInfo | None] = []
            while seen[-1:] != [None]:
                seen.append((await changes.receive()).after)
    states = [info.state.value for info in seen if info is not None]
    assert list(dict.fromkeys(states)) == ["STARTING", "READY", "DRAINING"]
    assert len(seen) < 10


async def test_a_supervisor_that_breaks_costs_no_engine(open_supervisor: OpenSupervisor, home: Home) -> None:
    """Whatever ends us, engines run on, and the next one adopts them."""

    async def break_down() -> None:
        async with open_supervisor() as supervisor:
            (engine_id,) = supervisor.start(spec(faults=Faults(setsid_grandchild=True)))
            await supervisor.wait_until_settled(engine_id)
            raise LookupError("a defect")

    with pytest.raises(ExceptionGroup) as caught:
        await break_down()
    assert caught.group_contains(LookupError)
    assert len(marked(home)) == 3, "it, its child and its grandchild"


async def test_what_nobody_goes_on_with_is_ended_by_the_next_run(home: Home) -> None:
    """What a supervisor that was killed left, and the next one can't adopt, is found by its marker."""
    argv = fake_engine_spec().command[:3]
    async with open_fake_engine() as stranger:
        process = await trio.lowlevel.open_process(
            [*argv, "--port", "0", "--model", "m"],
            env={**os.environ, **fake_engine_spec().env, "STOKER_MARK": f"{home.digest}:dead:engine:1"},
            start_new_session=True,
        )
        with trio.fail_after(20):
            while not marked(home):
                await trio.sleep(0.01)
            left = await leftovers.end_leftovers(home.digest)
        assert left.found == (process.pid,)
        assert left.remaining == ()
        assert await process.wait() < 0
        assert stranger.process.poll() is None


async def test_what_hides_its_marker_in_the_session_of_an_engine_is_ended_too(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's processes write over their environment; when their parent is killed, only their session tells of them."""
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", 0.1)
    stubborn = "trap '' TERM; echo $$; while :; do sleep 1; done"
    process = await trio.lowlevel.open_process(
        ["sh", "-c", 'sleep 600 & env -i PATH="$PATH" sh -c "$1" & wait', "sh", stubborn],
        env={**os.environ, "STOKER_MARK": f"{home.digest}:dead:engine:1"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with trio.fail_after(20):
        assert process.stdout is not None
        async with process.stdout:
            hidden = int(await process.stdout.receive_some())
        process.kill()
        await process.wait()
        try:
            left = await leftovers.end_leftovers(home.digest)
            entry = proctable.read_entry(hidden)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hidden, signal.SIGKILL)
    assert hidden in left.found
    assert left.remaining == ()
    assert entry is None or entry.gone


async def test_a_port_in_use_is_said_and_its_holder_not_taken_for_the_engine(open_supervisor: OpenSupervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        async with open_supervisor() as supervisor:
            supervisor.start(spec(port=port), "late")
            info = await supervisor.wait_until_settled("late")
            assert info.state is EngineState.ERROR
            assert f"port {port} is in use" in (info.last_error or "")


async def test_what_one_start_lacks_of_the_machine_does_not_hurt_the_others(
    open_supervisor: OpenSupervisor, home: Home
) -> None:
    async with open_supervisor() as supervisor:
        supervisor.start(spec(), "good")
        assert (await supervisor.wait_until_settled("good")).state is EngineState.READY
        home.engine_log("bad").mkdir()  # as good as a full disk: nothing can be written there
        supervisor.start(spec(restart_limit=0), "bad")
        supervisor.register(quick(EngineSpec(model="odd", runtime="remote", url="http://a..b:9")), "odd")
        for engine_id in ("bad", "odd"):
            assert (await supervisor.wait_until_settled(engine_id)).state is EngineState.ERROR
        assert "engine-bad.log" in (supervisor.info("bad").last_error or "")
        assert supervisor.info("good").state is EngineState.READY


async def test_an_engine_whose_names_were_given_away_does_not_take_them_back(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        supervisor.start(spec(names=("chat",)), "old")
        supervisor.stop("old", drain_timeout_seconds=0)
        await supervisor.wait_until_stopped("old")
        supervisor.start(spec(model="other", names=("chat",)), "new")
        with pytest.raises(ConflictError, match=r"know 'other' \(engine 'new'\) as 'chat' already"):
            supervisor.start_again("old")


async def test_a_model_that_runs_has_one_policy(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        (first,) = supervisor.start(spec(policy="random"), "first")
        supervisor.start(spec(), "second")
        with pytest.raises(
            ConflictError, match=r"goes by the policy 'random' \(engine 'first'\) already, and not by 'x'"
        ):
            supervisor.start(spec(policy="x"), "third")
        supervisor.start(spec(model="other", policy="x"), "other")
        assert supervisor.info(first).policy == "random"
        await supervisor.wait_until_settled(first)
        pid = supervisor.info(first).pid
        supervisor.update(first, spec(policy="round-robin"))
        assert (supervisor.info(first).policy, supervisor.info(first).pid) == ("round-robin", pid)


async def test_a_ready_engine_says_how_busy_it_is(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(spec())
        await supervisor.wait_until_settled(engine_id)
        with trio.fail_after(HANG_GUARD_SECONDS):
            while (load := supervisor.info(engine_id).load) is None:
                await trio.sleep(0.01)
        assert (load.running, load.waiting) == (0, 0)
        supervisor.stop(engine_id)
        await supervisor.wait_until_stopped(engine_id)
        assert supervisor.info(engine_id).load is None


async def test_many_who_suspect_an_engine_do_not_make_one_hiccup_three(open_supervisor: OpenSupervisor) -> None:
    """The bound is a lower one: a slow machine can only make it longer."""
    async with open_fake_engine("far") as far, open_supervisor() as supervisor:
        url = EngineSpec(model="far", runtime="remote", url=far.base_url, probe_interval_seconds=60)
        engine_id = supervisor.register(url)
        await supervisor.wait_until_settled(engine_id)
        began = trio.current_time()
        os.kill(far.pid, signal.SIGKILL)
        while supervisor.info(engine_id).state is EngineState.READY:
            supervisor.suspect(engine_id, 1, "connection refused")
            await trio.sleep(0.01)
        assert "3 probes in a row" in (supervisor.info(engine_id).last_error or "")
        assert trio.current_time() - began >= 2 * SUSPECTED_PROBE_SECONDS

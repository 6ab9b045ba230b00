"""Sleep, wake and adapters, on real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import httpx2
import pytest
import trio

from stoker.builtin.runtimes import Command
from stoker.errors import ConflictError, NotFoundError, UpstreamError
from stoker.gateway.routing import RoutingTable, Ticket
from stoker.model import (
    AdapterPaths,
    EngineSpec,
    EngineState,
    LaunchPlan,
    Placement,
    RouteRequest,
    SleepPaths,
)
from stoker.supervise import calls, probe
from stoker.supervise.supervisor import Supervisor
from stoker.testing.engines import fake_engine_spec

from .conftest import OpenSupervisor, quick, until

PATHS = SleepPaths(sleep="/sleep", wake="/wake_up", asleep="/is_sleeping")


class Sleeper(Command):
    """A runtime whose engines, the fake ones, can sleep and change their adapters."""

    name = "sleeper"

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        plan = super().plan(spec, placement, port)
        adapters = AdapterPaths(load="/v1/load_lora_adapter", unload="/v1/unload_lora_adapter")
        return attrs.evolve(plan, sleeping=PATHS, adapters=adapters)


SPEC = quick(attrs.evolve(fake_engine_spec("tiny", names=("small",)), runtime="sleeper"))


@asynccontextmanager
async def ready(open_supervisor: OpenSupervisor, spec: EngineSpec = SPEC) -> AsyncIterator[Supervisor]:
    """A supervisor with one READY engine, ``tiny``."""
    async with open_supervisor() as supervisor:
        supervisor.crew.runtimes = {**supervisor.crew.runtimes, "sleeper": Sleeper()}
        supervisor.start(spec)
        info = await supervisor.wait_until_settled("tiny")
        assert info.state is EngineState.READY, info.last_error
        yield supervisor


def table_of(supervisor: Supervisor) -> RoutingTable:
    assert isinstance(supervisor.traffic, RoutingTable)
    return supervisor.traffic


def ticket(model: str = "tiny") -> Ticket:
    request = RouteRequest(request_id="1", model=model, path="/v1/chat/completions")
    return Ticket(request=request, patience_seconds=0)


async def told(supervisor: Supervisor, path: str) -> None:
    """Somebody tells the engine, and not us."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        (await client.post(f"{supervisor.info('tiny').base_url}{path}")).raise_for_status()


async def test_an_engine_that_sleeps_stays_ready_and_gets_no_requests(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        await supervisor.tending.sleep("tiny")
        info = supervisor.info("tiny")
        assert (info.state, info.asleep, info.reason) == (EngineState.READY, True, "asleep")
        table = table_of(supervisor)
        assert table.open(ticket()) is None
        (backend,) = table.of_model("tiny")
        assert not backend.expected
        assert backend.detail == "asleep; wake it with: stoker engine wake tiny"
        await supervisor.tending.wake("tiny")
        assert not supervisor.info("tiny").asleep
        lease = table.open(ticket())
        assert lease is not None
        lease.close()


async def test_to_sleep_twice_or_to_wake_an_engine_that_is_awake_is_no_mistake(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        await supervisor.tending.wake("tiny")
        assert not supervisor.info("tiny").asleep
        await supervisor.tending.sleep("tiny")
        await supervisor.tending.sleep("tiny")
        assert supervisor.info("tiny").asleep


async def test_an_engine_sleeps_only_when_it_has_finished_what_it_answers(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor, trio.open_nursery() as nursery:
        table = table_of(supervisor)
        lease = table.open(ticket())
        assert lease is not None
        nursery.start_soon(supervisor.tending.sleep, "tiny")
        await until(supervisor, "tiny", lambda info: info.reason == "about to sleep")
        assert table.open(ticket()) is None, "a new request came before its sleep"
        with pytest.raises(ConflictError, match="about to sleep already"):
            await supervisor.tending.sleep("tiny")
        assert not supervisor.info("tiny").asleep
        lease.close()
        await until(supervisor, "tiny", lambda info: info.asleep)


async def test_an_engine_that_does_not_get_idle_in_time_stays_awake(open_supervisor: OpenSupervisor) -> None:
    spec = attrs.evolve(SPEC, drain_timeout_seconds=0.05)
    async with ready(open_supervisor, spec) as supervisor:
        table = table_of(supervisor)
        lease = table.open(ticket())
        assert lease is not None
        with pytest.raises(ConflictError, match=r"still answers 1 requests after 0.05 s and stays awake"):
            await supervisor.tending.sleep("tiny")
        lease.close()
        again = table.open(ticket())
        assert again is not None
        again.close()


async def test_sleep_is_seen_whoever_ordered_it(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        await told(supervisor, "/sleep")
        await until(supervisor, "tiny", lambda info: info.asleep)
        await told(supervisor, "/wake_up")
        await until(supervisor, "tiny", lambda info: not info.asleep)


async def test_an_engine_that_was_put_to_sleep_with_requests_under_way_is_not_taken_for_dead(
    open_supervisor: OpenSupervisor,
) -> None:
    spec = attrs.evolve(SPEC, stall_seconds=0.0)
    async with ready(open_supervisor, spec) as supervisor:
        lease = table_of(supervisor).open(ticket())
        assert lease is not None
        await told(supervisor, "/sleep")
        await until(supervisor, "tiny", lambda info: info.asleep)
        for _ in range(3):
            before = supervisor.info("tiny")
            while (now := supervisor.info("tiny")).last_heartbeat == before.last_heartbeat:
                assert now.state is EngineState.READY, now.last_error
                await trio.sleep(0.01)
        lease.close()


async def test_a_restart_forgets_sleep_and_adapters(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        await supervisor.tending.load_adapter("tiny", "sql", "/there/sql")
        await supervisor.tending.sleep("tiny")
        supervisor.restart("tiny")
        info = await supervisor.wait_until_settled("tiny")
        assert (info.state, info.asleep, info.adapters) == (EngineState.READY, False, ())
        assert table_of(supervisor).of_model("sql") == ()


async def test_an_adapter_is_one_more_name_of_its_engine(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        await supervisor.tending.load_adapter("tiny", "sql", "/there/sql")
        assert supervisor.info("tiny").adapters == ("sql",)
        (backend,) = table_of(supervisor).of_model("sql")
        assert "sql" not in backend.renames
        async with httpx2.AsyncClient(base_url=backend.base_url, trust_env=False, verify=False) as client:
            asked = {"model": "sql", "messages": [{"role": "user", "content": "x"}]}
            (await client.post("/v1/chat/completions", json=asked)).raise_for_status()
        await supervisor.tending.unload_adapter("tiny", "sql")
        assert supervisor.info("tiny").adapters == ()
        assert table_of(supervisor).of_model("sql") == ()


async def test_what_the_engine_has_against_an_adapter_is_told_in_its_words(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        with pytest.raises(ConflictError, match=r"'tiny' answered 404 .* No adapter found for /nowhere/sql"):
            await supervisor.tending.load_adapter("tiny", "sql", "/nowhere/sql")
        assert supervisor.info("tiny").adapters == ()


async def test_the_name_of_an_adapter_is_nobody_elses(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        supervisor.start(quick(fake_engine_spec("large", names=("big",))))
        with pytest.raises(ConflictError, match="clients know 'large'"):
            await supervisor.tending.load_adapter("tiny", "big", "/there")
        with pytest.raises(ConflictError, match="'small' is a name of the model itself"):
            await supervisor.tending.load_adapter("tiny", "small", "/there")
        await supervisor.tending.load_adapter("tiny", "sql", "/there")
        with pytest.raises(ConflictError, match="has an adapter 'sql' already"):
            await supervisor.tending.load_adapter("tiny", "sql", "/there")
        with pytest.raises(ConflictError, match=r"clients know 'tiny' .* as 'sql' already"):
            supervisor.start(quick(fake_engine_spec("other", names=("sql",))))
        with pytest.raises(NotFoundError, match="has loaded no adapter 'py'; there are: sql"):
            await supervisor.tending.unload_adapter("tiny", "py")


async def adapters_in(supervisor: Supervisor, engine_id: str = "tiny") -> list[str]:
    """What the engine itself says that it has."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        state = await client.get(f"{supervisor.info(engine_id).base_url}/fake/state")
    adapters: list[str] = state.json()["adapters"]
    return adapters


async def until_loading(supervisor: Supervisor, name: str) -> None:
    """Wait until the engine was told to load the adapter; it says so only when it is told to go on."""
    while name not in await adapters_in(supervisor):
        await trio.sleep(0.01)


async def test_an_adapter_is_loaded_to_the_end_when_nobody_waits_for_it(open_supervisor: OpenSupervisor) -> None:
    """The engine had it then, and Stoker didn't know: it could neither be used, nor loaded again, nor unloaded."""
    async with ready(open_supervisor) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.tending.load_adapter, "tiny", "sql", "/slow/sql")
            await until_loading(supervisor, "sql")
            nursery.cancel_scope.cancel()
        assert supervisor.info("tiny").adapters == ()
        await told(supervisor, "/fake/go-on")
        await until(supervisor, "tiny", lambda info: info.adapters == ("sql",))
        await supervisor.tending.unload_adapter("tiny", "sql")
        assert await adapters_in(supervisor) == []


async def test_who_goes_before_it_was_his_turn_has_nothing_loaded(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.tending.load_adapter, "tiny", "sql", "/slow/sql")
            await until_loading(supervisor, "sql")
            with trio.move_on_after(0.05):
                await supervisor.tending.load_adapter("tiny", "py", "/there/py")
            await told(supervisor, "/fake/go-on")
        await supervisor.tending.load_adapter("tiny", "last", "/there/last")
        assert supervisor.info("tiny").adapters == ("sql", "last")


@pytest.mark.parametrize("then", ["load", "unload"])
async def test_an_engine_that_was_not_heard_of_in_time_is_asked_again(
    then: str, open_supervisor: OpenSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered a second load by "already loaded", and an unload was refused for an adapter that there isn't."""
    async with ready(open_supervisor) as supervisor:
        with monkeypatch.context() as patched:
            patched.setattr(calls, "CALL_SECONDS", 0.1)
            with pytest.raises(UpstreamError, match=r"/v1/load_lora_adapter took over 0\.1 s"):
                await supervisor.tending.load_adapter("tiny", "sql", "/slow/sql")
        assert (supervisor.info("tiny").adapters, await adapters_in(supervisor)) == ((), ["sql"])
        if then == "load":
            await supervisor.tending.load_adapter("tiny", "sql", "/there/sql")
            assert (supervisor.info("tiny").adapters, await adapters_in(supervisor)) == (("sql",), ["sql"])
        else:
            await supervisor.tending.unload_adapter("tiny", "sql")
            assert await adapters_in(supervisor) == []
            with pytest.raises(NotFoundError, match="has loaded no adapter 'sql'; there are: none"):
                await supervisor.tending.unload_adapter("tiny", "sql")


async def test_an_adapter_that_may_be_gone_is_no_name_of_its_engine(
    open_supervisor: OpenSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(open_supervisor) as supervisor:
        await supervisor.tending.load_adapter("tiny", "sql", "/there/sql")
        with monkeypatch.context() as patched:
            patched.setattr(calls, "CALL_SECONDS", 0.0)
            with pytest.raises(UpstreamError, match="/v1/unload_lora_adapter took over"):
                await supervisor.tending.unload_adapter("tiny", "sql")
        assert supervisor.info("tiny").adapters == ()
        await supervisor.tending.load_adapter("tiny", "sql", "/there/sql")
        assert (supervisor.info("tiny").adapters, await adapters_in(supervisor)) == (("sql",), ["sql"])


async def test_an_adapter_that_the_engine_keeps_is_still_one_of_its_names(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        for name in ("sql", "py"):
            await supervisor.tending.load_adapter("tiny", name, f"/there/{name}")
        async with httpx2.AsyncClient(
            base_url=supervisor.info("tiny").base_url or "", trust_env=False, verify=False
        ) as client:
            (await client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})).raise_for_status()
        with pytest.raises(ConflictError, match="cannot be found"):
            await supervisor.tending.unload_adapter("tiny", "sql")
        assert supervisor.info("tiny").adapters == ("sql", "py")


async def test_a_name_is_taken_as_soon_as_its_adapter_is_being_loaded(open_supervisor: OpenSupervisor) -> None:
    """It was looked at before the engine loaded it, and given away meanwhile: clients knew two models by it."""
    async with ready(open_supervisor) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.tending.load_adapter, "tiny", "sql", "/slow/sql")
        await until_loading(supervisor, "sql")
        assert table_of(supervisor).of_model("sql") == (), "nobody is sent there before it is loaded"
        with pytest.raises(ConflictError, match=r"clients know 'tiny' .* as 'sql' already"):
            supervisor.start(quick(fake_engine_spec("other", names=("sql",))))
        await told(supervisor, "/fake/go-on")
        await until(supervisor, "tiny", lambda info: info.adapters == ("sql",))


async def test_a_name_is_free_again_when_its_adapter_was_refused(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        with pytest.raises(ConflictError, match="No adapter found"):
            await supervisor.tending.load_adapter("tiny", "sql", "/nowhere/sql")
        supervisor.start(quick(fake_engine_spec("other", names=("sql",))))


async def test_an_engine_that_hangs_holds_up_no_other(open_supervisor: OpenSupervisor) -> None:
    """There was one lock for all of them, for five minutes."""
    async with ready(open_supervisor) as supervisor, trio.open_nursery() as nursery:
        supervisor.start(attrs.evolve(SPEC, model="other", names=()), "other")
        assert (await supervisor.wait_until_settled("other")).state is EngineState.READY
        nursery.start_soon(supervisor.tending.load_adapter, "tiny", "sql", "/slow/sql")
        await until_loading(supervisor, "sql")
        await supervisor.tending.load_adapter("other", "py", "/there/py")
        assert supervisor.info("other").adapters == ("py",)
        await told(supervisor, "/fake/go-on")


async def test_an_engine_that_ends_meanwhile_fails_whoever_waits(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def load() -> None:
            with pytest.raises(UpstreamError, match="engine 'tiny': /v1/load_lora_adapter: "):
                await supervisor.tending.load_adapter("tiny", "sql", "/slow/sql")
            assert supervisor.info("tiny").adapters == ()

        await until_loading(supervisor, "sql")
        supervisor.stop("tiny", drain_timeout_seconds=0.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "no room"}}', "no room"),
        (b'["no", 7]', "['no', 7]"),
        (b"null", "None"),
        (b"\xff no", "\ufffd no"),
        (100_000 * b"[", "[[["),
        (b'{"error": ' + 900 * b"[" + 900 * b"]" + b"}", "[[["),
    ],
    ids=["openai", "a list", "nothing", "no text", "too deep", "deep"],
)
async def test_whatever_an_engine_says_in_refusal_is_told(body: bytes, words: str) -> None:
    async with answering(400, body) as caller:
        with pytest.raises(ConflictError, match=r"answered 400 to /load: ") as refused:
            await caller.post("/load")
    said = str(refused.value).partition("/load: ")[2]
    assert said.startswith(words)
    assert len(said) <= calls.SHOWN_CHARACTERS


@pytest.mark.parametrize("status", [200, 500])
async def test_of_an_answer_without_an_end_only_the_beginning_is_read(status: int) -> None:
    """It was kept in memory, all of it."""
    async with answering(status, 1024 * b"x", for_ever=True) as caller:
        if status == 200:
            await caller.post("/load")
        else:
            with pytest.raises(UpstreamError, match="answered 500 to /load: xxx"):
                await caller.post("/load")


@asynccontextmanager
async def answering(status: int, body: bytes, *, for_ever: bool = False) -> AsyncIterator[calls.Caller]:
    """A caller of an engine that answers like this, in chunks."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 %d So\r\ntransfer-encoding: chunked\r\n\r\n" % status)
            await stream.send_all(b"%x\r\n%b\r\n" % (len(body), body))
            while for_ever:
                await stream.send_all(b"%x\r\n%b\r\n" % (len(body), body))
            await stream.send_all(b"0\r\n\r\n")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, probe.make_client() as client:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            yield calls.Caller("tiny", client, f"http://127.0.0.1:{port}", {})
            nursery.cancel_scope.cancel()


async def test_only_a_ready_engine_that_was_started_for_it_can_be_put_to_sleep(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        supervisor.start(quick(fake_engine_spec("tiny")))
        with pytest.raises(ConflictError, match="is STARTING; this can only be done to a READY engine"):
            await supervisor.tending.sleep("tiny")
        await supervisor.wait_until_settled("tiny")
        with pytest.raises(ConflictError, match="can't sleep as it was started"):
            await supervisor.tending.sleep("tiny")
        with pytest.raises(ConflictError, match="can't change its adapters as it was started"):
            await supervisor.tending.load_adapter("tiny", "sql", "/there")
        with pytest.raises(NotFoundError, match="there is no engine 'nobody'"):
            await supervisor.tending.wake("nobody")


async def test_an_engine_that_breaks_off_is_told_by_name(open_supervisor: OpenSupervisor) -> None:
    async with ready(open_supervisor) as supervisor:
        incarnation = supervisor.crew.running("tiny", 1)
        assert incarnation is not None
        with pytest.raises(ConflictError, match="engine 'tiny' answered 404 to /nothing"):
            await incarnation.caller.post("/nothing")
        assert incarnation.plan is not None
        broken = attrs.evolve(incarnation.caller, base_url="http://127.0.0.1:1")
        with pytest.raises(UpstreamError, match="engine 'tiny': /sleep: "):
            await broken.post("/sleep")

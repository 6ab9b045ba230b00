"""Reading the configuration again, with real engines under it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from stoker import config
from stoker.core.reload import Difference
from stoker.errors import ConfigError, ConflictError
from stoker.gateway.routing import RoutingTable
from stoker.model import EngineSpec, EngineState
from stoker.operations import Ending, Operations
from stoker.plugins import build_registry, builtin
from stoker.supervise.supervisor import Supervisor
from stoker.testing.engines import fake_engine_env, fake_engine_spec

from ..supervise.conftest import OpenSupervisor, home, no_gpus, open_supervisor

__all__ = ["home", "open_supervisor"]

REGISTRY = build_registry(builtin())


def engine(label: str, model: str = "fake", **fields: object) -> str:
    """An ``[[engine]]`` table."""
    spec = fake_engine_spec(model)
    lines = {
        "label": label,
        "model": model,
        "runtime": "command",
        "command": list(spec.command),
        "stop_grace_seconds": 1,
        **fields,
    }
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fake_engine_env().items())
    return f"[[engine]]\n{table}\nenv = {{ {env} }}\n"


class Endless:
    """A program that is told to end by none of these tests."""

    def leave(self, ending: Ending, *, now: bool) -> None:
        raise NotImplementedError

    async def restart(self, *, now: bool) -> None:
        raise NotImplementedError


class File:
    """A ``stoker.toml`` that is written again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *tables: str) -> None:
        self.path.write_text("\n".join(tables))


@asynccontextmanager
async def started(supervisor: Supervisor, file: File) -> AsyncIterator[Operations]:
    operations = Operations(supervisor, REGISTRY, no_gpus, {}, Endless(), file.path)
    for engine_id in operations.start_configured(config.load(file.path)):
        assert (await supervisor.wait_until_settled(engine_id)).state is EngineState.READY
    yield operations


async def test_a_reload_touches_only_what_changed(open_supervisor: OpenSupervisor, tmp_path: Path) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("same"), engine("limit"), engine("args"), engine("gone"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        by_hand = supervisor.start(fake_engine_spec(), "by-hand")[0]
        await supervisor.wait_until_settled(by_hand)
        before = {info.engine_id: info.pid for info in supervisor.infos()}
        file.write(
            engine("same"),
            engine("limit", max_concurrency=3),
            engine("args", args=["--name", "alias"]),
            engine("new"),
        )
        difference = await operations.reload()
        assert difference == Difference(
            added=("new",), removed=("gone",), changed=("args",), updated=("limit",), unchanged=("same",)
        )
        assert await supervisor.wait_until_stopped("gone") is None
        for engine_id in ("args", "new"):
            assert (await supervisor.wait_until_settled(engine_id)).state is EngineState.READY
        after = {info.engine_id: info.pid for info in supervisor.infos()}
        assert {name for name in before if after.get(name) == before[name]} == {"same", "limit", by_hand}
        assert supervisor.info("limit").max_concurrency == 3


async def test_a_reload_with_a_mistake_changes_nothing(open_supervisor: OpenSupervisor, tmp_path: Path) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("one"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        before = supervisor.infos()
        file.write(engine("two", runtime="vlm"), engine("three", command=[]))
        with pytest.raises(ConfigError) as caught:
            await operations.reload()
        assert [mistake.path for mistake in caught.value.mistakes] == ["engine[0].runtime", "engine[1]"]
        file.write('scheduler = "none"\n[gateway]\npolicy = "round-robbin"\n')
        with pytest.raises(ConfigError, match="no policy 'round-robbin'"):
            await operations.reload()
        file.write("[[engine]\n")
        with pytest.raises(ConfigError):
            await operations.reload()
        assert [info.pid for info in supervisor.infos()] == [info.pid for info in before]


async def test_a_model_can_be_replaced_under_its_name_but_a_name_not_taken(
    open_supervisor: OpenSupervisor, tmp_path: Path
) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("old", model="m1", names=["chat"]))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        file.write(engine("new", model="m2", names=["chat"]))
        assert (await operations.reload()).added == ("new",)
        assert (await supervisor.wait_until_settled("new")).state is EngineState.READY
        supervisor.start(fake_engine_spec("m3"), "by-hand")
        file.write(engine("new", model="m2", names=["chat", "m3"]))
        with pytest.raises(ConfigError, match="know 'm3'"):
            await operations.reload()


async def test_an_id_is_never_moved_aside(open_supervisor: OpenSupervisor, tmp_path: Path) -> None:
    """An engine that was renamed around another one would be restarted under its own name when that one goes."""
    file = File(tmp_path / "stoker.toml")
    file.write(engine("one"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        supervisor.start(fake_engine_spec(), "two")
        file.write(engine("one"), engine("two"))
        with pytest.raises(ConfigError, match="the id 'two' is another engine's; stop and forget that one"):
            await operations.reload()
        supervisor.stop("two", forget=True)
        assert await supervisor.wait_until_stopped("two") is None
        assert (await operations.reload()).added == ("two",)


async def test_more_replicas_and_a_quick_change_of_mind_rename_and_restart_nothing(
    open_supervisor: OpenSupervisor, tmp_path: Path
) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("one"), engine("two"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        first = supervisor.info("one").pid
        file.write(engine("one", replicas=2))
        assert await operations.reload() == Difference(added=("one-2",), removed=("two",), unchanged=("one",))
        assert supervisor.info("two").state is EngineState.DRAINING
        file.write(engine("one", replicas=2), engine("two"))
        assert (await operations.reload()).added == ("two",)
        assert await operations.reload() == Difference(unchanged=("one", "one-2", "two"))
        for engine_id in ("one-2", "two"):
            assert (await supervisor.wait_until_settled(engine_id)).state is EngineState.READY
        assert supervisor.info("one").pid == first


async def test_without_a_file_there_is_nothing_to_read_again(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        with pytest.raises(ConflictError, match="without a configuration file"):
            await Operations(supervisor, REGISTRY, no_gpus, {}, Endless()).reload()


async def test_nothing_is_started_once_it_leaves(open_supervisor: OpenSupervisor) -> None:
    async with open_supervisor() as supervisor:
        (engine_id,) = supervisor.start(fake_engine_spec())
        await supervisor.wait_until_settled(engine_id)
        supervisor.leave()
        with pytest.raises(ConflictError, match="shutting down"):
            supervisor.start(EngineSpec(model="m", runtime="command", command=("x", "{port}")))
        with pytest.raises(ConflictError, match="shutting down"):
            supervisor.restart(engine_id)
        with trio.fail_after(20):
            await supervisor.wait_until_all_stopped()
        assert supervisor.info(engine_id).state is EngineState.STOPPED


async def test_a_reload_says_what_only_a_new_start_takes_up(open_supervisor: OpenSupervisor, tmp_path: Path) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("a"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        file.write(
            'scheduler = "none"', "[gateway]\nqueue_size = 3", '[runtime.vllm]\npython = "/v/python"', engine("a")
        )
        assert await operations.reload() == Difference(
            unchanged=("a",), at_next_start=("gateway.queue_size", "runtime.vllm", "scheduler")
        )
        file.write(engine("a"))
        assert await operations.reload() == Difference(unchanged=("a",))


async def test_another_policy_for_a_model_needs_no_restart(open_supervisor: OpenSupervisor, tmp_path: Path) -> None:
    file = File(tmp_path / "stoker.toml")
    file.write(engine("a"), engine("b"))
    async with open_supervisor() as supervisor, started(supervisor, file) as operations:
        pids = {info.engine_id: info.pid for info in supervisor.infos()}
        file.write(engine("a", policy="random"), engine("b", policy="random"))
        assert await operations.reload() == Difference(updated=("a", "b"))
        table = supervisor.traffic
        assert isinstance(table, RoutingTable)
        assert {backend.policy for backend in table.models()} == {"random"}
        assert {info.engine_id: info.pid for info in supervisor.infos()} == pids
        file.write(engine("a", policy="random"), engine("b", policy="rondom"))
        with pytest.raises(ConfigError, match=r"engine\[1\]\.policy: 'rondom' is not 'random'"):
            await operations.reload()
        file.write("[policy.round-robin]", engine("a"), engine("b"))
        assert await operations.reload() == Difference(updated=("a", "b"), at_next_start=("policy.round-robin",))

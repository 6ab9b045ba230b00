"""Streams without a pause while engines are killed at random; with ``STOKER_SOAK=1`` 200 at once for half an hour."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import trio

from tests.e2e.running import Program, until

from .crowd import ANSWERED, BROKEN, LOST, WHOLE, Crowd
from .fleet import ask, descriptors, engine, fake_state, fleet, resident_bytes

MIB = 1024 * 1024
MORE_MEMORY = 16 * MIB
MORE_DESCRIPTORS = 4  # a connection to each engine
WAYS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)  # at the last a fake engine exits with code 0, streams or not


@attrs.frozen
class Load:
    """How long, how many, and how often an engine is killed."""

    seconds: float
    warm_up_seconds: float
    streams: int
    most_tokens: int
    token_seconds: float
    killed_every_seconds: float


LONG = Load(1800, 60, 200, 100, 0.2, 5)
SHORT = Load(35, 8, 40, 20, 0.05, 3)
ENGINES = engine(
    *("--token-seconds", "{{}}"),
    replicas=4,
    stall_seconds=3,
    healthy_seconds=1,
    probe_failures=3,
    max_concurrency=200,
)


@attrs.frozen
class Size:
    """How big the gateway is while it has nothing to do."""

    memory: int
    descriptors: int

    @classmethod
    def of(cls, program: Program) -> Size:
        pid = program.process.pid
        return cls(resident_bytes(pid), descriptors(pid))


def status(program: Program) -> Mapping[str, Any]:
    return dict(program.manage("GET", "/status").json())


def is_quiet(program: Program) -> bool:
    """Whether every engine is READY, and nobody holds a lease, by anybody's account."""
    engines, queue = program.engines(), status(program)["queue"]
    if {info["state"] for info in engines} != {"READY"} or queue["in_flight"] or queue["waiting"]:
        return False
    try:
        return all(info["active_requests"] == fake_state(info)["active"] == 0 for info in engines)
    except httpx2.HTTPError:  # it was killed a moment ago
        return False


async def kill_at_random(program: Program, chance: random.Random, every_seconds: float, kills: Counter[str]) -> None:
    """Until cancelled, do something to one READY engine after the other."""
    while True:
        await trio.sleep(chance.uniform(0, 2 * every_seconds))
        ready = [info for info in await trio.to_thread.run_sync(program.engines) if info["state"] == "READY"]
        if ready:
            way = chance.choice(WAYS)
            kills[way.name] += program.signal_engine(chance.choice(ready)["pid"], way)


async def soak(program: Program, load: Load, chance: random.Random) -> tuple[Crowd, Counter[str], Size, Size]:
    """The warm-up, and then the load. How big the gateway was between the two, and after."""

    at_start = Size.of(program)

    def quiet() -> Size | None:
        if not is_quiet(program) or ask(program).status_code != httpx2.codes.OK:  # which clears away idle connections
            return None
        size = Size.of(program)
        return size if size.descriptors <= at_start.descriptors + MORE_DESCRIPTORS else None

    async def settle() -> Size:
        return await trio.to_thread.run_sync(until, quiet, "it is as quiet as before, and holds no more descriptors")

    warm_up = Crowd(program.url, chance)
    kills: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_at_random, program, chance, load.killed_every_seconds, Counter[str]())
        await warm_up.ask_on(load.streams, load.warm_up_seconds, load.most_tokens)
        nursery.cancel_scope.cancel()
    before = await settle()
    crowd = Crowd(program.url, chance)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_at_random, program, chance, load.killed_every_seconds, kills)
        await crowd.ask_on(load.streams, load.seconds, load.most_tokens)
        nursery.cancel_scope.cancel()
    return crowd, kills, before, await settle()


async def test_nothing_is_cut_silently_and_nothing_leaks_while_engines_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = LONG if os.environ.get("STOKER_SOAK") == "1" else SHORT
    seed = int(os.environ.get("STOKER_SOAK_SEED") or random.randrange(10**6))
    with capsys.disabled():
        print(f"\nsoak: STOKER_SOAK_SEED={seed}, {load}")  # noqa: T201 - so that a failure can be repeated
    config = ENGINES.replace("{{}}", str(load.token_seconds))
    with fleet(tmp_path, config) as program:
        program.wait_until_ready(4)
        crowd, kills, before, after = await soak(program, load, random.Random(seed))
        counters = status(program)["counters"]
        restarts = [info["restarts"] for info in program.engines()]
    with capsys.disabled():
        print(  # noqa: T201 - the figures
            f"soak: {crowd.outcomes.total()} streams ({dict(crowd.outcomes)}), {crowd.tokens} tokens, kills "
            f"{dict(kills)}, restarts {restarts}; resident {before.memory / MIB:.1f} -> {after.memory / MIB:.1f} MiB, "
            f"descriptors {before.descriptors} -> {after.descriptors}; counters {counters}"
        )
    assert crowd.outcomes[WHOLE] > crowd.outcomes[BROKEN] > 0
    assert crowd.outcomes[ANSWERED] > 20 * crowd.outcomes[LOST], "what is not streamed is tried again"
    assert kills.total() > 0
    assert after.memory - before.memory < MORE_MEMORY

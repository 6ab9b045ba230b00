"""A client that is closed, or that nobody holds any more, leaves no thread and no socket."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from stoker import AsyncUnifiedInferenceClient, UnifiedInferenceClient
from stoker.client import ClientError
from stoker.testing.engines import fake_engine_env
from tests.e2e.running import Program, until
from tests.faults.fleet import change_faults, fake_state, info_of

from .conftest import Create

# What a program is that forgets to close: with a stream that it has not read, too.
FORGETFUL = """
from stoker import UnifiedInferenceClient

client = UnifiedInferenceClient.create(default_model="fake", direct=True)
print(client.chat("one", max_tokens=1))
stream = client.chat("one two", max_tokens=200, stream=True)
print(next(stream))
"""


def sockets() -> set[str]:
    """The sockets that this process has open."""
    held = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            held.add(str(entry.readlink()))
        except FileNotFoundError:  # that of the listing itself
            continue
    return {each for each in held if each.startswith(("socket:", "anon_inode:"))}


def use(client: Any) -> None:
    """Do a bit of everything."""
    client.chat("one", model="fake")
    client.embed(["text"] * 100, model="vectors")
    list(client.chat("one", model="fake", stream=True))
    client.engines()


@pytest.mark.parametrize("direct", [False, True])
def test_a_client_that_was_closed(here: Program, create: Create, direct: bool) -> None:
    gc.collect()
    threads, before = set(threading.enumerate()), sockets()
    with create(direct=direct) as client:
        use(client)
        stream = client.chat("one two", model="fake", stream=True)
        next(iter(stream))
    del stream
    gc.collect()
    assert set(threading.enumerate()) == threads
    assert sockets() == before


def test_a_client_that_nobody_holds_any_more(here: Program) -> None:
    threads, before = set(threading.enumerate()), sockets()
    client = UnifiedInferenceClient.create(direct=True)
    use(client)
    assert len(set(threading.enumerate()) - threads) == 1
    stream = client.chat("one two", model="fake", max_tokens=3, stream=True)
    del client
    gc.collect()
    assert list(stream) == ["one", " two", " one"]  # who has a stream has its client
    del stream
    gc.collect()
    assert set(threading.enumerate()) == threads
    assert sockets() == before


def test_it_may_be_closed_twice_and_is_of_no_use_then(here: Program) -> None:
    client = UnifiedInferenceClient.create(direct=True)
    client.chat("one", model="fake")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.chat("one", model="fake")
    assert "stoker-client" not in {thread.name for thread in threading.enumerate()}


def test_a_stream_that_nobody_holds_any_more_ends_the_engines_work(here: Program) -> None:
    info = info_of(here)
    change_faults(info, token_seconds=0.05)
    try:
        with UnifiedInferenceClient.create() as client:
            for piece in client.chat("one", max_tokens=2000, stream=True):
                assert piece == "one"
                break
            until(lambda: fake_state(info)["active"] == 0, "the engine works for nobody any more")
    finally:
        change_faults(info, token_seconds=0)


def test_a_program_that_forgets_to_close_ends_all_the_same(here: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORGETFUL],
        env={**os.environ, **fake_engine_env()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\none\n", "")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio tells of what a loop left when it ended
@pytest.mark.parametrize("direct", [False, True])
def test_a_client_goes_on_on_another_event_loop(here: Program, direct: bool) -> None:
    """The second `asyncio.run` of a program got "Event loop is closed" from a connection of the first."""
    client = AsyncUnifiedInferenceClient.create(default_model="fake", direct=direct)

    async def ask() -> str:
        return await client.chat("one", max_tokens=1)

    async def ask_and_close() -> str:
        async with client:
            return await client.chat("one", max_tokens=1)

    assert [asyncio.run(ask()), asyncio.run(ask()), trio.run(ask), asyncio.run(ask_and_close())] == ["one"] * 4
    with pytest.raises(RuntimeError, match="closed"):
        trio.run(ask)
    gc.collect()


# Cancellation, on either event loop


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_call_ends_the_engines_work(here: Program, backend: str, direct: bool, stream: bool) -> None:
    info = info_of(here)
    change_faults(info, **({"token_seconds": 0.05} if stream else {"first_token_seconds": 1000}))

    async def main() -> None:
        async with AsyncUnifiedInferenceClient.create(default_model="fake", direct=direct) as client:

            async def ask() -> None:
                if not stream:
                    await client.chat("one")
                    return
                async for _ in await client.chat("one", max_tokens=2000, stream=True):
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await reaches(1)
                tasks.cancel_scope.cancel()
            await reaches(0)

    async def reaches(count: int) -> None:
        await anyio.to_thread.run_sync(lambda: until(lambda: fake_state(info)["active"] == count, f"{count} active"))

    try:
        anyio.run(main, backend=backend)
    finally:
        change_faults(info, token_seconds=0, first_token_seconds=0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_ends_the_block_is_not_put_into_a_group(here: Program, backend: str) -> None:
    async def main() -> None:
        async with AsyncUnifiedInferenceClient.create(direct=True) as client:
            await client.chat("one", model="nobody")

    with pytest.raises(ClientError):
        anyio.run(main, backend=backend)


async def test_without_a_block_it_finds_engines_when_it_needs_them(here: Program) -> None:
    client = AsyncUnifiedInferenceClient.create(default_model="fake", direct=True)
    try:
        assert (await client.chat("one", max_tokens=1, return_result=True)).engine == "fake"
        with trio.move_on_after(0) as scope:
            await client.chat("one")
        assert scope.cancelled_caught
    finally:
        await client.aclose()

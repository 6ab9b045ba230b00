"""Ways to have a :mod:`~stoker.testing.fake_engine`: as a spec for a supervisor to start, or started here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import attrs
import httpx2
import trio

from stoker.model import EngineSpec
from stoker.testing.fake_engine.faults import Faults

NO_FAULTS = Faults()
LISTENING = re.compile(rb"listening on .*:(\d+)\n")
COMMAND = (sys.executable, "-m", "stoker.testing.fake_engine")


def fake_engine_env() -> Mapping[str, str]:
    """What a new Python needs to find this Stoker and what it stands on, be it a folder, installed, or one file."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def fake_engine_spec(
    model: str = "fake",
    *,
    names: tuple[str, ...] = (),
    kind: str = "llm",
    faults: Faults = NO_FAULTS,
    **fields: Any,
) -> EngineSpec:
    """A spec that the ``command`` runtime starts as a fake engine. ``fields`` are more fields of the spec."""
    aliases = [word for name in names for word in ("--name", name)]
    words = ("--host", "{host}", "--port", "{port}", "--model", "{model}", "--kind", kind)
    return EngineSpec(
        model=model,
        names=names,
        kind=kind,
        runtime="command",
        command=(*COMMAND, *words),
        args=(*aliases, *faults.flags()),
        env={**fake_engine_env(), **fields.pop("env", {})},
        **fields,
    )


@attrs.frozen(kw_only=True)
class RunningFakeEngine:
    """A fake engine that was started here, and the ways to ask it what it saw."""

    base_url: str
    port: int
    process: trio.Process

    @property
    def pid(self) -> int:
        """Of its main process."""
        return self.process.pid

    async def state(self) -> Mapping[str, Any]:
        """``/fake/state``."""
        return await self._ask("GET", "/fake/state")

    async def requests(self) -> list[Mapping[str, Any]]:
        """``/fake/requests``: the last inference requests, oldest first."""
        answer = await self._ask("GET", "/fake/requests")
        return list(answer["requests"])

    async def change_faults(self, **changes: object) -> None:
        """Change some faults while it runs; the others stay. Returns when they hold."""
        await self._ask("POST", "/fake/faults", changes)

    async def clear_faults(self) -> None:
        """From now on nothing goes wrong."""
        await self._ask("DELETE", "/fake/faults")

    def kill(self) -> None:
        """SIGKILL to its main process."""
        self.process.kill()

    async def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        async with httpx2.AsyncClient(base_url=self.base_url, timeout=30, trust_env=False, verify=False) as client:
            answer = await client.request(method, path, json=body)
            answer.raise_for_status()
            return dict(answer.json())


@asynccontextmanager
async def open_fake_engine(
    model: str = "fake",
    *,
    names: tuple[str, ...] = (),
    kind: str = "llm",
    port: int = 0,
    faults: Faults = NO_FAULTS,
) -> AsyncIterator[RunningFakeEngine]:
    """A fake engine that listens when the block begins; it and all it left behind are gone when the block ends.

    Raises :class:`RuntimeError` with what it printed when it ends instead of listening.
    """
    aliases = [word for name in names for word in ("--name", name)]
    words = [*COMMAND, "--stop-with-stdin", "--port", str(port), "--model", model, "--kind", kind, *aliases]
    process = await trio.lowlevel.open_process(
        [*words, *faults.flags()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **fake_engine_env()},
        start_new_session=True,
    )
    try:
        port = await _listening_port(process)
        engine = RunningFakeEngine(base_url=f"http://127.0.0.1:{port}", port=port, process=process)
        with _killed_in_the_end(await _children(engine, faults)):
            yield engine
    finally:
        if process.returncode is None:  # else it is reaped, and the group of that number may be a stranger's
            _kill(-process.pid)
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


async def _listening_port(process: trio.Process) -> int:
    assert process.stdout is not None
    printed = b""
    async for piece in process.stdout:
        printed += piece
        if found := LISTENING.search(printed):
            return int(found[1])
    await process.wait()
    raise RuntimeError(f"the fake engine ended with {process.returncode}: {printed.decode(errors='replace')}")


async def _children(engine: RunningFakeEngine, faults: Faults) -> list[int]:
    if not (faults.child or faults.setsid_grandchild or faults.double_fork):
        return []
    return list((await engine.state())["children"])


@contextmanager
def _killed_in_the_end(pids: Sequence[int]) -> Iterator[None]:
    """Whoever has these pids now. Others may have them in the end."""
    if not hasattr(os, "pidfd_open"):  # macOS
        try:
            yield
        finally:
            for pid in pids:
                _kill(pid)
        return
    with ExitStack() as stack:
        for pid in pids:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                stack.callback(_kill_by, handle)
        yield


def _kill_by(handle: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

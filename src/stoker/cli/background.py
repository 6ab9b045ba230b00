"""Starts a gateway in the background, and ends one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stoker.cli.activity import Activity
from stoker.cli.client import Client
from stoker.cli.finding import Address, RunningGateway, address_of, read_gateway
from stoker.cli.invocation import command, program
from stoker.errors import StokerError
from stoker.home import Home
from stoker.supervise import proctable
from stoker.supervise.logs import open_for_append, tail

LAST_LINES = 20
RESTART_CHECK_SECONDS = 90.0  # the new file is tried first
KEPT = ("--listen", "--certfile", "--keyfile", "--plugin-path", "--log-format")


def launch(home: Home, arguments: Sequence[str], folder: Path | None = None) -> RunningGateway:
    """Run Stoker with ``arguments`` in a session of its own, in ``folder`` if given; returns when it answers.

    Raises StokerError with the end of its log when it ends instead. An interrupt ends it too.
    """
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home.gateway_log
    log = open_for_append(path)
    try:
        since = os.fstat(log).st_size
        process = subprocess.Popen(
            [*command(), *arguments],
            cwd=folder,
            env={**os.environ, "STOKER_HOME": str(home.path)},  # one that is relative means a folder of ours
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        with Activity("starting the gateway") as activity:
            while (running := _answering(home, process.pid)) is None:
                if process.poll() is not None:
                    lines = tail(path, LAST_LINES, since=since).strip()
                    raise StokerError(
                        f"the gateway did not start (exit code {process.returncode}):\n{lines or _unlogged(path)}"
                    )
                activity.update()
                activity.pause()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    process.returncode = 0  # it is meant to outlive us; Popen would warn of a child that nobody waited for
    return running


def _unlogged(path: Path) -> str:
    return f"it could not even log why; see whether the disk of {path} is full, or run it here with: {program()} up"


def _answering(home: Home, pid: int) -> RunningGateway | None:
    running = read_gateway(home)
    if running is None or running.pid != pid:
        return None
    return running if _is_healthy(running) else None


def _is_healthy(running: RunningGateway) -> bool:
    try:
        with Client(Address(running.url, certfile=running.certfile)) as client:
            return client.is_healthy()
    except StokerError:
        return False


def leave(home: Home, running: RunningGateway, *, now: bool) -> None:
    """Tell a gateway to stop, and wait until it is gone. ``now`` also tells it not to wait for requests.

    A gateway that is stopping already is not told again, which would hurry it, unless ``now`` wants that.
    """
    hint = "" if now else f"; to hurry: {program()} gateway stop --now"
    with Activity("stopping the gateway") as activity:
        if not _is_leaving(home, running):
            _send(running, signal.SIGTERM)
        if now:
            _send(running, signal.SIGINT)  # another signal: two equal ones may become one
        while running.alive:
            activity.update(f"requests under way are finished first{hint}")
            activity.pause()


def leave_engines(home: Home, running: RunningGateway, *, now: bool) -> None:
    """Have a gateway end without its engines, and wait until it is gone. Raises StokerError where it can't be told."""
    with Client(address_of(home, running, os.environ)) as client:
        client.post("/gateway/stop", {"keep_engines": True, "now": now})
    with Activity("stopping the gateway") as activity:
        while running.alive:
            activity.update("requests under way are finished first")
            activity.pause()


def replace(home: Home, running: RunningGateway, *, now: bool) -> RunningGateway:
    """Have a gateway become its successor, and wait until that answers. Raises StokerError where it does not."""
    with Client(address_of(home, running, os.environ)) as client:
        client.post("/gateway/restart", {"now": now}, patience_seconds=RESTART_CHECK_SECONDS)
    with Activity("restarting the gateway") as activity:
        while running.alive:
            later = read_gateway(home)
            if later is not None and later.started_at != running.started_at and _is_healthy(later):
                return later
            activity.update("requests under way are finished first")
            activity.pause()
    lines = tail(home.gateway_log, LAST_LINES).strip()
    raise StokerError(f"the gateway ended, and its successor did not start; its engines run on:\n{lines}")


def _is_leaving(home: Home, running: RunningGateway) -> bool:
    try:
        with Client(address_of(home, running, os.environ)) as client:
            return bool(client.get("/status").get("shutting_down"))
    except StokerError:  # it can't say, so it is told
        return False


def _send(running: RunningGateway, number: signal.Signals) -> None:
    """Signal exactly that process: a later bearer of its pid is never hit."""
    if not proctable.HAS_PROC:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, number)
        return
    entry = proctable.read_entry(running.pid)
    if entry is not None and entry.started == running.process_start:
        proctable.send([entry], number)


def folder_of(running: RunningGateway) -> Path | None:
    """The folder a gateway runs in, where its engines run too unless they have one of their own; None if it is gone."""
    try:
        folder = Path(f"/proc/{running.pid}/cwd").readlink()
    except OSError:
        return None
    return folder if folder.is_dir() else None


def arguments_of(running: RunningGateway) -> list[str]:
    """The arguments that start such a gateway again, from any folder. Raises StokerError for one that is no ``up``."""
    given = list(running.argv[1:])
    if given[:1] != ["up"]:
        raise StokerError(
            f"the gateway was started with {' '.join(given)!r}, which does not run in the background; "
            f"stop it with: {program()} gateway stop"
        )
    arguments = ["up"]
    if running.config is not None:
        arguments += ["--config", running.config]
    for index, word in enumerate(given):
        if word in KEPT and given[index + 1 :]:
            arguments += [word, given[index + 1]]
        elif word == "--strict" or word.startswith(tuple(f"{flag}=" for flag in KEPT)):
            arguments.append(word)
    return arguments

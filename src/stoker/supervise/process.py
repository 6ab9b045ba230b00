"""One engine's process tree: spawned in a session of its own, waited for by pidfd, stopped until nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import ExitStatus
from stoker.supervise import proctable
from stoker.supervise.executable import why_not, why_refused
from stoker.supervise.logs import open_for_append
from stoker.supervise.shortage import is_shortage

T = TypeVar("T")

REPEAT_TERM_SECONDS = 2.0  # vLLM loses a SIGTERM while it starts, and obeys a second one
UNKILLABLE_SECONDS = 30.0  # a process in uninterruptible sleep can't be waited for for ever


@attrs.define(eq=False)
class EngineProcess:
    """A running process tree. ``started`` is in clock ticks since boot, and 0 where that can't be known.

    Its first process, if it is a child of ours, is not reaped before a :meth:`stop` is over. Until then its pid is
    nobody else's, and neither is the group or the session of that number.

    Made by :func:`spawn`, or by :func:`adopt`. Whoever made it calls :meth:`stop` in the end, or leaves it to a later
    Stoker.
    """

    pid: int
    mark: str
    started: int
    _popen: subprocess.Popen[bytes] | None
    _status: ExitStatus | None = None
    _reaped: bool = False
    _grace: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _seen: set[int] = attrs.field(factory=set)
    # Its own, so that a stop never queues behind whatever else (a hung driver, a slow resolver) holds Trio's threads.
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @property
    def seen(self) -> frozenset[int]:
        """The pids of every member that a stop came across."""
        return frozenset(self._seen)

    @property
    def status(self) -> ExitStatus | None:
        """How the first process of the tree ended, as soon as a wait or a stop saw it end."""
        return self._status

    async def wait(self) -> ExitStatus:
        """Wait until the first process of the tree ends, and say how. Cancelling stops only the waiting."""
        self._look()
        while self._status is None:
            handle = self._open_pidfd()
            if handle is None:
                await trio.sleep(0.1)
            else:
                await self._wait_by_pidfd(handle)
            self._look()
        return self._status

    def _open_pidfd(self) -> int | None:
        """None where there are none (macOS), none are left, or it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return None
        try:
            if self._popen is not None or self._is_there():  # a child of ours keeps its pid until it is reaped
                return handle
        except OSError as error:
            if not is_shortage(error):
                raise
        os.close(handle)
        return None

    async def _wait_by_pidfd(self, handle: int) -> None:
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)

    def _look(self) -> bool:
        """See whether it has ended. Says whether it is a child of ours, that keeps its pid until it is reaped."""
        if self._reaped:
            return False
        try:
            if self._popen is None and self._entry() is None:  # its pid may be that of another child by now
                self._status = self._status or ExitStatus()
                return False
            ended = _end_of(self.pid)
        except ChildProcessError:  # one of an earlier Stoker
            self._look_from_afar()
            return False
        except OSError as error:
            if not is_shortage(error):
                raise
            return False  # nothing can be seen at this moment
        self._status = self._status or ended
        return True

    def _look_from_afar(self) -> None:
        """Of one that is no child it can only be seen that it ended."""
        try:
            if not self._is_there():
                self._status = self._status or ExitStatus()
        except OSError as error:
            if not is_shortage(error):
                raise

    def _reap(self) -> None:
        """Let go of its pid, if it has ended."""
        is_child = self._look()
        if self._status is None or self._reaped:
            return
        self._reaped = True
        if self._popen is not None:
            self._popen.poll()
        elif is_child:  # its Stoker became another program, us
            os.waitpid(self.pid, os.WNOHANG)

    def _is_there(self) -> bool:
        entry = self._entry()
        return entry is not None and not entry.gone

    def _entry(self) -> proctable.ProcessEntry | None:
        """Its own, and not that of a later bearer of its pid."""
        entry = proctable.read_entry(self.pid)
        return entry if entry is not None and entry.started == self.started else None

    def let_go(self) -> None:
        """It outlives us: nobody is to warn of a child that was not waited for."""
        self._reap()
        if self._popen is not None and not self._reaped:
            self._popen.returncode = 0

    async def left(self) -> int:
        """How many processes of the tree there are now."""
        return len(await self._members() or await self._members())  # a process can fork past one look, see _kill

    def hurry(self, grace_seconds: float) -> None:
        """Let a :meth:`stop` that is under way come to SIGKILL sooner; never later."""
        self._grace.deadline = min(self._grace.deadline, trio.current_time() + grace_seconds)

    async def stop(self, grace_seconds: float) -> str:
        """SIGTERM to the group, grace, then SIGKILL to every member. Returns when nothing is left.

        The result is empty, or says which processes could not be killed. Not to be cancelled: shield it.
        """
        self.hurry(grace_seconds)
        with self._grace:
            await self._terminate()
        await self._kill()
        note = await self._verify()
        self._reap()
        return note

    async def _terminate(self) -> None:
        while True:
            await self._signal(signal.SIGTERM)
            await self._signal(signal.SIGCONT)  # whoever is stopped hears it no earlier
            with trio.move_on_after(REPEAT_TERM_SECONDS):
                await self.wait()
                while await self._members():
                    await trio.sleep(0.05)
                return

    async def _kill(self) -> None:
        with trio.move_on_after(UNKILLABLE_SECONDS):
            await self._signal(signal.SIGKILL)
            empty_in_a_row = 0
            while empty_in_a_row < 2:  # a scan is not atomic: a process can fork past it once
                left = await self._members()
                empty_in_a_row = 0 if left else empty_in_a_row + 1
                # One by one: a group's signal misses whoever left the group.
                await self._patiently(partial(proctable.send, left, signal.SIGKILL))
                await trio.sleep(0.01 if left else 0)
            await self.wait()

    async def _verify(self) -> str:
        left = await self._members()
        if not left:
            return ""
        pids = ", ".join(f"{entry.pid} (state {entry.state})" for entry in left)
        return f"could not be killed within {UNKILLABLE_SECONDS:g} s: {pids}"

    async def _signal(self, number: signal.Signals) -> None:
        """To its group while it lives: what it started elsewhere is its to end. Then to every member."""
        is_child = self._look()
        if is_child and self._status is None:
            proctable.signal_group(self.pid, number)
            return
        members = await self._members()
        if self._status is None:
            members = [entry for entry in members if entry.group == self.pid]
        await self._patiently(partial(proctable.send, members, number))

    async def _patiently(self, look: Callable[[], T]) -> T:
        """Do something with the process table, in a thread. A shortage of ours passes; a stop has to be verified."""
        while True:
            try:
                return await trio.to_thread.run_sync(look, limiter=self._threads)
            except OSError as error:
                if not is_shortage(error):
                    raise
                await trio.sleep(0.1)

    async def _members(self) -> list[proctable.ProcessEntry]:
        if not proctable.HAS_PROC:
            self._look()
            return []
        found = await self._patiently(partial(proctable.members, self.pid, self.mark.__eq__, self.started))
        self._seen.update(entry.pid for entry in found)
        return found


def spawn(argv: Sequence[str], env: Mapping[str, str], cwd: str | None, log: Path, mark: str) -> EngineProcess:
    """Start ``argv`` with ``log`` as its stdout and stderr and the marker in its environment. Blocks; use a thread.

    Raises :class:`LaunchError`; the permanent kind where the executable or the folder is not there.
    """
    if cwd is not None and not Path(cwd).is_dir():
        raise PermanentLaunchError(f"the working folder {cwd!r} does not exist; create it or change `cwd`")
    if wrong := why_not(argv[0], env, cwd):
        raise PermanentLaunchError(wrong)
    output = open_for_append(log)
    try:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, proctable.MARK_VARIABLE: mark},
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError) or error.errno == errno.ENOEXEC:
            raise PermanentLaunchError(why_refused(argv[0], error, env, cwd)) from error
        raise LaunchError(f"{argv[0]!r} can't be started: {error}") from error
    except ValueError as error:
        raise LaunchError(f"{argv[0]!r} can't be started: {error}") from error
    finally:
        os.close(output)
    entry = proctable.read_entry(popen.pid) if proctable.HAS_PROC else None
    return EngineProcess(popen.pid, mark, 0 if entry is None else entry.started, popen)


def adopt(pid: int, started: int, mark: str) -> EngineProcess:
    """The process tree that an earlier Stoker started, and that :mod:`~stoker.supervise.adoption` found again."""
    return EngineProcess(pid, mark, started, None)


def _end_of(pid: int) -> ExitStatus | None:
    """How a child ended, which is not reaped by that; None while it runs. Raises ChildProcessError for no child."""
    if not hasattr(os, "waitid"):  # macOS, under a Python before 3.13: to be looked at is to be reaped
        ended, status = os.waitpid(pid, os.WNOHANG)
        return _status_of(os.waitstatus_to_exitcode(status)) if ended else None
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return _status_of(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)


def _status_of(code: int) -> ExitStatus:
    return ExitStatus(signal=-code) if code < 0 else ExitStatus(code=code)

"""How Stoker becomes its successor: the same process, running whatever the file is by now.

``exec`` keeps the pid, so that terminals, shells and service managers notice nothing, and engines stay our children.
Two descriptors come along: the lock of the home, so that nobody gets in between, and the listening socket, in whose
backlog clients wait meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

import attrs

from stoker.errors import StokerError

VARIABLE = "STOKER_HANDED_OVER"
CHECK_SECONDS = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@attrs.frozen
class Inheritance:
    """The descriptors that a predecessor left us; None where there was none."""

    listener: int | None = None
    lock: int | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Inheritance:
        """What ``environ`` tells of; it tells it once."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return cls()
        try:
            about = json.loads(text)
            return cls(int(about["listener"]), int(about["lock"]))
        except (ValueError, TypeError, KeyError):
            return cls()  # not from us

    def listener_at(self, host: str, port: int) -> socket.socket | None:
        """The predecessor's listening socket, if it is where we shall listen; else it is closed."""
        if self.listener is None:
            return None
        try:
            inherited = socket.socket(fileno=self.listener)
        except OSError:
            return None
        with contextlib.ExitStack() as stack:
            stack.callback(inherited.close)
            there = inherited.getsockname()[:2]
            if (
                there[0] == host
                and port in (0, there[1])
                and inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            ):
                stack.pop_all()
                os.set_inheritable(inherited.fileno(), False)  # noqa: FBT003 - the standard library takes it so
                inherited.setblocking(False)  # noqa: FBT003 - the standard library takes it so
                return inherited
        return None


@attrs.frozen
class Successor:
    """What runs after us: ``command`` is Stoker without its arguments, ``arguments`` are ours."""

    command: Sequence[str]
    arguments: Sequence[str]

    def check(self, config: Path | None) -> None:
        """See that the file runs, and takes the configuration. Blocks. Raises :class:`StokerError` if not."""
        wanted = [*self.command, "config", "check", *(["--config", str(config)] if config else [])]
        if config is None:
            wanted = [*self.command, "--version"]
        try:
            done = subprocess.run(
                wanted, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StokerError(f"the new Stoker does not run, and so the old one stays: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise StokerError(f"the new Stoker would not start, and so the old one stays: {said}")

    def take_over(self, listener: socket.socket, lock: int, variables: Mapping[str, str]) -> None:
        """Become it, with ``variables`` besides our own. Returns only by raising :class:`StokerError`: then nothing
        serves any more.
        """
        for descriptor in (listener.fileno(), lock):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library takes it so
        handed = json.dumps({"listener": listener.fileno(), "lock": lock})
        argv = [*self.command, *self.arguments]
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # one that comes now is for the successor
        try:
            os.execve(argv[0], argv, {**os.environ, **variables, VARIABLE: handed})  # noqa: S606 - argv, as ours was
        except OSError as error:
            raise StokerError(f"{argv[0]} can't be executed, and the gateway has ended: {error.strerror}") from error

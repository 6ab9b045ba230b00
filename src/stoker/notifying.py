"""Tells the service manager how Stoker is: systemd's protocol, ``sd_notify(3)``, without its library.

A datagram for each thing that is said. Without a manager nothing is.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, MutableMapping

import attrs
import trio

log = logging.getLogger("stoker.app")

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
EXTENSION_SECONDS = 30.0
MOST_SECONDS_BETWEEN = 10.0


@attrs.define(eq=False)
class Notifier:
    """What is said to the manager. All of it is said at once, or not at all: nobody waits for a manager.

    ``variables`` are those that it gave us, for a successor in this process. Engines are not to have them: they
    could speak in our name.
    """

    variables: Mapping[str, str] = attrs.field(factory=dict)
    watchdog_seconds: float | None = None
    _serves: bool = False
    _complained: bool = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Notifier:
        """The notifier that ``environ`` tells of; the variables are taken out of it. ``pid`` is ours."""
        taken = {name: environ.pop(name) for name in (SOCKET, WATCHDOG, WATCHDOG_PID) if name in environ}
        if not taken.get(SOCKET):
            return cls()
        usec = taken.get(WATCHDOG, "")
        is_ours = taken.get(WATCHDOG_PID, str(pid)) == str(pid)
        return cls(taken, int(usec) / 1e6 if is_ours and usec.isdecimal() and int(usec) else None)

    def ready(self, status: str) -> None:
        """Stoker serves."""
        self._serves = True
        self._say("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Stoker is on its way out."""
        self._serves = False
        self._say("STOPPING=1", "STATUS=stopping")

    def restarting(self) -> None:
        """The successor takes over from here. It says that it is ready, and has as long for it as at first."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=restarting", "WATCHDOG=1")

    async def run(self) -> None:
        """Say again and again that the event loop turns, and while it starts or stops that this goes on.

        So a watchdog ends what hangs, and a limit on how long a start or a stop may take is one for what hangs as well:
        how long engines may need to drain, their specs say. For ever; returns at once where nobody listens.
        """
        if not self.variables:
            return
        interval = min(MOST_SECONDS_BETWEEN, (self.watchdog_seconds or 2 * MOST_SECONDS_BETWEEN) / 2)
        while True:
            if self.watchdog_seconds is not None:
                self._say("WATCHDOG=1")
            if not self._serves:
                self._say(f"EXTEND_TIMEOUT_USEC={int(EXTENSION_SECONDS * 1e6)}")
            await trio.sleep(interval)

    def _say(self, *lines: str) -> None:
        if not self.variables:
            return
        address = self.variables[SOCKET]
        if address.startswith("@"):  # one without a file
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("the service manager can't be told anything (%s, at %r)", error, self.variables[SOCKET])

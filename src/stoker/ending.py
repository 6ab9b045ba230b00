"""How the program ends: who may have it end, in which way, and what is still waited for."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable

import attrs
import trio

from stoker.errors import ConflictError
from stoker.gateway.routing import RoutingTable
from stoker.operations import Ending
from stoker.supervise.supervisor import Supervisor

log = logging.getLogger("stoker.app")


def stop_signals() -> tuple[signal.Signals, ...]:
    """What stops us: also a terminal that is closed and Ctrl-\\, unless somebody (nohup) has them ignored."""
    ways = (signal.SIGHUP, signal.SIGQUIT)
    return (signal.SIGINT, signal.SIGTERM, *(way for way in ways if signal.getsignal(way) is signal.SIG_DFL))


@attrs.define(eq=False)
class Departure:
    """The end of a run: signals and the management side want it, and it goes their way.

    ``check_successor`` blocks, and raises :class:`StokerError` where the successor would not start; it is None where
    there can be none. ``wanted`` is set as soon as somebody wants the end, ``way`` is how, as far as is known by now.
    """

    check_successor: Callable[[], None] | None = None
    way: Ending = Ending.STOP
    wanted: trio.Event = attrs.field(factory=trio.Event)
    _hurry: trio.Event = attrs.field(factory=trio.Event)
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def leave(self, ending: Ending, *, now: bool) -> None:
        """End, as the management side wants it. Raises :class:`ConflictError` while it is ending already."""
        if self.wanted.is_set():
            raise ConflictError("Stoker is shutting down already")
        self.way = ending
        if now:
            self._hurry.set()
        self.wanted.set()

    async def restart(self, *, now: bool) -> None:
        """End, and become the successor, once it is known that that one would start.

        Raises :class:`StokerError` where it would not, and :class:`ConflictError` where there can be none.
        """
        if self.check_successor is None:
            raise ConflictError("this Stoker can't restart in its place; stop it, and start it again")
        await trio.to_thread.run_sync(self.check_successor)
        self.leave(Ending.RESTART, now=now)

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """The first signal has everything end; the next one hurries, or takes back that engines were to run on."""
        async for _ in signals:
            if self.wanted.is_set() and self.way is not Ending.STOP:
                log.info("stopping whole, with all engines")
                self.way = Ending.STOP
                self._waiting.cancel()
            elif self.wanted.is_set():
                self._hurry.set()
            else:
                log.info("stopping: answering what is being answered; once more (Ctrl-C) to hurry")
                self.wanted.set()

    async def hurry_when_told(self, supervisor: Supervisor, hurry_server: Callable[[], None]) -> None:
        """Once somebody wants it, wait for nothing any more."""
        await self._hurry.wait()
        log.warning("not waiting for what is being answered")
        if self.way is Ending.STOP:
            supervisor.leave(hurry=True)
        self._waiting.cancel()
        hurry_server()

    async def wind_up(self, supervisor: Supervisor, table: RoutingTable) -> None:
        """Let requests under way end, and, if they are not to run on, the engines."""
        if self.way is not Ending.STOP:
            restarts = self.way is Ending.RESTART
            table.close_doors(f"Stoker is {'restarting' if restarts else 'shutting down'}")
            await self._wait_for_requests(supervisor, table)
        if self.way is Ending.STOP:  # from the beginning, or since a signal came meanwhile
            table.close_doors("Stoker is shutting down")
            supervisor.leave()
            await supervisor.wait_until_all_stopped()
        else:
            supervisor.leave_running()

    async def _wait_for_requests(self, supervisor: Supervisor, table: RoutingTable) -> None:
        patience = max((spec.drain_timeout_seconds for spec in supervisor.specs().values()), default=0.0)
        with trio.move_on_after(patience) as self._waiting:
            if self._hurry.is_set():
                self._waiting.cancel()
            while table.in_flight():
                await trio.sleep(0.02)

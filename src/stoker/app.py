"""The composition root: builds every part, opens the nurseries, and takes it all down in order."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from stoker import accelerators
from stoker.access_log import open_access_log
from stoker.announcing import announced
from stoker.collecting import brief_collections
from stoker.config import parse_listen
from stoker.core.addresses import HostRules
from stoker.doors import check_address, open_desk
from stoker.ending import Departure, stop_signals
from stoker.errors import StokerError
from stoker.gateway.routing import RoutingTable
from stoker.gpu.ledger import Ledger
from stoker.handing_over import STOP_SIGNALS, Inheritance, Successor
from stoker.home import Home
from stoker.listening import allow_many_descriptors, listen_on, url_of
from stoker.notifying import Notifier
from stoker.observing import Observer
from stoker.operations import Ending
from stoker.parts import Parts
from stoker.plugins import Registry
from stoker.recovering import keep_engines, open_state, recover
from stoker.settings import Settings
from stoker.store.archive import SessionArchive
from stoker.store.database import Database
from stoker.store.engines import EngineStore
from stoker.supervise import lock, probe, proctable
from stoker.web.lane import ProxyLane
from stoker.web.server import serve
from stoker.web.tls import server_context
from stoker.web.token import AdminToken, load_or_make_token

log = logging.getLogger("stoker.app")

Companion = Callable[[str], Awaitable[int | None]]
"""Runs beside the gateway once it serves, given its URL; an int it returns ends the program with that exit code."""


def run(
    settings: Settings,
    home: Home,
    registry: Registry,
    *,
    config_path: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
    companion: Companion | None = None,
    strict: bool = False,
    successor: Successor | None = None,
) -> int:
    """Run everything in the foreground until SIGINT or SIGTERM, and return the exit code.

    The first signal drains: what is being answered is answered, engines then stop. The second one hurries: engines are
    killed. Either way no process of ours is left, unless the management side asked for that: then engines run on, and,
    for a restart, this process becomes ``successor``.

    Raises :class:`StokerError` for what keeps it from starting; with ``strict`` that is also a plugin whose routes
    can't be added, which else are left out.
    """
    allow_many_descriptors()
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    inheritance = Inheritance.take(os.environ)
    notifier = Notifier.take(os.environ, os.getpid())
    with contextlib.ExitStack() as stack:
        locked = stack.enter_context(lock.hold(home.lock, inheritance.lock))
        check_address(settings.gateway, home)
        certificate, key = settings.gateway.certfile, settings.gateway.keyfile
        tls = None if certificate is None else server_context(certificate, key)
        address = parse_listen(settings.gateway.listen)
        listener = inheritance.listener_at(address.host, address.port) or listen_on(address)
        stack.enter_context(contextlib.closing(listener))
        stack.enter_context(announced(home, url_of(listener, tls), config_path, certificate))
        observers = []
        if settings.gateway.access_log is not None:
            log_format = settings.gateway.log_format
            observers.append(stack.enter_context(open_access_log(settings.gateway.access_log, log_format)))
        program = Program(
            Parts(settings, home, registry, config_path, strict),
            on_ready,
            companion,
            listener,
            successor,
            tls,
            observers,
            notifier,
        )
        code = _run(program)
        if program.handed is not None and successor is not None:
            log.info("restarting")
            logging.shutdown()
            notifier.restarting()
            successor.take_over(program.handed, locked, notifier.variables)
        return code


def _run(program: Program) -> int:
    """Nurseries wrap what ends them. A single error of a kind that the command line can tell is unwrapped.

    At the start, that is: one that ends a gateway that serves is a defect, and a line does not tell where it is.
    """
    try:
        return trio.run(program.main)
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        if len(errors) == 1 and isinstance(errors[0], StokerError | OSError | KeyboardInterrupt):
            if program.serves and not isinstance(errors[0], KeyboardInterrupt):
                log.critical("the gateway ends, by an error that is not expected while it serves", exc_info=group)
            raise errors[0] from None
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@attrs.define(eq=False)
class Program:
    """One run of Stoker. ``serves`` is set once it does, and has no companion: what ends it then is a defect."""

    parts: Parts
    on_ready: Callable[[str], None] | None
    companion: Companion | None
    listener: socket.socket
    successor: Successor | None = None
    tls: ssl.SSLContext | None = None
    request_observers: Sequence[Observer] = ()
    notifier: Notifier = attrs.field(factory=Notifier)
    exit_code: int = 0
    serves: bool = False
    handed: socket.socket | None = None
    departure: Departure = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        can_restart = self.successor is not None and proctable.HAS_PROC
        self.departure = Departure(self._check_successor if can_restart else None)

    async def main(self) -> int:
        """Everything, from the first task to the last."""
        with trio.open_signal_receiver(*stop_signals()) as signals:  # first, so that nothing is left half done
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a predecessor kept them for us
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.notifier.run)
                code = await self._run(signals)
                nursery.cancel_scope.cancel()
            return code

    async def _run(self, signals: AsyncIterator[int]) -> int:
        home = self.parts.home
        token = await trio.to_thread.run_sync(load_or_make_token, home.admin_token)
        async with open_state(home.state) as database:
            return await self._run_on(database, signals, token)

    async def _run_on(self, database: Database | None, signals: AsyncIterator[int], token: AdminToken) -> int:
        parts, home, settings = self.parts, self.parts.home, self.parts.settings
        store = None if database is None else EngineStore(database)
        recovered = await recover(store, home.digest)
        ledger = Ledger(home.gpu_ledger)
        await trio.to_thread.run_sync(ledger.load)
        clock = trio.lowlevel.current_clock().current_time
        table = RoutingTable(parts.policies(), clock=clock)
        desk = await open_desk(settings.gateway, home, database, token, clock)
        native = await trio.to_thread.run_sync(accelerators.load, os.environ)
        barred = HostRules.of(settings.gateway.register_hosts).bars
        client = await trio.to_thread.run_sync(probe.make_client, barred)
        observers = parts.observers(self.request_observers)
        async with client, observers.told(), keep_engines(store) as keeper, trio.open_nursery() as engines:
            placer = parts.placer(ledger)
            supervisor = parts.supervisor(table, client, engines, placer, observers, keeper)
            operations = parts.operations(supervisor, placer, native, ledger, self.departure)
            engines.start_soon(self.departure.obey, signals)
            engines.start_soon(supervisor.run_timer)
            engines.start_soon(supervisor.rotate_logs)
            archive = SessionArchive(database) if settings.sessions.enabled else None
            if archive is not None and settings.sessions.keep_days is not None:
                engines.start_soon(archive.keep_clean, settings.sessions.keep_days)
            plane = parts.plane(table, supervisor, native, observers, desk.ring, archive)
            async with plane as data_plane, trio.open_nursery() as doors:
                web = parts.web(table, data_plane.measures, operations, desk, observers)
                lane = ProxyLane(data_plane.forwarder, settings.gateway, web, web.guard)
                server = await doors.start(partial(serve, lane, [self.listener], data_plane, web.guard, tls=self.tls))
                operations.start_configured(settings, recovered.kept, recovered.living)
                with brief_collections(time.monotonic):
                    self._say_ready(doors)
                    self.serves = self.companion is None
                    await self.departure.wanted.wait()
                if self.departure.way is not Ending.RESTART:
                    self.notifier.stopping()
                engines.start_soon(self.departure.hurry_when_told, supervisor, server.hurry)
                await self.departure.wind_up(supervisor, table)
                if self.departure.way is Ending.RESTART:  # who connects from now on waits in the backlog
                    self.handed = self.listener.dup()  # the server closes its own
                web.end_streams()
                doors.cancel_scope.cancel()
            engines.cancel_scope.cancel()
        return self.exit_code

    def _check_successor(self) -> None:
        check_address(self.parts.settings.gateway, self.parts.home)
        if self.successor is not None:
            self.successor.check(self.parts.config_path)

    def _say_ready(self, doors: trio.Nursery) -> None:
        url = url_of(self.listener, self.tls)
        self.notifier.ready(f"answers at {url}")
        if self.on_ready is not None:
            self.on_ready(url)
        if self.companion is not None:
            doors.start_soon(self._accompany, self.companion)

    async def _accompany(self, companion: Companion) -> None:
        code = await companion(url_of(self.listener, self.tls))
        if code is not None:
            self.exit_code = code
            self.departure.wanted.set()

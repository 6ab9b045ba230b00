"""The composition root: builds every part, opens the nurseries, and takes it all down in order."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import httpx2
import trio

from stoker import __version__, accelerators, config, environments
from stoker.accelerators import Accelerators
from stoker.access_log import open_access_log
from stoker.announcing import announced
from stoker.collecting import brief_collections
from stoker.config import parse_listen
from stoker.core.addresses import HostRules
from stoker.doors import check_address, open_desk
from stoker.ending import Departure, stop_signals
from stoker.errors import ConfigError, PluginError, StokerError
from stoker.gateway.keyring import KeyRing
from stoker.gateway.measures import Measures
from stoker.gateway.plane import DataPlane
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.gpu.inventory import Inventory
from stoker.gpu.ledger import Ledger
from stoker.gpu.nvml import read_gpus
from stoker.handing_over import STOP_SIGNALS, Inheritance, Successor
from stoker.home import Home
from stoker.listening import allow_many_descriptors, listen_on, url_of
from stoker.notifying import Notifier
from stoker.observing import Observer, Observers
from stoker.operations import Ending, Operations
from stoker.plugins import Registry
from stoker.recovering import keep_engines, open_state, recover
from stoker.settings import Settings
from stoker.store.archive import SessionArchive
from stoker.store.database import Database
from stoker.store.engines import EngineStore
from stoker.supervise import lock, probe, proctable
from stoker.supervise.crew import Crew
from stoker.supervise.keeping import Keeper
from stoker.supervise.placing import Placer
from stoker.supervise.supervisor import Supervisor
from stoker.web.app import WebApp, create_app
from stoker.web.keys import KeyDesk
from stoker.web.lane import ProxyLane
from stoker.web.server import serve
from stoker.web.tls import server_context
from stoker.web.token import AdminToken, load_or_make_token

log = logging.getLogger("stoker.app")

FALLBACK = "least-load"  # the policy where others fail

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
            settings,
            home,
            registry,
            config_path,
            on_ready,
            companion,
            listener,
            strict,
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

    settings: Settings
    home: Home
    registry: Registry
    config_path: Path | None
    on_ready: Callable[[str], None] | None
    companion: Companion | None
    listener: socket.socket
    strict: bool = False
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
        token = await trio.to_thread.run_sync(load_or_make_token, self.home.admin_token)
        async with open_state(self.home.state) as database:
            return await self._run_on(database, signals, token)

    async def _run_on(self, database: Database | None, signals: AsyncIterator[int], token: AdminToken) -> int:
        store = None if database is None else EngineStore(database)
        recovered = await recover(store, self.home.digest)
        ledger = Ledger(self.home.gpu_ledger)
        await trio.to_thread.run_sync(ledger.load)
        clock = trio.lowlevel.current_clock().current_time
        table = RoutingTable(self._make_policies(), clock=clock)
        desk = await open_desk(self.settings.gateway, self.home, database, token, clock)
        native = await trio.to_thread.run_sync(accelerators.load, os.environ)
        barred = HostRules.of(self.settings.gateway.register_hosts).bars
        client = await trio.to_thread.run_sync(probe.make_client, barred)
        observers = self._make_observers()
        async with client, observers.told(), keep_engines(store) as keeper, trio.open_nursery() as engines:
            placer = self._make_placer(ledger)
            supervisor = self._make_supervisor(table, client, engines, placer, observers, keeper)
            operations = self._make_operations(supervisor, placer, native, ledger)
            engines.start_soon(self.departure.obey, signals)
            engines.start_soon(supervisor.run_timer)
            engines.start_soon(supervisor.rotate_logs)
            archive = SessionArchive(database) if self.settings.sessions.enabled else None
            if archive is not None and self.settings.sessions.keep_days is not None:
                engines.start_soon(archive.keep_clean, self.settings.sessions.keep_days)
            plane = self._open_plane(table, supervisor, native, observers, desk.ring, archive)
            async with plane as data_plane, trio.open_nursery() as doors:
                web = self._make_web(table, data_plane.measures, operations, desk, observers)
                lane = ProxyLane(data_plane.forwarder, self.settings.gateway, web, web.guard)
                server = await doors.start(partial(serve, lane, [self.listener], data_plane, web.guard, tls=self.tls))
                operations.start_configured(self.settings, recovered.kept, recovered.living)
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
        check_address(self.settings.gateway, self.home)
        if self.successor is not None:
            self.successor.check(self.config_path)

    def _make_policies(self) -> Policies:
        policies, mistakes = config.configured(self.settings.policies, self.registry.policies)
        if mistakes:
            raise ConfigError(str(self.config_path or "the configuration"), mistakes)
        plugins = {name: owner for (what, name), owner in self.registry.owners.items() if what == "policy"}
        default = self.registry.policy(self.settings.gateway.policy).name
        return Policies(policies[default], policies[FALLBACK], policies, plugins)

    def _make_placer(self, ledger: Ledger) -> Placer:
        # As for every program that computes on GPUs, the environment may leave us only some of them.
        inventory = Inventory(partial(read_gpus, os.environ.get("CUDA_VISIBLE_DEVICES")))
        scheduler = self.registry.scheduler(self.settings.scheduler)
        return Placer(scheduler, inventory.read, self._find_python, ledger)

    def _open_plane(
        self,
        table: RoutingTable,
        supervisor: Supervisor,
        native: Accelerators,
        observers: Observers,
        ring: KeyRing,
        archive: SessionArchive | None,
    ) -> contextlib.AbstractAsyncContextManager[DataPlane]:
        return DataPlane.open(
            table,
            self.settings.gateway,
            report=supervisor.suspect,
            probed=supervisor.wait_until_probed,
            httptools=native.httptools,
            msgspec=native.msgspec,
            finished=observers.request_finished if observers.requests else None,
            keys=ring,
            archive=archive,
            sessions=self.settings.sessions,
        )

    def _make_supervisor(
        self,
        table: RoutingTable,
        client: httpx2.AsyncClient,
        engines: trio.Nursery,
        placer: Placer,
        observers: Observers,
        keeper: Keeper,
    ) -> Supervisor:
        crew = Crew(
            home=self.home,
            run_id=secrets.token_hex(4),
            runtimes=self.registry.runtimes,
            placer=placer,
            traffic=table,
            client=client,
            nursery=engines,
            keep=keeper.keep,
        )
        observe = observers.engine_changed if observers.engines else None
        return Supervisor(crew, table, self.settings.log_max_bytes, keeper, observe)

    def _make_operations(
        self, supervisor: Supervisor, placer: Placer, native: Accelerators, ledger: Ledger
    ) -> Operations:
        about = self._about(native)
        return Operations(supervisor, self.registry, placer.report, about, self.departure, self.config_path, ledger)

    def _make_observers(self) -> Observers:
        hooks = self.registry.implementations
        requests: list[Observer] = [*hooks("stoker_request_finished"), *self.request_observers]
        return Observers(hooks("stoker_engine_changed"), requests, hooks("stoker_ending"))

    def _make_web(
        self,
        table: RoutingTable,
        measures: Measures,
        operations: Operations,
        desk: KeyDesk,
        observers: Observers,
    ) -> WebApp:
        web = create_app(
            operations.supervisor,
            operations,
            desk=desk,
            table=table,
            measures=measures,
            settings=self.settings.gateway,
            sessions=self.settings.sessions,
            read_spec=partial(config.spec_from_json, policies=self.registry.policies),
            spec_schema=config.spec_schema(),
            started_at=time.time(),
            listeners=observers.listeners,
        )
        for hook in self.registry.implementations("stoker_register_routes"):
            try:
                web.add_routes_of(hook)
            except PluginError as error:
                if self.strict:
                    raise
                log.error("%s", error)  # noqa: TRY400 - it says all there is to say
        return web

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

    def _find_python(self, runtime_name: str) -> Path | None:
        configured = self.settings.runtimes.get(runtime_name)
        if configured is not None and configured.python is not None:
            return configured.python
        spec = self.registry.runtime(runtime_name).environment
        installed = None if spec is None else environments.find(self.home, runtime_name, spec)
        return None if installed is None else installed.python

    def _about(self, native: Accelerators) -> dict[str, object]:
        return {
            "version": __version__,
            "policy": self.settings.gateway.policy,
            "lanes": ["express", "hypercorn"],
            "parser": native.parser,
            "body_reader": native.reader,
            "plugins": list(self.registry.plugins),
            "plugins_left_out": dict(self.registry.left_out),
            "pid": os.getpid(),
            "home": str(self.home.path),
        }

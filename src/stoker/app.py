"""The composition root: builds every part, opens the nurseries, and takes it all down in order."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import httpx2
import trio

from stoker import __version__, accelerators, config, environments
from stoker.accelerators import Accelerators
from stoker.config import Listen, parse_listen
from stoker.core.addresses import HostRules
from stoker.doors import check_address, open_desk
from stoker.errors import ConfigError, ConflictError, PluginError, StokerError
from stoker.gateway.measures import Measures
from stoker.gateway.plane import DataPlane
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.gpu.inventory import Inventory
from stoker.gpu.ledger import Ledger
from stoker.gpu.nvml import read_gpus
from stoker.handing_over import STOP_SIGNALS, Inheritance, Successor
from stoker.home import Home
from stoker.model import EngineRun, KeptEngine
from stoker.observing import Observers
from stoker.operations import Ending, Operations
from stoker.plugins import Registry
from stoker.settings import Settings
from stoker.store.database import Database, StoreError, open_database
from stoker.store.engines import EngineStore
from stoker.store.schema import MIGRATIONS
from stoker.supervise import lock, probe, proctable
from stoker.supervise.adoption import survey
from stoker.supervise.crew import Crew
from stoker.supervise.keeping import Keeper
from stoker.supervise.leftovers import end_leftovers
from stoker.supervise.placing import Placer
from stoker.supervise.supervisor import Supervisor
from stoker.web.app import WebApp, create_app
from stoker.web.keys import KeyDesk
from stoker.web.lane import ProxyLane
from stoker.web.server import Server, serve
from stoker.web.tls import server_context
from stoker.web.token import AdminToken, load_or_make_token

log = logging.getLogger("stoker.app")

MOST_DESCRIPTORS = 65536
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
    with contextlib.ExitStack() as stack:
        locked = stack.enter_context(lock.hold(home.lock, inheritance.lock))
        check_address(settings.gateway, home)
        certificate, key = settings.gateway.certfile, settings.gateway.keyfile
        tls = None if certificate is None else server_context(certificate, key)
        address = parse_listen(settings.gateway.listen)
        listener = inheritance.listener_at(address.host, address.port) or listen_on(address)
        stack.enter_context(contextlib.closing(listener))
        stack.enter_context(announced(home, url_of(listener, tls), config_path, certificate))
        program = Program(settings, home, registry, config_path, on_ready, companion, listener, strict, successor, tls)
        code = _run(program)
        if program.handed is not None and successor is not None:
            log.info("restarting")
            logging.shutdown()
            successor.take_over(program.handed, locked)
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


def stop_signals() -> tuple[signal.Signals, ...]:
    """What stops us: also a terminal that is closed and Ctrl-\\, unless somebody (nohup) has them ignored."""
    ways = (signal.SIGHUP, signal.SIGQUIT)
    return (signal.SIGINT, signal.SIGTERM, *(way for way in ways if signal.getsignal(way) is signal.SIG_DFL))


def allow_many_descriptors() -> None:
    """Raise the soft limit of open files towards the hard one: two for each request that is under way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen_on(address: Listen) -> socket.socket:
    """A listening socket. Raises :class:`StokerError` when the address can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise StokerError(
            f"can't listen on {address}: {error.strerror}; stop what listens there, or choose another address "
            "with --listen (port 0 takes any free one)"
        ) from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library takes it so
    return listener


def url_of(listener: socket.socket, tls: ssl.SSLContext | None = None) -> str:
    """The address that clients use for what listens there."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - whoever listens everywhere does so here
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextlib.contextmanager
def announced(home: Home, url: str, config_path: Path | None, certificate: Path | None = None) -> Iterator[None]:
    """``gateway.json`` stands while the gateway runs, so that the command line finds it. Blocks."""
    entry = proctable.read_entry(os.getpid()) if proctable.HAS_PROC else None
    about = {
        "pid": os.getpid(),
        "process_start": entry.started if entry else None,
        "url": url,
        "started_at": time.time(),
        "version": __version__,
        "argv": sys.argv,
        "config": str(config_path) if config_path else None,
        "certfile": str(certificate) if certificate else None,
    }
    unfinished = home.gateway.with_suffix(".new")
    try:
        unfinished.write_text(json.dumps(about))
        unfinished.replace(home.gateway)
    except OSError as error:
        what = "%s can't be written (%s): the command line finds this gateway only by STOKER_URL=%s"
        log.error(what, home.gateway, error.strerror, url)  # noqa: TRY400 - it says all there is to say
    try:
        yield
    finally:
        home.gateway.unlink(missing_ok=True)


async def _save_nothing(engines: Sequence[KeptEngine]) -> None:
    """For a run without a state file."""


@contextlib.asynccontextmanager
async def kept_by(keeper: Keeper) -> AsyncIterator[None]:
    """The list of engines is kept for as long as the block lasts, and in its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield
        nursery.cancel_scope.cancel()


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
    exit_code: int = 0
    serves: bool = False
    handed: socket.socket | None = None
    _leave: trio.Event = attrs.field(factory=trio.Event)
    _hurry: trio.Event = attrs.field(factory=trio.Event)
    _ending: Ending = Ending.STOP
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def main(self) -> int:
        """Everything, from the first task to the last."""
        with trio.open_signal_receiver(*stop_signals()) as signals:  # first, so that nothing is left half done
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a predecessor kept them for us
            return await self._run(signals)

    async def _run(self, signals: AsyncIterator[int]) -> int:
        token = await trio.to_thread.run_sync(load_or_make_token, self.home.admin_token)
        async with self._open_state() as database:
            return await self._run_on(database, signals, token)

    async def _run_on(self, database: Database | None, signals: AsyncIterator[int], token: AdminToken) -> int:
        store = None if database is None else EngineStore(database)
        kept, living = await self._recover(store)
        keeper = Keeper(_save_nothing if store is None else store.save)
        ledger = Ledger(self.home.gpu_ledger)
        await trio.to_thread.run_sync(ledger.load)
        gateway = self.settings.gateway
        clock = trio.lowlevel.current_clock().current_time
        table = RoutingTable(self._make_policies(), clock=clock)
        desk = await open_desk(gateway, self.home, database, token, clock)
        native = await trio.to_thread.run_sync(accelerators.load, os.environ)
        barred = HostRules.of(gateway.register_hosts).bars
        client = await trio.to_thread.run_sync(probe.make_client, barred)
        observers = self._make_observers()
        async with client, observers.told(), kept_by(keeper), trio.open_nursery() as engines:
            placer = self._make_placer(ledger)
            supervisor = self._make_supervisor(table, client, engines, placer, observers, keeper)
            about = self._about(native)
            operations = Operations(supervisor, self.registry, placer.report, about, self, self.config_path, ledger)
            engines.start_soon(self._obey_signals, signals)
            engines.start_soon(supervisor.run_timer)
            engines.start_soon(supervisor.rotate_logs)
            plane = DataPlane.open(
                table,
                gateway,
                report=supervisor.suspect,
                probed=supervisor.wait_until_probed,
                httptools=native.httptools,
                msgspec=native.msgspec,
                finished=observers.request_finished if observers.requests else None,
                keys=desk.ring,
            )
            async with plane as data_plane, trio.open_nursery() as doors:
                web = self._make_web(table, data_plane.measures, operations, desk, observers)
                lane = ProxyLane(data_plane.forwarder, gateway, web, web.guard)
                server = await doors.start(partial(serve, lane, [self.listener], data_plane, web.guard, tls=self.tls))
                operations.start_configured(self.settings, kept, living)
                gc.collect()
                gc.freeze()  # what is there by now stays: no collection need look at it again
                self._say_ready(doors)
                self.serves = self.companion is None
                await self._leave.wait()
                engines.start_soon(self._hurry_when_told, supervisor, server)
                await self._wind_up(supervisor, table)
                web.end_streams()
                doors.cancel_scope.cancel()
            engines.cancel_scope.cancel()
        return self.exit_code

    async def _wind_up(self, supervisor: Supervisor, table: RoutingTable) -> None:
        """Let requests under way end, and, if they are not to run on, the engines."""
        if self._ending is not Ending.STOP:
            restarts = self._ending is Ending.RESTART
            table.close_doors(f"Stoker is {'restarting' if restarts else 'shutting down'}")
            await self._wait_for_requests(supervisor, table)
        if self._ending is Ending.STOP:  # from the beginning, or since a signal came meanwhile
            table.close_doors("Stoker is shutting down")
            supervisor.leave()
            await supervisor.wait_until_all_stopped()
            return
        supervisor.leave_running()
        if self._ending is Ending.RESTART:
            self.handed = self.listener.dup()  # the server closes its own; who connects now waits in the backlog

    async def _wait_for_requests(self, supervisor: Supervisor, table: RoutingTable) -> None:
        patience = max((spec.drain_timeout_seconds for spec in supervisor.specs().values()), default=0.0)
        with trio.move_on_after(patience) as self._waiting:
            if self._hurry.is_set():
                self._waiting.cancel()
            while table.in_flight():
                await trio.sleep(0.02)

    def leave(self, ending: Ending, *, now: bool) -> None:
        """End, as the management side wants it. Raises :class:`ConflictError` while it is ending already."""
        if self._leave.is_set():
            raise ConflictError("Stoker is shutting down already")
        self._ending = ending
        if now:
            self._hurry.set()
        self._leave.set()

    async def restart(self, *, now: bool) -> None:
        """End, and become the successor, once it is known that that one would start.

        Raises :class:`StokerError` where it would not, and :class:`ConflictError` where there can be none.
        """
        if self.successor is None or not proctable.HAS_PROC:
            raise ConflictError("this Stoker can't restart in its place; stop it, and start it again")
        await trio.to_thread.run_sync(check_address, self.settings.gateway, self.home)
        await trio.to_thread.run_sync(self.successor.check, self.config_path)
        self.leave(Ending.RESTART, now=now)

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

    def _make_observers(self) -> Observers:
        hooks = self.registry.implementations
        return Observers(hooks("stoker_engine_changed"), hooks("stoker_request_finished"), hooks("stoker_ending"))

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
            read_spec=partial(config.spec_from_json, policies=self.registry.policies),
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
        if self.on_ready is not None:
            self.on_ready(url_of(self.listener, self.tls))
        if self.companion is not None:
            doors.start_soon(self._accompany, self.companion)

    async def _accompany(self, companion: Companion) -> None:
        code = await companion(url_of(self.listener, self.tls))
        if code is not None:
            self.exit_code = code
            self._leave.set()

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            if self._leave.is_set() and self._ending is not Ending.STOP:
                log.info("stopping whole, with all engines")
                self._ending = Ending.STOP
                self._waiting.cancel()
            elif self._leave.is_set():
                self._hurry.set()
            else:
                log.info("stopping: answering what is being answered; once more (Ctrl-C) to hurry")
                self._leave.set()

    async def _hurry_when_told(self, supervisor: Supervisor, server: Server) -> None:
        await self._hurry.wait()
        log.warning("not waiting for what is being answered")
        if self._ending is Ending.STOP:
            supervisor.leave(hurry=True)
        self._waiting.cancel()
        server.hurry()

    @contextlib.asynccontextmanager
    async def _open_state(self) -> AsyncIterator[Database | None]:
        """The state file; None, and an error in the log, where there can be none."""
        try:
            database = await trio.to_thread.run_sync(open_database, self.home.state, MIGRATIONS)
        except StoreError as error:
            log.error("%s; nothing is kept beyond this run", error)  # noqa: TRY400 - it says all there is to say
            yield None
            return
        try:
            yield database
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(database.close)

    async def _recover(self, store: EngineStore | None) -> tuple[Sequence[KeptEngine], Sequence[EngineRun]]:
        """What an earlier Stoker left: the list of its engines, and those that still run. The rest of it is ended."""
        kept: Sequence[KeptEngine] = ()
        if store is not None:
            try:
                kept = await store.load()
            except StoreError as error:
                log.error("the engines of an earlier run can't be found again: %s", error)  # noqa: TRY400
        runs = [each.run for each in kept if each.run is not None]
        found = await trio.to_thread.run_sync(survey, runs)
        for doubt in found.doubtful:
            log.warning("%s", doubt)
        leftovers = await end_leftovers(self.home.digest, [run.mark for run in found.living])
        if leftovers.found:
            log.warning("ended what an earlier run left behind: pids %s", leftovers.found)
        if leftovers.remaining:
            log.error("these processes of an earlier run can't be ended: pids %s", leftovers.remaining)
        return kept, found.living

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

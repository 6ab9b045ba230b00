"""The parts of a gateway: each made out of the settings, the plugins and the parts that it works with."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import attrs
import httpx2
import trio

from stoker import __version__, config, environments
from stoker.accelerators import Accelerators
from stoker.ending import Departure
from stoker.errors import ConfigError, PluginError
from stoker.gateway.keyring import KeyRing
from stoker.gateway.measures import Measures
from stoker.gateway.plane import DataPlane
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.gpu.inventory import Inventory
from stoker.gpu.ledger import Ledger
from stoker.gpu.nvml import read_gpus
from stoker.home import Home
from stoker.observing import Observer, Observers
from stoker.operations import Operations
from stoker.plugins import Registry
from stoker.settings import Settings
from stoker.store.archive import SessionArchive
from stoker.supervise.crew import Crew
from stoker.supervise.keeping import Keeper
from stoker.supervise.placing import Placer
from stoker.supervise.supervisor import Supervisor
from stoker.web.app import WebApp, create_app
from stoker.web.keys import KeyDesk

log = logging.getLogger("stoker.app")

FALLBACK = "least-load"  # the policy where others fail


@attrs.frozen
class Parts:
    """Makes the parts of one gateway. Nothing is opened or started by that.

    With ``strict``, a plugin whose routes can't be added is a :class:`PluginError`; else they are left out.
    """

    settings: Settings
    home: Home
    registry: Registry
    config_path: Path | None
    strict: bool = False

    def policies(self) -> Policies:
        """The routing policies, as they are configured. Raises :class:`ConfigError` for options they don't take."""
        policies, mistakes = config.configured(self.settings.policies, self.registry.policies)
        if mistakes:
            raise ConfigError(str(self.config_path or "the configuration"), mistakes)
        plugins = {name: owner for (what, name), owner in self.registry.owners.items() if what == "policy"}
        default = self.registry.policy(self.settings.gateway.policy).name
        return Policies(policies[default], policies[FALLBACK], policies, plugins)

    def placer(self, ledger: Ledger) -> Placer:
        """What gives engines their GPUs and ports."""
        # As for every program that computes on GPUs, the environment may leave us only some of them.
        inventory = Inventory(partial(read_gpus, os.environ.get("CUDA_VISIBLE_DEVICES")))
        scheduler = self.registry.scheduler(self.settings.scheduler)
        return Placer(scheduler, inventory.read, self._find_python, ledger)

    def observers(self, besides: Sequence[Observer]) -> Observers:
        """Who is told of requests, ``besides`` included, and of engines."""
        hooks = self.registry.implementations
        requests: list[Observer] = [*hooks("stoker_request_finished"), *besides]
        return Observers(hooks("stoker_engine_changed"), requests, hooks("stoker_ending"))

    def supervisor(
        self,
        table: RoutingTable,
        client: httpx2.AsyncClient,
        engines: trio.Nursery,
        placer: Placer,
        observers: Observers,
        keeper: Keeper,
    ) -> Supervisor:
        """The supervisor, whose engines live in the nursery ``engines`` and are probed by ``client``."""
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

    def operations(
        self, supervisor: Supervisor, placer: Placer, native: Accelerators, ledger: Ledger, departure: Departure
    ) -> Operations:
        """What management can ask for."""
        about = self._about(native)
        return Operations(supervisor, self.registry, placer.report, about, departure, self.config_path, ledger)

    def plane(
        self,
        table: RoutingTable,
        supervisor: Supervisor,
        native: Accelerators,
        observers: Observers,
        ring: KeyRing,
        archive: SessionArchive | None,
    ) -> AbstractAsyncContextManager[DataPlane]:
        """The data plane, to be entered."""
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

    def web(
        self,
        table: RoutingTable,
        measures: Measures,
        operations: Operations,
        desk: KeyDesk,
        observers: Observers,
    ) -> WebApp:
        """The application behind the express lane, with the routes of plugins."""
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

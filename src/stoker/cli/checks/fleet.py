"""The configuration, the address it wants, the environments of its engines, and the gateway that runs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stoker import __version__, config, environments
from stoker.cli.checks.finding import Finding, What, fail, ok, warn
from stoker.cli.client import connect_to
from stoker.cli.configured import require_fit
from stoker.cli.finding import RunningGateway
from stoker.cli.invocation import program
from stoker.environments import State
from stoker.errors import ConfigError, StokerError
from stoker.home import Home
from stoker.listening import listen_on
from stoker.plugins import Registry
from stoker.settings import Settings
from stoker.supervise import ports, proctable

INTERPRETER_SECONDS = 20.0
GATEWAY_SECONDS = 5.0  # it has what it is asked for at hand
OLDEST = "import sys; sys.exit(sys.version_info < (3, 9))"


def configuration(path: Path | None, registry: Registry) -> tuple[Finding, Settings | None]:
    """What ``config check`` says of it, and what is in it; None where it can't be used."""
    what = What.CONFIGURATION
    if path is None:
        return ok(what, "there is no stoker.toml here: the defaults count"), Settings()
    remedy = f"mend it; {program()} config check -c {path} names every mistake"
    try:
        settings = config.load(path)
        require_fit(settings, registry, str(path))
    except ConfigError as error:
        first = str(error).splitlines()
        return fail(what, " ".join(line.strip() for line in first[:2]), remedy), None
    return ok(what, f"{path} is fine"), settings


def plugins(registry: Registry) -> Finding:
    """Whether all of them could be loaded."""
    left_out = [f"{record.name}: {record.problem}" for record in registry.records if record.problem is not None]
    if left_out:
        return warn(
            What.PLUGINS, f"left out: {'; '.join(left_out)}", f"mend or remove them; see {program()} plugin list"
        )
    return ok(What.PLUGINS, f"{len(registry.records)} loaded")


def address(settings: Settings, running: RunningGateway | None, *, configured: bool) -> Finding:
    """Whether a gateway could listen where it is to listen, if it does not do so already."""
    what = What.ADDRESS
    listen = config.parse_listen(settings.gateway.listen)
    if running is not None:
        return ok(what, f"the gateway has {running.url}")
    try:
        listen_on(listen).close()
    except StokerError as error:
        holder = ", ".join(f"process {pid}" for pid in _holders(listen.host, listen.port))
        said = str(error).partition(";")[0] + (f"; {holder} listens there" if holder else "")
        remedy = "stop what listens there, or name another address: [gateway] listen, or --listen"
        return fail(what, said, remedy) if configured else warn(what, said, remedy)
    return ok(what, f"{settings.gateway.listen} is free")


def _holders(host: str, port: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        inodes = ports.listeners(host, port)
        for entry in proctable.process_table():
            if inodes & (ports.sockets_of(entry.pid) or frozenset()):
                yield entry.pid


def runtimes(home: Home, settings: Settings, registry: Registry) -> Iterator[Finding]:
    """The environments that the configured engines need, and those that are installed besides."""
    wanted = {spec.runtime for spec in settings.engines}
    specs = {name: each.environment for name, each in registry.runtimes.items() if each.environment is not None}
    states = {state.name: state for state in environments.listing(home, specs)}
    for name, state in states.items():
        named = settings.runtimes.get(name)
        install = f"{program()} runtime install {name}"
        if named is not None and named.python is not None:
            yield interpreter(name, named.python, f"correct python of [runtime.{name}] in the configuration")
        elif state.state is State.INSTALLED and state.python is not None:
            remedy = f"{program()} runtime remove {name}, then: {install}"
            yield interpreter(name, state.python, remedy)
        elif name in wanted:
            yield fail(What.RUNTIME, f"its environment is {state.state.value}", install, of=name)
        elif state.state is not State.MISSING:
            yield warn(What.RUNTIME, f"its environment is {state.state.value}", install, of=name)


def interpreter(name: str, python: Path, remedy: str) -> Finding:
    """Whether the interpreter of the runtime ``name`` runs."""
    what = What.RUNTIME
    try:
        done = subprocess.run(
            [str(python), "-I", "-S", "-c", OLDEST],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INTERPRETER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return fail(what, f"{python} does not end", remedy, of=name)
    except OSError as error:
        return fail(what, f"{python} can't be run: {error.strerror}", remedy, of=name)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return fail(what, f"{python} is no Python that an engine could use: {last}", remedy, of=name)
    return ok(what, f"{python} runs", of=name)


def gateway(home: Home, running: RunningGateway | None) -> tuple[Finding, Mapping[str, Any] | None]:
    """Whether it answers, as what it should be; with what it says of the GPUs."""
    what = What.GATEWAY
    if running is None:
        return ok(what, "none runs on this folder"), None
    where = f"{running.url} (pid {running.pid}, version {running.version})"
    try:
        with connect_to(home, running) as client:
            status = client.get("/status", patience_seconds=GATEWAY_SECONDS)
            gpus = client.get("/gpu")
    except StokerError as error:
        remedy = f"see {program()} gateway logs; if it hangs, kill -9 {running.pid}, and then {program()} gateway start"
        return fail(what, f"{where} does not answer: {error}", f"{remedy}: its engines run on"), None
    if left_out := status.get("plugins_left_out"):
        return warn(what, f"{where}; plugins left out: {', '.join(left_out)}", f"see {program()} plugin list"), gpus
    if running.version != __version__:
        return warn(what, f"{where}; this is {__version__}", f"{program()} gateway restart"), gpus
    return ok(what, f"{where} answers"), gpus

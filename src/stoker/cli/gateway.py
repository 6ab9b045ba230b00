"""``stoker gateway start|stop|restart|status|logs``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from stoker.cli.background import arguments_of, launch, leave
from stoker.cli.configured import find_settings
from stoker.cli.finding import RunningGateway, not_running, read_gateway
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, ConfigFile, Follow, ListenAt, Tail
from stoker.cli.output import ago, print_json, print_record
from stoker.errors import StokerError
from stoker.home import Home

Now = Annotated[bool, Parameter("--now", help="Don't wait for requests that are under way.")]


def start(*, config: ConfigFile = None, listen: ListenAt = None) -> None:
    """Start the gateway in the background and wait until it answers. One that runs already is left alone."""
    home = _home()
    if running := read_gateway(home):
        print(f"the gateway runs already at {running.url} (pid {running.pid})")
        return
    path, _ = find_settings(config, listen)  # mistakes in it are told here, not in a log
    arguments = ["up"]
    if path is not None:
        arguments += ["--config", str(path)]
    if listen is not None:
        arguments += ["--listen", listen]
    _tell(home, launch(home, arguments))


def stop(*, now: Now = False) -> None:
    """Stop the gateway and its engines, and wait until they are gone."""
    home = _home()
    leave(home, _running(home), now=now)
    print("the gateway is stopped")


def restart(*, now: Now = False) -> None:
    """Stop the gateway, then start it again with the same arguments, in the background."""
    home = _home()
    running = _running(home)
    arguments = arguments_of(running)
    leave(home, running, now=now)
    _tell(home, launch(home, arguments))


def status(*, as_json: AsJson = False) -> int:
    """Show whether the gateway runs, and where."""
    home = _home()
    running = read_gateway(home)
    if as_json:
        about = {"url": running.url, "pid": running.pid, "config": running.config} if running else {}
        print_json({"running": running is not None, **about})
        return 0 if running else 3
    if running is None:
        raise not_running(f"no gateway runs on {home.path}")
    print_record(
        {
            "address": running.url,
            "pid": running.pid,
            "started": ago(running.started_at),
            "version": running.version,
            "config": running.config or "none",
        }
    )
    return 0


def logs(*, tail: Tail = 200, follow: Follow = False) -> None:
    """Show what a gateway in the background logged."""
    from stoker.supervise.logs import tail as last_lines

    path = _home().gateway_log
    if not path.exists():
        raise StokerError(f"there is no {path}: no gateway was started in the background yet")
    if follow:
        _follow(tail)
    else:
        sys.stdout.write(last_lines(path, tail))


def _follow(tail: int) -> None:
    import trio

    from stoker.supervise.logs import follow

    async def pour() -> None:
        async for data in follow(_home().gateway_log, tail):
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()

    trio.run(pour)


def _home() -> Home:
    return Home.from_environment(os.environ)


def _running(home: Home) -> RunningGateway:
    running = read_gateway(home)
    if running is None:
        raise not_running(f"no gateway runs on {home.path}")
    return running


def _tell(home: Home, running: RunningGateway) -> None:
    print(f"the gateway runs at {running.url} (pid {running.pid})")
    print(f"its log: {home.gateway_log}")
    print(f"stop it with: {program()} gateway stop")

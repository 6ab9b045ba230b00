"""``stoker gateway start|stop|restart|status|logs``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from stoker.cli.activity import warn
from stoker.cli.background import arguments_of, folder_of, launch, leave, leave_engines, replace
from stoker.cli.finding import RunningGateway, not_running, read_gateway
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, Follow, Tail
from stoker.cli.orphans import tell_of_orphans
from stoker.cli.output import ago, print_json
from stoker.cli.pages import Record, print_page
from stoker.cli.serving import AS_CONFIGURED, Serving
from stoker.errors import StokerError
from stoker.home import Home

Now = Annotated[bool, Parameter("--now", help="Don't wait for requests that are under way.")]


def start(*, serving: Serving = AS_CONFIGURED) -> None:
    """Start the gateway in the background and wait until it answers.

    One that runs already is left as it is.
    """
    home = _home()
    if running := read_gateway(home):
        _tell_of(running)
        differs = serving.config is not None and str(serving.config.absolute()) != running.config
        if differs or serving.listen is not None:
            warn(f"it was left as it is; to start one as you say, stop it first: {program()} gateway stop")
        return
    path, settings = serving.find_settings()  # mistakes in it are told here, not in a log
    serving.require_door(path, settings)
    try:
        running = launch(home, serving.arguments(path))
    except StokerError:
        if (other := read_gateway(home)) is None:
            raise
        _tell_of(other)  # somebody else started one at the same time
        return
    _tell(home, running)


def stop(
    *,
    now: Now = False,
    keep_engines: Annotated[
        bool, Parameter(negative=(), help="Let engines run on; the next start finds them.")
    ] = False,
) -> None:
    """Stop the gateway and its engines, and wait until they are gone."""
    home = _home()
    running = _running(home)
    if keep_engines:
        leave_engines(home, running, now=now)
        print("the gateway is stopped; its engines run on")
        tell_of_orphans(home)
        return
    leave(home, running, now=now)
    print("the gateway is stopped")


def restart(
    *,
    now: Now = False,
    with_engines: Annotated[
        bool, Parameter(negative=(), help="Stop and start the engines too, and run in the background then.")
    ] = False,
) -> None:
    """Replace the gateway by what its file is by now; engines run on.

    It stays the same process at the same address, and clients wait meanwhile. Nothing happens where the new one
    would not start. With --with-engines it is stopped whole, and started again in the background.
    """
    home = _home()
    running = _running(home)
    if not with_engines:
        arguments_of(running)  # complains of what is no gateway
        _tell(home, replace(home, running, now=now))
        return
    arguments, folder = arguments_of(running), folder_of(running)
    leave(home, running, now=now)
    _tell(home, launch(home, arguments, folder))


def reload(*, as_json: AsJson = False) -> None:
    """Read stoker.toml again, do what changed in it, and say what.

    All of it is done, or nothing where it has a mistake. What did not change is not touched.
    """
    from stoker.cli.client import connect

    with connect() as client:
        difference = client.post("/reload")
    if as_json:
        print_json(difference)
        return
    words = {
        "added": "started",
        "removed": "stopped",
        "changed": "restarted",
        "updated": "changed while it runs",
        "unchanged": "left alone",
        "at_next_start": "waits for the next start of the gateway",
    }
    for name, meaning in words.items():
        if difference.get(name):
            print(f"{meaning}: {', '.join(difference[name])}")


def status(*, as_json: AsJson = False) -> int:
    """Show whether the gateway runs, and where.

    The exit code is 3 where it does not.
    """
    home = _home()
    running = read_gateway(home)
    if as_json:
        about = {"url": running.url, "pid": running.pid, "config": running.config} if running else {}
        print_json({"running": running is not None, **about})
        if running is None:
            tell_of_orphans(home)
        return 0 if running else 3
    if running is None:
        raise not_running(f"no gateway runs on {home.path}")
    about = {
        "address": running.url,
        "pid": running.pid,
        "started": ago(running.started_at),
        "version": running.version,
        "config": running.config or "none",
    }
    print_page([Record(about)])
    return 0


def logs(*, tail: Tail = 200, follow: Follow = False) -> None:
    """Show the end of what a gateway in the background logged."""
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


def _tell_of(running: RunningGateway) -> None:
    print(f"the gateway runs already at {running.url} (pid {running.pid})")


def _tell(home: Home, running: RunningGateway) -> None:
    print(f"the gateway runs at {running.url} (pid {running.pid})")
    print(f"its log: {home.gateway_log}")
    print(f"stop it with: {program()} gateway stop")

"""``stoker engine list|show|stop|logs``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.activity import Activity, warn
from stoker.cli.client import Client, connect, engine_path
from stoker.cli.invocation import as_typed, program
from stoker.cli.options import AsJson, EngineId, Follow, Tail, Watch
from stoker.cli.output import ago, load
from stoker.cli.pages import Record
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import NotFoundError, StokerError

COLUMNS = (
    Column("ENGINE", Fit.WHOLE),
    Column("MODEL", Fit.MIDDLE, spare=4),
    Column("RUNTIME", Fit.WHOLE, spare=3),
    Column("KIND", Fit.WHOLE, spare=1),
    Column("STATE", Fit.WHOLE),
    Column("SINCE", Fit.WHOLE, spare=5),
    Column("ACTIVE", Fit.WHOLE, spare=6),
    Column("GPUS", Fit.WHOLE, spare=2),
    "DETAIL",
)
TIMES = ("state_since", "created_at", "ready_at", "last_heartbeat", "restart_at")


def listing(*, as_json: AsJson = False, watch: Watch = False) -> None:
    """List all engines."""

    def look() -> list[dict[str, Any]]:
        with connect() as client:
            return client.listing("/engines")

    present(look, lambda engines: [_table(engines)], as_json=as_json, watch=watch, events=True)


def _table(engines: Sequence[Mapping[str, Any]]) -> Table:
    return Table(columns=COLUMNS, rows=[_row(info) for info in engines], empty="there are no engines", prose=True)


def detail(info: Mapping[str, Any]) -> str:
    """What else there is to say of an engine's state."""
    words: str = info.get("reason") or ""
    if words.upper() == info["state"]:
        words = ""
    if info["state"] == "ERROR":
        error = in_short(info.get("last_error"))
        words = f"{error} ({words})" if words else error
    return as_typed(words)


def in_short(error: str | None) -> str:
    """What happened, and the last of its log."""
    lines = (error or "").splitlines()
    return " ".join(dict.fromkeys(lines[:1] + lines[-1:]))


def _row(info: Mapping[str, Any]) -> tuple[object, ...]:
    limit = info.get("max_concurrency")
    active = info.get("active_requests", 0)
    return (
        info["engine_id"],
        info["model"],
        info["runtime"],
        info["kind"],
        info["state"],
        ago(info.get("state_since")).removesuffix(" ago"),
        f"{active}/{limit}" if limit else active,
        len(info.get("gpus") or ()),
        detail(info),
    )


def show(engine_id: EngineId, /, *, as_json: AsJson = False, watch: Watch = False) -> None:
    """Show one engine in detail."""

    def look() -> dict[str, Any]:
        with connect() as client:
            return client.get(engine_path(engine_id))

    def page(info: Mapping[str, Any]) -> list[Record]:
        return [Record({**info, **{name: ago(info.get(name)) for name in TIMES}, "load": load(info.get("load"))})]

    present(look, page, as_json=as_json, watch=watch, events=True)


def stop(
    engine_id: EngineId,
    /,
    *,
    drain: Annotated[bool, Parameter(negative="--no-drain", help="Let it finish its requests.")] = True,
    drain_timeout: Annotated[
        float | None, Parameter(metavar="SECONDS", help="Seconds it has for that; else what its spec says.")
    ] = None,
    forget: Annotated[bool, Parameter(help="Take it off the list when it is stopped.")] = False,
    wait: Annotated[bool, Parameter(negative="--no-wait", help="Wait until nothing of it is left.")] = True,
) -> None:
    """Drain and stop an engine, and wait until nothing of it is left."""
    with connect() as client:
        order_stop(client, engine_id, drain_order(drain=drain, drain_timeout=drain_timeout), forget=forget)
        if wait:
            try:
                _wait_until_stopped(client, engine_id)
            except KeyboardInterrupt:
                warn(f"{engine_id} goes on stopping; don't wait for its requests: {_hurry(engine_id, forget=forget)}")
                raise
    print(f"{engine_id} is {'stopped' if wait else 'stopping'}")


def _hurry(engine_id: str, *, forget: bool) -> str:
    return f"{program()} engine stop {engine_id} --no-drain" + (" --forget" if forget else "")


def drain_order(*, drain: bool, drain_timeout: float | None) -> dict[str, Any]:
    """The body that says how long an engine may take to finish its requests."""
    order: dict[str, Any] = {} if drain else {"drain": False}
    return order if drain_timeout is None else {**order, "drain_timeout_seconds": drain_timeout}


def order_stop(client: Client, engine_id: str, order: Mapping[str, Any], *, forget: bool) -> None:
    """Ask for the stop; returns before it is done."""
    if forget:
        client.delete(engine_path(engine_id), order)
    else:
        client.post(engine_path(engine_id, "stop"), order)


def _wait_until_stopped(client: Client, engine_id: str) -> None:
    with Activity(f"stopping {engine_id}") as activity:
        while True:
            try:
                info = client.get(engine_path(engine_id))
            except NotFoundError:
                return
            match info["state"]:
                case "STOPPED":
                    return
                case "DRAINING":
                    activity.update(f"{info['reason']}, {info['active_requests']} requests under way")
                case state:
                    raise StokerError(f"engine {engine_id!r} is {state}: somebody started it again meanwhile")
            activity.pause()


def logs(engine_id: EngineId, /, *, tail: Tail = 200, follow: Follow = False) -> None:
    """Show the end of what an engine printed.

    With --follow it goes on over restarts of the engine and, if it is back within half a minute, of the gateway;
    each is said on standard error.
    """
    if follow:
        from stoker.cli.following import follow as go_on

        go_on(engine_id, tail)
    silent = tail > 0
    with connect() as client:
        for text in client.text(engine_path(engine_id, "logs"), tail=tail):
            silent = silent and not text
            sys.stdout.write(text)
            sys.stdout.flush()
        if silent:
            warn(_why_silent(client.get(engine_path(engine_id))))


def _why_silent(info: Mapping[str, Any]) -> str:
    if info.get("origin") == "registered":
        return f"{info['engine_id']} was started by somebody else; its log is where it runs, at {info['base_url']}"
    return f"{info['engine_id']} has printed nothing yet; see: {program()} engine show {info['engine_id']}"

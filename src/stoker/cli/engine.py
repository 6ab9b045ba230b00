"""``stoker engine list|show|stop|logs``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.activity import Activity, warn
from stoker.cli.client import Client, connect, engine_path
from stoker.cli.invocation import as_typed, program
from stoker.cli.options import AsJson, EngineId, Follow, Tail
from stoker.cli.output import ago, load, print_json, print_record, print_table
from stoker.errors import NotFoundError, StokerError

COLUMNS = ("ENGINE", "MODEL", "RUNTIME", "KIND", "STATE", "SINCE", "ACTIVE", "GPUS", "DETAIL")
TIMES = ("created_at", "ready_at", "last_heartbeat", "restart_at")


def listing(*, as_json: AsJson = False) -> None:
    """List all engines."""
    with connect() as client:
        engines = client.listing("/engines")
    if as_json:
        print_json(engines)
    else:
        print_engines(engines)


def print_engines(engines: list[dict[str, Any]]) -> None:
    """Engines as a table."""
    print_table(COLUMNS, [_row(info) for info in engines], empty="there are no engines", prose=True)


def _row(info: Mapping[str, Any]) -> tuple[object, ...]:
    limit = info.get("max_concurrency")
    active = info.get("active_requests", 0)
    detail = info.get("reason") or ""
    if detail.upper() == info["state"]:
        detail = ""
    if info["state"] == "ERROR":
        lines = (info.get("last_error") or "").splitlines()
        error = " ".join(dict.fromkeys(lines[:1] + lines[-1:]))  # what happened, and the last of its log
        detail = f"{error} ({detail})" if detail else error
    return (
        info["engine_id"],
        info["model"],
        info["runtime"],
        info["kind"],
        info["state"],
        ago(info.get("ready_at") or info.get("created_at")).removesuffix(" ago"),
        f"{active}/{limit}" if limit else active,
        len(info.get("gpus") or ()),
        as_typed(detail),
    )


def show(engine_id: EngineId, /, *, as_json: AsJson = False) -> None:
    """Show one engine in detail."""
    with connect() as client:
        info = client.get(engine_path(engine_id))
    if as_json:
        print_json(info)
    else:
        print_record({**info, **{name: ago(info.get(name)) for name in TIMES}, "load": load(info.get("load"))})


def stop(
    engine_id: EngineId,
    /,
    *,
    drain: Annotated[bool, Parameter(negative="--no-drain", help="Let it finish its requests.")] = True,
    drain_timeout: Annotated[float | None, Parameter(help="Seconds it has for that; else what its spec says.")] = None,
    forget: Annotated[bool, Parameter(help="Take it off the list when it is stopped.")] = False,
    wait: Annotated[bool, Parameter(negative="--no-wait", help="Wait until nothing of it is left.")] = True,
) -> None:
    """Drain and stop an engine."""
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
    """Show what an engine printed."""
    silent = tail > 0
    with connect() as client:
        for text in client.text(engine_path(engine_id, "logs"), tail=tail, follow=int(follow)):
            silent = silent and not text
            sys.stdout.write(text)
            sys.stdout.flush()
        if silent:
            warn(_why_silent(client.get(engine_path(engine_id))))


def _why_silent(info: Mapping[str, Any]) -> str:
    if info.get("origin") == "registered":
        return f"{info['engine_id']} was started by somebody else; its log is where it runs, at {info['base_url']}"
    return f"{info['engine_id']} has printed nothing yet; see: {program()} engine show {info['engine_id']}"

"""``stoker status``: all that matters on one screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from stoker.cli.client import Client, connect
from stoker.cli.engine import detail, in_short
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, Watch
from stoker.cli.output import duration, size, times
from stoker.cli.pages import Page, Record
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import StokerError

GPU_SECONDS = 2.0  # a driver that hangs is no reason to wait for the rest
STATES = ("READY", "STARTING", "DRAINING", "ERROR", "STOPPED")
LONGEST_NAMES = 50  # characters
MOST_ROWS = 8  # of engines that are not READY, so that a fleet in trouble stays on one screen
COUNTED: Mapping[str, str] = MappingProxyType(
    {
        "errors": "failed",
        "stream_errors": "broke off in the middle",
        "refused": "met with a refusal",
        "retries": "had another attempt",
    }
)
ENGINES = (Column("ENGINE", Fit.WHOLE), Column("STATE", Fit.WHOLE), "WHY")
GPUS = (
    Column("GPU", Fit.WHOLE),
    Column("NAME", Fit.MIDDLE, spare=2),
    Column("MEMORY", Fit.WHOLE),
    Column("USE", Fit.WHOLE),
    Column("TEMPERATURE", Fit.WHOLE, spare=1),
    "ENGINES",
)


def status(*, as_json: AsJson = False, watch: Watch = False) -> None:
    """Show how the gateway is and what its engines do.

    On one screen: how many engines are in which state, those that are not READY and why, the GPUs, and what went
    wrong lately; with --watch also the requests per second.
    """
    present(_looker(), page, as_json=as_json, watch=watch, events=True)


def _looker() -> Callable[[], dict[str, Any]]:
    """Looks, and remembers when and at what: with the time before, it knows how many requests there are per second."""
    before: list[tuple[float, int]] = []

    def look() -> dict[str, Any]:
        with connect() as client:
            about = client.get("/status")
            engines = client.listing("/engines")
            gpus = _gpus(client)
            url = client.address.url
        now, count = time.monotonic(), about["counters"]["requests"]
        rate = None
        if before and count >= before[0][1]:  # fewer: it is another gateway
            rate = round((count - before[0][1]) / max(now - before[0][0], 1e-3), 1)
        before[:] = [(now, count)]
        return {"url": url, **about, "requests_per_second": rate, "engine_list": engines, "gpu": gpus}

    return look


def _gpus(client: Client) -> dict[str, Any]:
    try:
        return client.get("/gpu", patience_seconds=GPU_SECONDS)
    except StokerError as error:
        return {"gpus": [], "reason": str(error), "incomplete": True}


def page(about: Mapping[str, Any]) -> Page:
    """What :func:`status` shows of it."""
    engines, gpus = about["engine_list"], about["gpu"]
    blocks: list[Table | Record | str] = [Record(_record(about, engines, gpus))]
    if rows := [(each["engine_id"], each["state"], detail(each)) for each in engines if each["state"] != "READY"]:
        blocks += ["", Table(columns=ENGINES, rows=rows[:MOST_ROWS], empty="", prose=True)]
        if more := len(rows) - MOST_ROWS:
            blocks += [f"and {more} more: {program()} engine list"] if more > 0 else []
    if gpus["gpus"]:
        blocks += ["", Table(columns=GPUS, rows=[_gpu_row(each) for each in gpus["gpus"]], empty="")]
    if problems := list(_problems(about, engines, gpus)):
        blocks += ["", "lately", *(f"  {each}" for each in problems)]
    return blocks


def _record(
    about: Mapping[str, Any], engines: Sequence[Mapping[str, Any]], gpus: Mapping[str, Any]
) -> dict[str, object]:
    queue, counters = about["queue"], about["counters"]
    up = duration(about["uptime_seconds"])
    rate = about["requests_per_second"]
    counts = [f"{count} {state}" for state in STATES if (count := about["engines"].get(state))]
    return {
        "gateway": f"{about['url']} (pid {about['pid']}, version {about['version']}, up {up})",
        "home": about["home"],
        "policy": "; ".join(policy_line(policy) for policy in about["policies"]) or about["policy"],
        "served by": f"{' and '.join(about['lanes'])}, requests framed by {about['parser']}, "
        f"bodies read by {about['body_reader']}",
        "requests": f"{queue['in_flight']} with engines, {queue['waiting']} waiting, {counters['requests']} since start"
        + ("" if rate is None else f", {rate:g} per second"),
        "engines": ", ".join(counts) or f"none; start one with: {program()} engine start MODEL",
        "models": _models(engines),
        "GPUs": None if gpus["gpus"] else f"none: {gpus['reason']}",
        "shutting down": about["shutting_down"] or None,
    }


def _models(engines: Sequence[Mapping[str, Any]]) -> str:
    """The shortest names of the models that can be asked for now."""
    names = {min(each["names"], key=len): None for each in engines if each["state"] == "READY"}
    return ", ".join(names)


def policy_line(policy: Mapping[str, Any]) -> str:
    """One that is in use, for what, and whether it still does."""
    words: str = policy["name"]
    if policy["models"]:
        names = ", ".join(policy["models"])
        words += f" for {names if len(names) <= LONGEST_NAMES else str(len(policy['models'])) + ' models'}"
    if not policy["in_service"]:
        return f"{words} (OUT OF SERVICE: too slow; see the log)"
    count = sum(policy["failures"].values())
    return f"{words} (failed {times(count)})" if count else words


def _gpu_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    use, temperature = each["utilisation"], each["temperature"]
    used, total = each["memory_used"], each["memory_total"]
    return (
        each["index"],
        each["name"],
        f"{size(used)} of {size(total)}",
        "" if use is None else f"{use} %",
        "" if temperature is None else f"{temperature} °C",
        [held["engine_id"] for held in each["reservations"]],
    )


def _problems(about: Mapping[str, Any], engines: Sequence[Mapping[str, Any]], gpus: Mapping[str, Any]) -> Sequence[str]:
    """What went wrong and is not to be seen above."""
    counters = about["counters"]
    refused = [f"{counters[name]} {words}" for name, words in COUNTED.items() if counters[name]]
    return [
        *(f"plugin {name} was left out: {why}" for name, why in about.get("plugins_left_out", {}).items()),
        *([f"GPUs: {gpus['reason']}"] if gpus["gpus"] and gpus["reason"] else []),
        *(
            f"{each['engine_id']} was restarted {times(each['restarts'])}: {in_short(each['last_error'])}"
            for each in engines
            if each["state"] == "READY" and each["restarts"] and each["last_error"]
        ),
        *([f"of the requests: {', '.join(refused)}"] if refused else []),
    ]

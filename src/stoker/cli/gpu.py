"""``stoker gpu``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.client import connect
from stoker.cli.options import AsJson
from stoker.cli.output import ago, print_json, print_table, size
from stoker.errors import NotRunningError
from stoker.home import Home

GPU_COLUMNS = ("GPU", "NAME", "MEMORY", "PROMISED", "USE", "TEMPERATURE", "POWER", "ENGINES", "PROCESSES", "UUID")
LEDGER_COLUMNS = ("MODEL", "RUNTIME", "GPUS", "KIND OF GPU", "USED OF EACH", "BEFORE", "MEASURED", "ARGUMENTS")
AsLedger = Annotated[bool, Parameter("--ledger", help="Show what engines were measured to use of GPUs instead.")]


def gpu(*, ledger: AsLedger = False, as_json: AsJson = False) -> None:
    """Show the GPUs of this machine and who uses them. Without a gateway, nobody knows of engines."""
    if ledger:
        _show_ledger(as_json=as_json)
        return
    try:
        with connect() as client:
            report = client.get("/gpu")
    except NotRunningError:
        report = _read_here()
    if as_json:
        print_json(report)
        return
    print_table(GPU_COLUMNS, [_gpu_row(each) for each in report["gpus"]], empty=f"no GPUs: {report['reason']}")
    if report["gpus"] and report["reason"]:
        print(f"\n{report['reason']}")


def _show_ledger(*, as_json: bool) -> None:
    try:
        with connect() as client:
            entries = client.get("/gpu/ledger")["data"]
    except NotRunningError:
        entries = _read_ledger_here()
    if as_json:
        print_json(entries)
        return
    print_table(LEDGER_COLUMNS, [_ledger_row(each) for each in entries], empty="nothing was measured yet")


def _read_here() -> dict[str, Any]:
    import cattrs

    from stoker.gpu.nvml import read_gpus

    report: dict[str, Any] = cattrs.unstructure(read_gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))
    return report


def _read_ledger_here() -> list[dict[str, Any]]:
    import cattrs

    from stoker.gpu.ledger import read_ledger

    entries: list[dict[str, Any]] = cattrs.unstructure(list(read_ledger(Home.from_environment(os.environ).gpu_ledger)))
    return entries


def _gpu_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    use, temperature = each["utilisation"], each["temperature"]
    return (
        each["index"],
        each["name"],
        f"{size(each['memory_used'])} of {size(each['memory_total'])}",
        size(each["memory_promised"]) if each["reservations"] else "",
        "" if use is None else f"{use} %",
        "" if temperature is None else f"{temperature} °C",
        _power(each["power"], each["power_limit"]),
        [_holder(held) for held in each["reservations"]],
        [_process(process) for process in each["processes"]],
        each["uuid"],
    )


def _power(watts: float | None, limit: float | None) -> str:
    if watts is None:
        return ""
    return f"{watts:.0f} W" if limit is None else f"{watts:.0f} of {limit:.0f} W"


def _holder(held: Mapping[str, Any]) -> str:
    promised = "all of it" if held["memory"] is None else size(held["memory"])
    starting = ", starting" if held["starting"] else ""
    return f"{held['engine_id']} ({promised}, uses {size(held['used'])}{starting})"


def _process(process: Mapping[str, Any]) -> str:
    words = "" if process["memory_used"] is None else size(process["memory_used"])
    whose = "" if process["engine_id"] is None else f"of {process['engine_id']}"
    told = " ".join(filter(None, (words, whose)))
    return f"{process['pid']} ({told})" if told else str(process["pid"])


def _ledger_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        each["model"],
        each["runtime"],
        each["gpus"],
        f"{each['gpu']}, {size(each['gpu_memory'])}",
        size(each["used"]),
        size(each["used_before"]) if each["used_before"] else "",
        ago(each["measured_at"]),
        " ".join(each["args"]),
    )

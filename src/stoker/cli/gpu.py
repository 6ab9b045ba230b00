"""``stoker gpu``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.client import connect
from stoker.cli.finding import has_gateway
from stoker.cli.options import AsJson, Watch
from stoker.cli.output import ago, size
from stoker.cli.pages import Page
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.home import Home

GPU_COLUMNS = (
    Column("GPU", Fit.WHOLE),
    Column("NAME", Fit.MIDDLE, spare=5),
    Column("MEMORY", Fit.WHOLE),
    Column("PROMISED", Fit.WHOLE, spare=4),
    Column("USE", Fit.WHOLE),
    Column("TEMPERATURE", Fit.WHOLE, spare=3),
    Column("POWER", Fit.WHOLE, spare=2),
    "ENGINES",
    Column("PROCESSES", spare=6),
    Column("UUID", Fit.WHOLE, spare=1),
)
LEDGER_COLUMNS = (
    Column("MODEL", Fit.MIDDLE),
    Column("RUNTIME", Fit.WHOLE, spare=3),
    Column("GPUS", Fit.WHOLE),
    "KIND OF GPU",
    Column("USED OF EACH", Fit.WHOLE),
    Column("BEFORE", Fit.WHOLE, spare=1),
    Column("MEASURED", Fit.WHOLE, spare=2),
    Column("ARGUMENTS", spare=4),
)
AsLedger = Annotated[bool, Parameter("--ledger", help="Show what engines were measured to use of GPUs instead.")]


def gpu(*, ledger: AsLedger = False, as_json: AsJson = False, watch: Watch = False) -> None:
    """Show the GPUs of this machine and who uses them.

    That is memory used and promised, use, temperature, power, the engines that hold them and the processes that
    use them. It works without a gateway; then nobody knows of engines.
    """
    if ledger:
        present(_ledger, _ledger_page, as_json=as_json, watch=watch)
    else:
        present(_report, _report_page, as_json=as_json, watch=watch)


def _report() -> dict[str, Any]:
    if not has_gateway(Home.from_environment(os.environ), os.environ):
        return _read_here()
    with connect() as client:
        return client.get("/gpu")


def _ledger() -> list[dict[str, Any]]:
    if not has_gateway(Home.from_environment(os.environ), os.environ):
        return _read_ledger_here()
    with connect() as client:
        return client.listing("/gpu/ledger")


def _report_page(report: Mapping[str, Any]) -> Page:
    rows = [_gpu_row(each) for each in report["gpus"]]
    table = Table(columns=GPU_COLUMNS, rows=rows, empty=f"no GPUs: {report['reason']}")
    return [table, "", report["reason"]] if rows and report["reason"] else [table]


def _ledger_page(entries: list[dict[str, Any]]) -> Page:
    rows = [_ledger_row(each) for each in entries]
    return [Table(columns=LEDGER_COLUMNS, rows=rows, empty="nothing was measured yet")]


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

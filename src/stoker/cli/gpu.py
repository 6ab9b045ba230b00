"""``stoker gpu``."""

from __future__ import annotations

from typing import Any

from stoker.cli.client import connect
from stoker.cli.options import AsJson
from stoker.cli.output import print_json, print_table, size
from stoker.errors import NotRunningError

COLUMNS = ("GPU", "NAME", "MEMORY", "USE", "TEMPERATURE", "ENGINES", "UUID")


def gpu(*, as_json: AsJson = False) -> None:
    """Show the GPUs of this machine and who uses them. Without a gateway, nobody knows of engines."""
    try:
        with connect() as client:
            report = client.get("/gpu")
    except NotRunningError:
        report = _read_here()
    if as_json:
        print_json(report)
        return
    print_table(COLUMNS, [_row(each) for each in report["gpus"]], empty=f"no GPUs: {report['reason']}")


def _read_here() -> dict[str, Any]:
    import cattrs

    from stoker.gpu.inventory import read_gpus

    report: dict[str, Any] = cattrs.unstructure(read_gpus())
    return report


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    use, temperature = each["utilisation"], each["temperature"]
    return (
        each["index"],
        each["name"],
        f"{size(each['memory_used'])} of {size(each['memory_total'])}",
        "" if use is None else f"{use} %",
        "" if temperature is None else f"{temperature} °C",
        each["engines"],
        each["uuid"],
    )

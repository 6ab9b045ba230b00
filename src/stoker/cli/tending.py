"""``stoker engine sleep|wake`` and ``stoker engine adapter list|load|unload``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from stoker.cli.activity import Activity
from stoker.cli.client import connect, engine_path
from stoker.cli.options import AsJson, EngineId, Watch
from stoker.cli.presenting import present
from stoker.cli.tables import Table

ENGINE_SECONDS = 330.0  # the gateway gives the engine five minutes
DRAIN_SECONDS = 24 * 3600.0  # how long it may drain is the engine's own matter

AdapterName = Annotated[str, Parameter(help="What clients ask for.")]


def sleep(engine_id: EngineId, /) -> None:
    """Let an engine finish its requests, and put it to sleep.

    It has to be started for that. Its GPUs stay reserved, and it gets no requests until it is woken.
    """
    with connect() as client, Activity(f"putting {engine_id} to sleep"):
        client.post(engine_path(engine_id, "sleep"), patience_seconds=DRAIN_SECONDS + ENGINE_SECONDS)
    print(f"{engine_id} is asleep")


def wake(engine_id: EngineId, /) -> None:
    """Wake an engine."""
    with connect() as client, Activity(f"waking {engine_id}"):
        client.post(engine_path(engine_id, "wake"), patience_seconds=ENGINE_SECONDS)
    print(f"{engine_id} is awake")


def adapters(engine_id: EngineId, /, *, as_json: AsJson = False, watch: Watch = False) -> None:
    """List the LoRA adapters that were loaded into an engine while it runs."""

    def look() -> list[dict[str, Any]]:
        with connect() as client:
            return client.listing(engine_path(engine_id, "adapters"))

    def page(loaded: list[dict[str, Any]]) -> list[Table]:
        rows = [(each["name"],) for each in loaded]
        return [Table(columns=("ADAPTER",), rows=rows, empty=f"{engine_id} has loaded no adapter")]

    present(look, page, as_json=as_json, watch=watch, events=True)


def load(
    engine_id: EngineId,
    name: AdapterName,
    path: Annotated[str, Parameter(help="The folder of the adapter, or what the engine knows it by.")],
    /,
) -> None:
    """Load a LoRA adapter; clients can ask for it until the engine ends."""
    with connect() as client, Activity(f"loading {name} into {engine_id}"):
        order = {"name": name, "path": _absolute(path) if client.address.local else path}
        client.post(engine_path(engine_id, "adapters"), order, patience_seconds=ENGINE_SECONDS)
    print(f"{engine_id} serves {name}")


def unload(engine_id: EngineId, name: AdapterName, /) -> None:
    """Unload a LoRA adapter."""
    with connect() as client:
        client.delete(engine_path(engine_id, f"adapters/{quote(name, safe='')}"))
    print(f"{engine_id} no longer serves {name}")


def _absolute(path: str) -> str:
    """``path``, made absolute if it is there: the engine runs in another folder."""
    here = Path(path).expanduser()
    return str(here.absolute()) if here.exists() else path

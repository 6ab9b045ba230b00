"""Engines that run while no gateway does: it was killed, or stopped without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.cli.activity import warn
from stoker.cli.invocation import program
from stoker.cli.output import ago
from stoker.cli.tables import Column, Fit, Table
from stoker.home import Home
from stoker.model import KeptEngine, Stray
from stoker.store.database import StoreError
from stoker.store.engines import peek
from stoker.supervise.adoption import survey
from stoker.supervise.leftovers import find_strays

COLUMNS = (
    Column("ENGINE", Fit.WHOLE),
    Column("MODEL", Fit.MIDDLE, spare=1),
    Column("PID", Fit.WHOLE),
    Column("BEGAN", Fit.WHOLE),
)
STRAYS = (Column("PID", Fit.WHOLE), Column("ENGINE", Fit.WHOLE), Column("BEGAN", Fit.WHOLE), "COMMAND")
MOST_NAMED = 5


@attrs.frozen(kw_only=True)
class Orphan:
    """One of them. ``pid`` is its first process; ``adoptable`` says that the next gateway goes on with it.

    ``model`` is empty where nothing tells any more what it is.
    """

    engine_id: str
    model: str
    pid: int
    began_at: float
    adoptable: bool


def find_orphans(home: Home) -> list[Orphan]:
    """The engines of ``home``, on which no gateway runs, that have processes: in the order of its list, others last."""
    firsts: dict[str, Stray] = {}
    for each in sorted(find_strays(home.digest), key=lambda stray: stray.began_at):
        if each.engine_id:  # else it carries no marker, and belongs to one that does
            firsts.setdefault(each.engine_id, each)
    if not firsts:
        return []
    kept = _kept(home)
    living = {run.engine_id: run.pid for run in survey(each.run for each in kept.values() if each.run).living}
    places = {engine_id: place for place, engine_id in enumerate(kept)}
    return [
        Orphan(
            engine_id=engine_id,
            model=kept[engine_id].spec.model if engine_id in kept else "",
            pid=living.get(engine_id) or first.pid,
            began_at=first.began_at,
            adoptable=engine_id in living,
        )
        for engine_id, first in sorted(firsts.items(), key=lambda item: places.get(item[0], len(places)))
    ]


def _kept(home: Home) -> dict[str, KeptEngine]:
    try:
        return {each.engine_id: each for each in peek(home.state)}
    except StoreError:  # damaged, and then the next start can't go on with them either
        return {}


def orphans_table(orphans: Sequence[Orphan]) -> Table:
    """What they are, for people."""
    rows = [(each.engine_id, each.model, each.pid, ago(each.began_at)) for each in orphans]
    return Table(columns=COLUMNS, rows=rows, empty="")


def strays_table(strays: Sequence[Mapping[str, Any]]) -> Table:
    """Processes that nobody watches, as the gateway tells of them, for people."""
    rows = [(each["pid"], each["engine_id"], ago(each["began_at"]), each["command"]) for each in strays]
    return Table(columns=STRAYS, rows=rows, empty="", prose=True)


def tell_of_orphans(home: Home) -> None:
    """A line about them, and what can be done, on standard error; nothing where there are none."""
    if orphans := find_orphans(home):
        warn(remark(orphans))


def remark(orphans: Sequence[Orphan]) -> str:
    """That line."""
    names = [each.engine_id for each in orphans[:MOST_NAMED]]
    names += [f"{len(orphans) - MOST_NAMED} more"] if len(orphans) > MOST_NAMED else []
    run, them = ("engine runs", "it") if len(orphans) == 1 else ("engines run", "them")
    goes_on = any(each.adoptable for each in orphans)
    return (
        f"{len(orphans)} {run} on without a gateway: {', '.join(names)}; "
        f"{program()} gateway start {'goes on with' if goes_on else 'replaces'} {them}, "
        f"{program()} engine prune ends {them}"
    )

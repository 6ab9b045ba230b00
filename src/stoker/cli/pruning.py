"""``stoker engine prune``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stoker.cli.activity import Activity, warn
from stoker.cli.client import Client, connect
from stoker.cli.consent import Yes, require_consent
from stoker.cli.finding import has_gateway
from stoker.cli.options import AsJson
from stoker.cli.orphans import find_orphans, orphans_table, strays_table
from stoker.cli.output import print_json
from stoker.cli.pages import plain_lines
from stoker.cli.tables import Table
from stoker.home import Home

PATIENCE_SECONDS = 60.0


def prune(*, yes: Yes = False, as_json: AsJson = False) -> int:
    """Forget engines that have ended, and end processes that nobody watches.

    Engines of the configuration stay on the list. Without a gateway, its engines are what nobody watches. What would be
    ended is shown first: at a terminal you are asked, elsewhere it takes --yes.
    """
    home = Home.from_environment(os.environ)
    is_there = has_gateway(home, os.environ)
    if not yes and (found := _found_by_the_gateway() if is_there else _found_in(home)) is not None:
        require_consent("\n".join(plain_lines(found)))
    pruned = prune_by(connect()) if is_there else prune_in(home)
    if as_json:
        print_json(pruned)
    else:
        _tell(pruned)
    return 1 if pruned["remaining"] else 0


def _found_in(home: Home) -> list[str | Table] | None:
    """What would be ended; None where there is nothing."""
    heading, orphans = "These engines run on without a gateway, and would be ended:", find_orphans(home)
    return [heading, orphans_table(orphans)] if orphans else None


def _found_by_the_gateway() -> list[str | Table] | None:
    with connect() as client:
        heading, strays = "These processes belong to no engine, and would be ended:", client.listing("/strays")
    return [heading, strays_table(strays)] if strays else None


def prune_by(gateway: Client, *, keep_ended: bool = False) -> Mapping[str, Any]:
    """Have the gateway do it. With ``keep_ended`` no engine leaves the list."""
    with gateway as client, Activity("ending what nobody watches"):
        return client.post("/prune", {"keep_ended": keep_ended}, patience_seconds=PATIENCE_SECONDS)


def prune_in(home: Home) -> Mapping[str, Any]:
    """Do it, where no gateway runs on ``home``."""
    import trio

    from stoker.supervise import lock
    from stoker.supervise.leftovers import end_leftovers

    if not home.path.exists():
        return {"forgotten": [], "ended": [], "remaining": []}
    with lock.hold(home.lock), Activity("ending what nobody watches"):
        ended = trio.run(end_leftovers, home.digest)
    return {"forgotten": [], "ended": list(ended.found), "remaining": list(ended.remaining)}


def _tell(pruned: Mapping[str, Any]) -> None:
    if pruned["forgotten"]:
        print(f"forgotten: {', '.join(pruned['forgotten'])}")
    if pruned["ended"]:
        print(f"ended: {', '.join(map(str, pruned['ended']))}")
    if pruned["remaining"]:
        warn(f"these processes can't be ended: {', '.join(map(str, pruned['remaining']))}")
    if not any(pruned.values()):
        print("there is nothing to prune")

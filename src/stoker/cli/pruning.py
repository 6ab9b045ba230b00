"""``stoker engine prune``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stoker.cli.activity import Activity, warn
from stoker.cli.client import connect
from stoker.cli.options import AsJson
from stoker.cli.output import print_json
from stoker.errors import NotRunningError
from stoker.home import Home

PATIENCE_SECONDS = 60.0


def prune(*, as_json: AsJson = False) -> int:
    """Forget engines that have ended, and end processes that nobody watches.

    Engines of the configuration stay on the list. Without a gateway, its engines are what nobody watches.
    """
    pruned = prune_here()
    if as_json:
        print_json(pruned)
    else:
        _tell(pruned)
    return 1 if pruned["remaining"] else 0


def prune_here() -> Mapping[str, Any]:
    """Have the gateway do it; or do it, where there is none."""
    try:
        with connect() as client, Activity("ending what nobody watches"):
            answer: Mapping[str, Any] = client.post("/prune", patience_seconds=PATIENCE_SECONDS)
            return answer
    except NotRunningError:
        return _without_a_gateway()


def _without_a_gateway() -> Mapping[str, Any]:
    import trio

    from stoker.supervise import lock
    from stoker.supervise.leftovers import end_leftovers

    home = Home.from_environment(os.environ)
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

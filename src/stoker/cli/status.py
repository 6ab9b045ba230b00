"""``stoker status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.cli.client import connect
from stoker.cli.engine import print_engines
from stoker.cli.options import AsJson
from stoker.cli.output import duration, print_json, print_record


def status(*, as_json: AsJson = False) -> None:
    """Show how the gateway is and what its engines do."""
    with connect() as client:
        about = client.get("/status")
        engines = client.listing("/engines")
    if as_json:
        print_json({"url": client.address.url, **about})
        return
    queue = about["queue"]
    record = {
        "address": client.address.url,
        "version": about["version"],
        "up for": duration(about["uptime_seconds"]),
        "policy": "; ".join(policy_line(policy) for policy in about["policies"]),
        "lanes": f"{', '.join(about['lanes'])}; {_means(about)}",
        "requests": f"{queue['in_flight']} with engines, {queue['waiting']} waiting",
        "plugins left out": ", ".join(about.get("plugins_left_out", ())) or None,
        "shutting down": about["shutting_down"] or None,
    }
    print_record(record)
    print()
    print_engines(engines)


def policy_line(policy: Mapping[str, Any]) -> str:
    """One that is in use: what goes by it, and whether it still does."""
    words = policy["name"] + (f" for {', '.join(policy['models'])}" if policy["models"] else "")
    if not policy["in_service"]:
        return f"{words} (OUT OF SERVICE: too slow; see the log)"
    count = sum(policy["failures"].values())
    return f"{words} (failed {count} times)" if count else words


def _means(about: Mapping[str, Any]) -> str:
    return f"requests framed by {about['parser']}, bodies read by {about['body_reader']}"

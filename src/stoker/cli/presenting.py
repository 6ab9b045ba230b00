"""The one way from what a command found to a terminal, a pipe or a program that reads it; once, or again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from stoker.cli.output import print_json
from stoker.cli.pages import Page, print_page

WATCH_SECONDS = 2.0
T = TypeVar("T")


def present(
    look: Callable[[], T],
    page: Callable[[T], Page],
    *,
    as_json: bool,
    watch: bool | float = False,
    events: bool = False,
) -> None:
    """Show what ``look`` finds: as JSON, which is what it returns, or as the ``page`` of it; once, or again and again.

    ``events`` says that the gateway's stream of events tells of changes, so that nobody has to wait for them.
    """
    if watch is False:
        found = look()
        if as_json:
            print_json(found)
        else:
            print_page(page(found))
        return
    from stoker.cli.watching import keep_showing

    keep_showing(look, page, as_json=as_json, seconds=WATCH_SECONDS if watch is True else watch, events=events)

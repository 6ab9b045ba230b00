"""Lets events happen to the fleet, one at a time, and has the commands executed that follow."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs
import trio

from stoker.core.commands import Command
from stoker.core.engine import Engine, Fleet
from stoker.core.events import Event, TimePassed
from stoker.core.fleet import next_deadline, step

Observer = Callable[[Engine | None, Engine | None], None]
"""Told of an engine that changed, before and after, in the same step. Must not dispatch."""


@attrs.define(eq=False)
class Dispatcher:
    """Holds the one current fleet.

    :meth:`dispatch` is synchronous and so atomic: it needs no lock. Executing a command, or observing a change, must
    not dispatch again; whoever has something to say in answer starts a task that says it.
    """

    fleet: Fleet
    execute: Callable[[Command], None]
    observers: list[Observer] = attrs.field(factory=list)
    _busy: bool = False
    _deadlines_changed: trio.Event = attrs.field(factory=trio.Event)

    def dispatch(self, event: Event) -> None:
        """Let ``event`` happen now. Raises :class:`~stoker.errors.IllegalTransition` and then changes nothing."""
        assert not self._busy, f"{event} was dispatched while another event was being handled"
        self._busy = True
        try:
            before = self.fleet
            self.fleet, commands = step(before, event, trio.current_time())
            self._tell_observers(before)
            for command in commands:
                self.execute(command)
            self._deadlines_changed.set()
        finally:
            self._busy = False

    def _tell_observers(self, before: Fleet) -> None:
        for engine_id in {**before.engines, **self.fleet.engines}:
            old, new = before.get(engine_id), self.fleet.get(engine_id)
            if old is not new:
                for observe in self.observers:
                    observe(old, new)

    async def run_timer(self) -> None:
        """Dispatch :class:`TimePassed` whenever a deadline of the fleet comes. Runs until it is cancelled."""
        while True:
            self._deadlines_changed = trio.Event()
            due = next_deadline(self.fleet)
            with trio.CancelScope(deadline=inf if due is None else due):
                await self._deadlines_changed.wait()
                continue
            self.dispatch(TimePassed())

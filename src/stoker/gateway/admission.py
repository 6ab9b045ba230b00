"""The waiting room: a bounded queue before the engines, and the answers for those who can't be served."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, listed, shown
from stoker.gateway.guessing import Guesses
from stoker.gateway.routing import Lease, Prospect, RoutingTable, Ticket
from stoker.model import Backend
from stoker.settings import GatewaySettings


@attrs.frozen
class WaitingRoom:
    """Lets requests in, in the order they came, as room appears.

    A request waits while no engine has room for it, but one of its model will or is expected; ``queue_size`` requests
    may wait at once, each for ``queue_seconds`` in all, however often it comes back.
    """

    table: RoutingTable
    settings: GatewaySettings
    guesses: Guesses = attrs.field(factory=Guesses)

    async def admit(self, ticket: Ticket) -> Lease | Answer:
        """A lease, which the caller closes, or the error to answer. A cancelled request leaves no lease behind."""
        lease = self.table.open(ticket)
        if lease is not None:
            return lease
        prospect = self.table.prospect(ticket)
        if prospect is not Prospect.WAIT:
            return self._refusal(ticket, prospect)
        if self.table.waiting() >= self.settings.queue_size:
            return self._queue_full(ticket)
        return await self._wait(ticket)

    async def _wait(self, ticket: Ticket) -> Lease | Answer:
        began = trio.current_time()
        self.table.enqueue(ticket)
        try:
            prospect = await self._served(ticket, began + ticket.patience_seconds)
        except BaseException:  # cancelled, perhaps in the very moment in which it was given a lease
            if ticket.lease is not None:
                ticket.lease.close()
            raise
        finally:
            self.table.withdraw(ticket)
        ticket.patience_seconds -= trio.current_time() - began
        lease, ticket.lease = ticket.lease, None
        if lease is not None:
            return lease
        return self._time_out(ticket) if prospect is Prospect.WAIT else self._refusal(ticket, prospect)

    async def _served(self, ticket: Ticket, deadline: float) -> Prospect:
        """Return when the ticket has its lease, when it has nothing to hope for, or at ``deadline``."""
        with trio.CancelScope(deadline=deadline):
            while ticket.lease is None:
                ticket.woken = trio.Event()
                await ticket.woken.wait()
                prospect = self.table.prospect(ticket)
                if prospect is not Prospect.WAIT:
                    return prospect
        return Prospect.WAIT

    def _refusal(self, ticket: Ticket, prospect: Prospect) -> Answer:
        request = ticket.request
        if prospect is Prospect.CLOSED:
            message = self.table.closed_message or "the gateway is shutting down"
            return error(Code.SHUTTING_DOWN, message)
        if prospect is Prospect.UNKNOWN_MODEL:
            names, visible = self.table.names(), ticket.visible
            known = [name for name in names if visible is None or name in visible]
            message = f"the model {shown(request.model)} does not exist; {self.guesses.about(request.model, known)}"
            return error(Code.MODEL_NOT_FOUND, message, param="model")
        backends = self.table.of_model(request.model)
        if prospect is Prospect.UNKNOWN_PATH:
            served = listed(sorted(frozenset[str]().union(*(backend.paths for backend in backends))))
            message = f"the model {shown(request.model)} does not serve {request.path}; it serves: {served}"
            return error(Code.PATH_NOT_SERVED, message)
        why = _details([backend for backend in backends if request.path in backend.paths])
        message = f"no engine can take requests for the model {shown(request.model)}: {why}"
        return error(Code.NO_ENGINE, message)

    def _time_out(self, ticket: Ticket) -> Answer:
        why = _details(self.table.of_model(ticket.request.model))
        message = (
            f"no engine of the model {shown(ticket.request.model)} could take the request within "
            f"{self.settings.queue_seconds:g} seconds: {why}; try again, or raise queue_seconds"
        )
        return error(Code.QUEUE_TIMEOUT, message)

    def _queue_full(self, ticket: Ticket) -> Answer:
        message = (
            f"the engines of the model {shown(ticket.request.model)} are busy and {self.table.waiting()} requests wait "
            "already; try again, or raise queue_size"
        )
        return error(Code.QUEUE_FULL, message)


def _details(backends: Sequence[Backend]) -> str:
    lines = [f"{backend.engine_id}: {_state(backend)}" for backend in backends]
    return listed(lines, most=5)


def _state(backend: Backend) -> str:
    return "busy" if backend.accepting else backend.detail or "not ready"

"""An attempt that failed: who is told of it, and whether another one makes sense."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from stoker.gateway.answers import Answer
from stoker.gateway.budget import RetryBudget
from stoker.gateway.routing import Lease, Prospect, RoutingTable, Ticket

logger = logging.getLogger("stoker.gateway")

MOST_ATTEMPTS = 3  # a request that kills its engine must not go round the fleet
FOUND_FAILING_SECONDS = 2.0
SEEN_GONE_SECONDS = 0.1  # the exit of an engine is seen about when its connections break

Report = Callable[[str, int, str], None]
Probed = Callable[[str, int], Awaitable[None]]


class Kind(enum.Enum):
    """How an attempt failed, which decides about another one."""

    UNREACHED = "there was no connection, so that the engine saw nothing of the request"
    BROKEN = "the connection failed; if nobody else can take the request, the engine may be about to be replaced"
    UNAVAILABLE = "the engine says that it, or what is behind it, is not available"
    DOUBTFUL = "the engine says it has an internal error; whether it is the request's fault, its health will tell"


FAILED = {500: Kind.DOUBTFUL, 502: Kind.UNAVAILABLE, 503: Kind.UNAVAILABLE, 504: Kind.UNAVAILABLE}
"""The statuses that are a failure of the engine."""


@attrs.frozen
class Failure:
    """A failed attempt at the engine of ``lease``, and what the client is told if there is no other."""

    kind: Kind
    answer: Answer
    lease: Lease


@attrs.frozen(eq=False)
class Retries:
    """Says what becomes of requests whose engine failed.

    ``report(engine_id, incarnation, error)`` is told of every engine that failed a request. ``probed(engine_id,
    incarnation)`` returns once the engine has answered a probe since, or takes no requests any more.
    """

    table: RoutingTable
    budget: RetryBudget
    report: Report
    probed: Probed

    def suspect(self, lease: Lease, what: str, *, avoid: bool = True) -> None:
        """The engine failed a request. ``avoid`` it for a while, unless it may have been the request's fault."""
        backend = lease.backend
        logger.info("engine %s failed a request: %s", backend.engine_id, what, extra={"engine": backend.engine_id})
        if avoid:
            lease.suspect()
        self.report(backend.engine_id, backend.incarnation, what)

    async def make_sense(self, failure: Failure, ticket: Ticket) -> bool:
        """Whether another attempt makes sense; for that, see what becomes of the engine that failed.

        An attempt counts unless it only found that its engine is gone: that one can't have ended of the request.
        """
        lease, unreached = failure.lease, failure.kind is Kind.UNREACHED
        ticket.excluded |= {lease.term}
        ticket.spent += not unreached
        if ticket.spent == MOST_ATTEMPTS:
            return False
        doubtful, broken = failure.kind is Kind.DOUBTFUL, unreached or failure.kind is Kind.BROKEN
        alone = broken and self.table.prospect(ticket) is Prospect.NONE
        with trio.move_on_after(FOUND_FAILING_SECONDS if doubtful or alone else SEEN_GONE_SECONDS):
            if doubtful:
                await self.probed(lease.backend.engine_id, lease.backend.incarnation)
            elif broken:
                await lease.term.wait()
        gone = lease.term.is_set()
        ticket.spent += unreached and not gone
        if ticket.spent == MOST_ATTEMPTS or (doubtful and not gone):
            return False
        if self.table.prospect(ticket) is not Prospect.WAIT:
            return False
        # An engine that is gone can't fail more requests than it held: those need no budget.
        return gone or self.budget.withdraw()

    async def is_gone(self, lease: Lease) -> bool:
        """Whether an engine of which nobody can tell if it said all that it had to say turns out to be gone."""
        self.suspect(lease, "it ended a stream with its connection, and without [DONE]", avoid=False)
        with trio.move_on_after(FOUND_FAILING_SECONDS):
            await self.probed(lease.backend.engine_id, lease.backend.incarnation)
        return lease.term.is_set()

"""One request from its arrival to its answer: a lease, an exchange, perhaps another one, and the relay."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from stoker.errors import UpstreamError
from stoker.gateway.admission import WaitingRoom
from stoker.gateway.answers import Answer, error
from stoker.gateway.asking import Asked, read
from stoker.gateway.budget import RetryBudget
from stoker.gateway.counters import Counters
from stoker.gateway.failures import Exhausted, Unsendable
from stoker.gateway.headers import HeaderList, for_engine, request_id_of
from stoker.gateway.relay import Relay, Sink, deliver
from stoker.gateway.routing import Lease, Prospect, RoutingTable, Ticket
from stoker.gateway.upstream import UpstreamPool
from stoker.model import RouteRequest
from stoker.settings import GatewaySettings

logger = logging.getLogger("stoker.gateway")

MOST_ATTEMPTS = 3  # a request that kills its engine must not go round the fleet
FOUND_FAILING_SECONDS = 2.0
SEEN_GONE_SECONDS = 0.1  # the exit of an engine is seen about when its connections break

Report = Callable[[str, int, str], None]
Probed = Callable[[str, int], Awaitable[None]]


@attrs.frozen
class ProxyRequest:
    """A request to be proxied. ``path`` is decoded; the names of ``headers`` are lower case; ``body`` is whole."""

    path: str
    query: bytes
    headers: HeaderList
    body: bytes
    method: bytes = b"POST"


class _Kind(enum.Enum):
    """How an attempt failed, which decides about another one."""

    BROKEN = "the connection failed; if nobody else can take the request, the engine may be about to be replaced"
    UNAVAILABLE = "the engine says that it, or what is behind it, is not available"
    DOUBTFUL = "the engine says it has an internal error; whether it is the request's fault, its health will tell"


@attrs.frozen
class _Failure:
    """A failed attempt, and what the client is told if there is no other."""

    kind: _Kind
    answer: Answer


@attrs.frozen
class _Job:
    request: ProxyRequest
    request_id: bytes
    asked: Asked


_FAILURES = {500: _Kind.DOUBTFUL, 502: _Kind.UNAVAILABLE, 503: _Kind.UNAVAILABLE, 504: _Kind.UNAVAILABLE}


class Forwarder:
    """Forwards requests to engines of the table through the pool.

    ``report(engine_id, incarnation, error)`` is told of every engine that failed a request. ``probed(engine_id,
    incarnation)`` returns once the engine has answered a probe since, or takes no requests any more.
    """

    def __init__(
        self, table: RoutingTable, pool: UpstreamPool, settings: GatewaySettings, report: Report, probed: Probed
    ) -> None:
        self._table = table
        self._pool = pool
        self._settings = settings
        self._report = report
        self._probed = probed
        self._room = WaitingRoom(table, settings)
        self._budget = RetryBudget(settings.retry_ratio, table.clock)

    @property
    def counters(self) -> Counters:
        """What was counted so far."""
        return self._table.counters

    async def forward(self, request: ProxyRequest, sink: Sink) -> None:
        """Answer ``request`` into ``sink``, always: with an engine's answer or an error.

        Cancelling it ends the engine's work on it at once and gives its lease or its place in the queue back.
        """
        self.counters.requests += 1
        self._budget.deposit()
        request_id = request_id_of(request.headers)
        asked = await read(request.headers, request.body)
        if isinstance(asked, Answer):
            self.counters.refused += 1
            answer: Answer | None = asked
        else:
            answer = await self._serve(_Job(request, request_id, asked), sink)
        if answer is not None:
            await deliver(answer, sink, request_id)

    async def _serve(self, job: _Job, sink: Sink) -> Answer | None:
        """Try engines until one answers. The answer is returned, unless it was relayed already."""
        ticket = Ticket(self._route_request(job), self._settings.queue_seconds)
        failure: _Failure | None = None
        for attempt in range(1, MOST_ATTEMPTS + 1):
            admitted = await self._room.admit(ticket)
            if isinstance(admitted, Answer):
                if failure is not None:
                    break
                self.counters.refused += 1
                return admitted
            self.counters.retries += attempt > 1
            try:
                outcome = await self._attempt(job, admitted, sink)
            finally:
                admitted.close()
            if not isinstance(outcome, _Failure):
                return outcome
            failure = outcome
            if attempt < MOST_ATTEMPTS and not await self._may_retry(failure, admitted, ticket):
                break
        self.counters.errors += 1
        assert failure is not None
        return failure.answer

    async def _attempt(self, job: _Job, lease: Lease, sink: Sink) -> Answer | _Failure | None:
        backend, request = lease.backend, job.request
        relay = Relay(lease, sink, job.request_id)
        target = request.path.encode() + (b"?" + request.query if request.query else b"")
        headers = for_engine(
            request.headers, request_id=job.request_id, api_key=backend.api_key, streamed=job.asked.stream
        )
        try:
            async with self._pool.request(backend, request.method, target, headers, request.body) as response:
                answer = await relay.run(response)
        except Exhausted as ours:
            logger.warning("%s", ours)
            return error(503, f"the gateway has reached a limit of its machine: {ours}", code="exhausted", retry=True)
        except Unsendable as theirs:
            return error(400, str(theirs), code="invalid_header")
        except UpstreamError as broken:
            self._suspect(lease, str(broken))
            message = f"the engine {backend.engine_id} failed: {broken}"
            return _Failure(_Kind.BROKEN, error(502, message, code="engine_failed"))
        if relay.trouble is not None:
            self.counters.stream_errors += 1
            self._suspect(lease, relay.trouble)
        elif answer is not None and answer.status in _FAILURES:
            kind = _FAILURES[answer.status]
            self._suspect(lease, f"it answered with status {answer.status}", avoid=kind is not _Kind.DOUBTFUL)
            return _Failure(kind, answer)
        else:
            lease.succeeded()
        return answer

    async def _may_retry(self, failure: _Failure, lease: Lease, ticket: Ticket) -> bool:
        """Whether another attempt makes sense; for that, see what becomes of the engine that failed."""
        ticket.excluded.add(lease.term)
        doubtful, broken = failure.kind is _Kind.DOUBTFUL, failure.kind is _Kind.BROKEN
        alone = broken and self._table.prospect(ticket) is Prospect.NONE
        with trio.move_on_after(FOUND_FAILING_SECONDS if doubtful or alone else SEEN_GONE_SECONDS):
            if doubtful:
                await self._probed(lease.backend.engine_id, lease.backend.incarnation)
            elif broken:
                await lease.term.wait()
        gone = lease.term.is_set()
        if (doubtful and not gone) or self._table.prospect(ticket) is not Prospect.WAIT:
            return False
        # An engine that is gone can't fail more requests than it held: those need no budget.
        return gone or self._budget.withdraw()

    def _suspect(self, lease: Lease, what: str, *, avoid: bool = True) -> None:
        backend = lease.backend
        logger.info("engine %s failed a request: %s", backend.engine_id, what)
        if avoid:
            lease.suspect()
        self._report(backend.engine_id, backend.incarnation, what)

    def _route_request(self, job: _Job) -> RouteRequest:
        request, needs = job.request, self._table.needs
        headers = {}
        if "headers" in needs:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        return RouteRequest(
            request_id=job.request_id.decode(),
            model=job.asked.model,
            path=request.path,
            headers=headers,
            body=request.body if "body" in needs else b"",
        )

"""One request from its arrival to its answer: a lease, an exchange, perhaps another one, and the relay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

import attrs
import trio

from stoker.core.codes import Code
from stoker.errors import UpstreamError
from stoker.gateway.admission import WaitingRoom
from stoker.gateway.answers import Answer, error, error_body
from stoker.gateway.asking import Asked, BodyReader
from stoker.gateway.budget import RetryBudget
from stoker.gateway.callers import Caller
from stoker.gateway.conversing import PATH as IN_SESSIONS
from stoker.gateway.conversing import Conversations
from stoker.gateway.counters import Counters
from stoker.gateway.failures import Exhausted, NotConnected, Unsendable
from stoker.gateway.headers import RequestIds, for_policy
from stoker.gateway.heading import Heading
from stoker.gateway.job import CLIENT_GONE, Job, message_of, record_of_refusal
from stoker.gateway.keyring import KeyRing, open_ring
from stoker.gateway.measures import Measures
from stoker.gateway.relay import Relay, deliver
from stoker.gateway.retrying import FAILED, Failure, Kind, Probed, Report, Retries
from stoker.gateway.routing import Lease, RoutingTable, Ticket
from stoker.gateway.saying import SayingReader
from stoker.gateway.streaming import Sink
from stoker.gateway.tracing import Tracer
from stoker.gateway.upstream import UpstreamPool
from stoker.gateway.usage import usage_in
from stoker.model import RequestRecord, RouteRequest
from stoker.settings import GatewaySettings

logger = logging.getLogger("stoker.gateway")

LAST_WORDS_SECONDS = 0.4

Rewrite = Callable[[bytes, bytes, str], bytes]
Finished = Callable[[RequestRecord], None]
T = TypeVar("T")


class Forwarder:
    """Forwards requests to engines of the table through the pool.

    ``report`` and ``probed`` are as with :class:`~stoker.gateway.retrying.Retries`. ``reader`` finds out which model a
    request is for, ``read_said`` what policies want to know of it besides, and ``rewrite(content_type, body, name)``
    makes it ask for another. ``finished`` is given a record of every request that is over; it must not take long, nor
    raise. ``keys`` counts the requests of each caller, and knows what it may use. Without ``conversations`` a
    ``session_id`` is the engine's affair.
    """

    def __init__(
        self,
        table: RoutingTable,
        pool: UpstreamPool,
        settings: GatewaySettings,
        report: Report,
        probed: Probed,
        reader: BodyReader,
        read_said: SayingReader,
        rewrite: Rewrite,
        measures: Measures,
        finished: Finished | None = None,
        keys: KeyRing | None = None,
        conversations: Conversations | None = None,
    ) -> None:
        self.keys = keys or open_ring()
        self._conversations = conversations
        self._ids = RequestIds()
        self._tracer = Tracer(settings.trace_sample_ratio)
        self._table = table
        self._pool = pool
        self._reader = reader
        self._read_said = read_said
        self._finished = finished
        self._rewrite = rewrite
        self._measures = measures
        self._queue_seconds = settings.queue_seconds
        self._under_way: dict[Job, Sink] = {}
        self._room = WaitingRoom(table, settings)
        self._budget = RetryBudget(settings.retry_ratio, table.clock)
        self._retries = Retries(table, self._budget, report, probed)

    @property
    def counters(self) -> Counters:
        """What was counted so far."""
        return self._table.counters

    async def refuse(self, answer: Answer, sink: Sink, heading: Heading | None) -> None:
        """Answer a request into ``sink`` that nobody is to see, and count it. ``heading`` is there if it was read."""
        self.counters.requests += 1
        self.counters.refused += 1
        path = heading.path if heading else ""
        self._measures.finished("", "", path, answer.status, 0.0, 0.0)
        request_id = self._ids.of(heading.fields.get(b"x-request-id") if heading else None)
        if self._finished is not None:
            trace = self._tracer.of(heading.headers, heading.fields) if heading else self._tracer.of((), {})
            who = heading.caller.who if heading and heading.caller else ""
            self._finished(record_of_refusal(request_id, trace, who, path, answer))
        await deliver(answer, sink, request_id)

    async def forward(self, heading: Heading, body: bytes, sink: Sink, caller: Caller) -> None:
        """Answer a request of ``caller`` into ``sink``, always: with an engine's answer or an error. ``body`` is whole.

        Cancelling it ends the engine's work on it at once and gives its lease or its place in the queue back. Raises
        what the sink raises.
        """
        began = self._table.clock()
        self.counters.requests += 1
        self._budget.deposit()
        fields = heading.fields
        job = Job(heading, body, self._ids.of(fields.get(b"x-request-id")), self._tracer.of(heading.headers, fields))
        self._under_way[job] = sink
        try:
            await self._serve(caller, job, sink)
        except (trio.Cancelled, OSError):  # OSError: the sink's
            job.status = CLIENT_GONE
            if job.is_cut_short:
                await self._say_why(job, sink)
            raise
        except Exception:
            job.status, job.error = 500, "a defect of Stoker; its log says more"
            raise
        finally:
            del self._under_way[job]
            now = self._table.clock()
            first_byte = None if job.first_byte_at is None else job.first_byte_at - began
            self._measures.finished(job.model, job.engine_id, heading.path, job.status, now - began, first_byte)
            if job.engine_id:
                self._measures.relayed(job.model, job.engine_id, len(body), job.sent_bytes)
            if self._finished is not None:
                self._finished(job.record(caller.who, began, now))

    def cut_short(self) -> None:
        """End all requests that are under way: streams with an event that says why, those not yet answered with 503.

        Cancels what serves them, through their sinks: a scope of its own for each request would cost a tenth of it.
        """
        for job, sink in tuple(self._under_way.items()):
            job.is_cut_short = True
            sink.interrupt()

    async def _serve(self, caller: Caller, job: Job, sink: Sink) -> None:
        barred = self.keys.enter(caller)
        answer = await self._answer_to(caller, job, sink) if barred is None else self._refused(barred, job)
        if answer is not None:
            job.status, job.delivered = answer.status, True
            await deliver(answer, sink)
            job.first_byte_at = self._table.clock()

    async def _say_why(self, job: Job, sink: Sink) -> None:
        """The last words of a request that was cut short; not for long, as it is cancelled."""
        doing = self._table.closed_message or "Stoker is shutting down"
        message = f"{doing}, and the time for what was under way is over"
        job.error = message
        with trio.move_on_after(LAST_WORDS_SECONDS, shield=True), suppress(OSError):
            if job.relay is not None and job.relay.started:
                job.status = job.relay.status
                await job.relay.break_off(error_body(Code.SHUTTING_DOWN, message))
            elif job.delivered:
                await sink.abort()
            else:
                job.status = 503
                await deliver(self._ours(error(Code.SHUTTING_DOWN, message), job), sink)

    async def _answer_to(self, caller: Caller, job: Job, sink: Sink) -> Answer | None:
        """The answer to one who came in, and who leaves with it."""
        try:
            return await self._answer(caller, job, sink)
        finally:
            caller.leave()

    async def _answer(self, caller: Caller, job: Job, sink: Sink) -> Answer | None:
        """The answer, unless it was relayed already."""
        asked = await self._of_body(job, self._reader.read)
        if isinstance(asked, Answer):
            return self._refused(asked, job)
        barred = self.keys.refuse_model(caller, asked.model)
        if barred is not None:
            return self._refused(barred, job)
        job.asked, job.stream = asked.model, asked.stream
        if asked.session_id is not None and self._conversations is not None and job.heading.path == IN_SESSIONS:
            return await self._in_session(self._conversations, caller, job, sink, asked)
        return await self._by_engines(caller, job, asked, sink)

    async def _in_session(
        self, conversations: Conversations, caller: Caller, job: Job, sink: Sink, asked: Asked
    ) -> Answer | None:
        """The answer to a request of a stored conversation, when its turn has come."""
        reach = self.keys.reach(caller, job.heading.fields)
        opened = reach if isinstance(reach, Answer) else await conversations.open(job, asked.session_id, reach)
        if isinstance(opened, Answer):
            return self._refused(opened, job)
        return await opened.run(sink, partial(self._by_engines, caller, job, asked))

    async def _by_engines(self, caller: Caller, job: Job, asked: Asked, sink: Sink) -> Answer | None:
        """The answer of an engine, or why there is none, unless it was relayed already."""
        request = RouteRequest(request_id=job.request_id.decode(), model=asked.model, path=job.heading.path)
        needs = self._table.needs(asked.model)
        if needs:
            await self._tell(request, job, needs)
        ticket = Ticket(request, self._queue_seconds, visible=caller.models)
        failure: Failure | None = None
        while failure is None or await self._retries.make_sense(failure, ticket):
            admitted = await self._room.admit(ticket)
            if isinstance(admitted, Answer):
                if failure is not None:
                    break
                job.model = self._table.proper_name(asked.model)
                return self._refused(admitted, job)
            job.attempts += 1
            if failure is not None:
                self.counters.retries += 1
            elif self._finished is not None:
                job.leased_at = self._table.clock()
            try:
                outcome = await self._attempt(job, admitted, sink)
            finally:
                admitted.close()
            if not isinstance(outcome, Failure):
                return outcome
            failure = outcome
        self.counters.errors += 1
        assert failure is not None
        return failure.answer

    async def _attempt(self, job: Job, lease: Lease, sink: Sink) -> Answer | Failure | None:
        backend = lease.backend
        job.model, job.engine_id, job.error = backend.model, backend.engine_id, ""
        relay = job.relay = Relay(lease, sink, job.request_id, self._measures, self._table.clock, self._retries.is_gone)
        try:
            body = job.body if not backend.renames else await self._renamed(job, backend.renames)
            streamed = job.stream or job.session_id != ""  # what is listened to must be readable as well
            lines = job.heading.lines(streamed=streamed) + job.trace.lines()
            target, carried = job.heading.target, lease.carried
            connection = await self._pool.request(backend, target, lines, job.request_id, body, carried)
            try:
                answer = await relay.run(connection)
            finally:
                lease.carried(None)  # the connection may be another request's soon
                self._pool.give_back(backend.base_url, connection)
                self._measure(job, relay)
        except Exhausted as ours:
            logger.warning("%s", ours)
            message = f"the gateway has reached a limit of its machine: {ours}"
            return self._ours(error(Code.EXHAUSTED, message), job)
        except Unsendable as wrong:
            about = {"engine": backend.engine_id, "request_id": job.request_id.decode()}
            logger.warning("engine %s can't be asked: %s", backend.engine_id, wrong, extra=about)
            return self._ours(error(Code.ENGINE_MISCONFIGURED, str(wrong)), job)
        except UpstreamError as broken:
            self._retries.suspect(lease, str(broken))
            message = f"the engine {backend.engine_id} failed: {broken}"
            kind = Kind.UNREACHED if isinstance(broken, NotConnected) else Kind.BROKEN
            return Failure(kind, self._ours(error(Code.ENGINE_FAILED, message), job), lease)
        if relay.trouble is not None:
            self.counters.stream_errors += 1
            job.error = relay.trouble
            self._retries.suspect(lease, relay.trouble)
        elif answer is not None and answer.status in FAILED:
            kind = FAILED[answer.status]
            job.error = f"it answered with status {answer.status}"
            self._retries.suspect(lease, job.error, avoid=kind is not Kind.DOUBTFUL)
            return Failure(kind, answer, lease)
        else:
            lease.succeeded()
            if answer is not None:
                job.sent_bytes = len(answer.body)
        return answer

    async def _renamed(self, job: Job, renames: Mapping[str, str]) -> bytes:
        """The body, asking for the model by the name that the engine knows."""
        name = renames.get(job.asked)
        if name is None:
            return job.body
        return await self._of_body(job, self._rewrite, name)

    async def _of_body(self, job: Job, function: Callable[..., T], *args: object) -> T:
        """What ``function`` makes of the body's content type and the body; in a thread if that is large."""
        content_type = job.heading.fields.get(b"content-type", b"")
        if len(job.body) <= self._reader.large_body:
            return function(content_type, job.body, *args)
        return await trio.to_thread.run_sync(function, content_type, job.body, *args)

    def _measure(self, job: Job, relay: Relay) -> None:
        """Note what the relay says of the answer, however it ended."""
        if relay.started:
            job.status = relay.status
            job.first_byte_at = relay.first_byte_at
            job.sent_bytes = relay.sent_bytes
        usage = usage_in(relay.ends)
        if usage is not None:
            job.usage = usage
            self._measures.tokens(job.model, job.engine_id, usage)

    def _refused(self, answer: Answer, job: Job) -> Answer:
        """An answer that keeps the request from the engines."""
        self.counters.refused += 1
        return self._ours(answer, job)

    def _ours(self, answer: Answer, job: Job) -> Answer:
        """An answer that no engine gave, with what an engine's has."""
        job.error = message_of(answer)
        return attrs.evolve(answer, headers=[*answer.headers, (b"x-request-id", job.request_id)])

    async def _tell(self, request: RouteRequest, job: Job, needs: frozenset[str]) -> None:
        """Add to ``request`` what the policy of its model needs."""
        if "headers" in needs:
            request.headers = for_policy(job.heading.fields)
        if "body" in needs:
            request.body = job.body
        if "prompt" in needs or "session" in needs:
            said = await self._of_body(job, self._read_said)
            request.prompt, request.session = said.prompt, job.session_id or said.session

"""Chat requests that go on with a stored conversation: what was said before goes with them, and they are kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import attrs
import trio

from stoker.core.codes import Code
from stoker.core.conversation import Budget, History, Message, Turn, split_instructions
from stoker.errors import NoSessionError, StokerError
from stoker.gateway.answers import Answer, error
from stoker.gateway.callers import Reach
from stoker.gateway.composing import composed, own_messages
from stoker.gateway.counters import Counters
from stoker.gateway.hearing import Hearing, ListeningSink, heard_at_once
from stoker.gateway.job import Job
from stoker.gateway.streaming import Sink
from stoker.gateway.turns import Release, Turns
from stoker.settings import GatewaySettings, SessionSettings

logger = logging.getLogger("stoker.gateway")

PATH = "/v1/chat/completions"
LARGE_BODY = 512 * 1024  # bytes from which on it is composed in a thread

Ask = Callable[[Sink], Awaitable[Answer | None]]
T = TypeVar("T")


class Archive(Protocol):
    """Where conversations are kept. Methods raise StokerError while they can't be had."""

    async def check(self, session_id: str, owner: str | None) -> None:
        """Raise NoSessionError where there is none of that id, or none that ``owner`` may see."""
        ...

    async def recall(self, session_id: str, owner: str | None, budget: Budget) -> History:
        """What of a conversation is sent again. Raises NoSessionError."""
        ...

    async def keep(self, session_id: str, turn: Turn) -> bool:
        """Add a turn. Whether it is kept; why it is not stands in the log then."""
        ...


class Conversations:
    """All that are kept, and the order of their requests."""

    def __init__(
        self, archive: Archive, settings: SessionSettings, gateway: GatewaySettings, counters: Counters
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._most_bytes = gateway.max_body_bytes
        self._counters = counters
        self._turns = Turns(gateway.queue_size, gateway.queue_seconds)

    async def open(self, job: Job, session_id: object, reach: Reach) -> Exchange | Answer:
        """Return when it is the turn of ``job``, whose body then says all that was said before; or an error.

        What is returned has to be run. A request that is cancelled while it waits leaves nothing behind.
        """
        if not isinstance(session_id, str) or not session_id:
            message = "'session_id' must be the id of a session, a text; POST /sessions makes one"
            return error(Code.INVALID_TYPE, message, param="session_id")
        own = await _unhurried(len(job.body), lambda: own_messages(job.body))
        if isinstance(own, Answer):
            return own
        try:
            await self._archive.check(session_id, reach.whose)
            release = await self._turns.take(session_id)
            if isinstance(release, Answer):
                return release
            try:
                await self._go_on(job, session_id, reach, own)
            except BaseException:
                release()
                raise
        except NoSessionError as missing:
            return error(Code.SESSION_NOT_FOUND, str(missing), param="session_id")
        except StokerError as trouble:
            return error(Code.STATE_UNAVAILABLE, str(trouble))
        job.session_id = session_id
        return Exchange(self._archive, self._counters, job, own, release)

    async def _go_on(self, job: Job, session_id: str, reach: Reach, own: tuple[Message, ...]) -> None:
        settings = self._settings
        room = max(0, self._most_bytes - len(job.body))
        budget = Budget(turns=settings.max_turns, tokens=settings.max_tokens, size=room)
        history = await self._archive.recall(session_id, reach.whose, budget)
        size = len(job.body) + sum(turn.size for turn in history.turns)
        job.body = await _unhurried(size, lambda: composed(job.body, history, own))


@attrs.define(eq=False)
class Exchange:
    """One request of a conversation, from its turn on."""

    _archive: Archive
    _counters: Counters
    _job: Job
    _own: tuple[Message, ...]
    _release: Release
    _hearing: Hearing = attrs.field(factory=Hearing)
    _settled: bool = False

    async def run(self, sink: Sink, ask: Ask) -> Answer | None:
        """Have ``ask`` answer into a sink that listens, and keep what was said. What it returns is returned.

        A whole answer is kept before its end is sent. One that breaks off, or whose client leaves, is kept as far as
        it came, and marked. Of an error nothing is.
        """
        headers = [(b"x-stoker-session", self._job.session_id.encode())]
        listening = ListeningSink(sink, headers, self._hearing, self._keep)
        try:
            answer = await ask(listening)
            if answer is None:
                return None
            if answer.status < 300:
                self._hearing = heard_at_once(answer.body)
                await self._keep()
            self._settled = True
            return attrs.evolve(answer, headers=[*answer.headers, *headers])
        finally:
            try:
                if not self._settled and (listening.started or self._is_with_an_engine()):
                    await self._keep()
            finally:
                self._release()

    def _is_with_an_engine(self) -> bool:
        relay = self._job.relay
        return relay is not None and not relay.started

    async def _keep(self) -> None:
        if self._settled:
            return
        self._settled = True
        hearing, job = self._hearing, self._job
        message = hearing.message
        if hearing.whole and message is None:
            self._counters.turns_lost += 1
            logger.warning("an answer of %s is not kept in its session: it is none of a chat", job.engine_id)
            return
        instructions, rest = split_instructions(self._own)
        turn = Turn(
            messages=rest if message is None else (*rest, message),
            model=job.asked,
            aborted=not hearing.whole,
            instructions=instructions or None,
        )
        with trio.CancelScope(shield=True):  # a client that leaves now has had its answer, or all it will get
            kept = await self._archive.keep(job.session_id, turn)
        if not kept:
            self._counters.turns_lost += 1
        elif turn.aborted:
            self._counters.turns_aborted += 1
        else:
            self._counters.turns_kept += 1


async def _unhurried(size: int, function: Callable[[], T]) -> T:
    """What ``function`` gives; in a thread where it has much to do."""
    return function() if size <= LARGE_BODY else await trio.to_thread.run_sync(function)

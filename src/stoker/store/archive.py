"""Where stored conversations are, for whoever asks about them while a gateway runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import attrs
import trio

from stoker.core.conversation import Budget, History, Turn
from stoker.errors import NoSessionError
from stoker.store import sessions
from stoker.store.database import Database, StoreError, T, Work

log = logging.getLogger("stoker.store")

DAY_SECONDS = 86400.0
SWEEP_SECONDS = 3600.0
SWEPT_AT_ONCE = 100  # so that others get at the file between them


@attrs.frozen
class SessionArchive:
    """The conversations of a gateway. ``database`` is None where the state file can't be used.

    Methods raise StoreError then, and where the disk will not have it. ``clock`` gives seconds since the Unix epoch.
    """

    database: Database | None
    clock: Callable[[], float] = time.time

    async def run(self, work: Work[T]) -> T:
        """Do ``work``, and raise what it raises."""
        if self.database is None:
            raise StoreError("the state file can't be used, and sessions are kept in it; the gateway's log says why")
        return await self.database.run(work)

    async def check(self, session_id: str, owner: str | None) -> None:
        """Raise NoSessionError where ``owner`` has no such conversation."""
        await self.run(sessions.check(session_id, owner))

    async def recall(self, session_id: str, owner: str | None, budget: Budget) -> History:
        """What of a conversation is sent again. Raises NoSessionError, also for one that ``owner`` may not see."""
        return await self.run(sessions.recall(session_id, owner, budget))

    async def keep(self, session_id: str, turn: Turn) -> bool:
        """Add a turn to a conversation. Whether it is kept: one that was forgotten meanwhile gets nothing more.

        What keeps it from it is logged: the answer is there, and not worth less.
        """
        now = self.clock()
        try:
            await self.run(sessions.addition(session_id, turn, now))
        except NoSessionError:
            return False
        except StoreError as error:
            log.error("a turn of the session %s is not kept: %s", session_id, error)  # noqa: TRY400 - it says all
            return False
        return True

    async def clean_up(self, before: float, owner: str | None) -> int:
        """Forget those of ``owner`` (None: all) in which nothing happened since ``before``; how many."""
        count = 0
        while swept := await self.run(sessions.cleanup(before, owner, SWEPT_AT_ONCE)):
            count += swept
        return count

    async def keep_clean(self, keep_days: float) -> None:
        """Forget, now and every hour, all in which nothing happened for ``keep_days``. Runs until cancelled."""
        while True:
            try:
                if count := await self.clean_up(self.clock() - keep_days * DAY_SECONDS, None):
                    log.info("forgot %d sessions in which nothing happened for %g days", count, keep_days)
            except StoreError as error:
                log.error("old sessions are not forgotten: %s", error)  # noqa: TRY400 - it says all there is to say
            await trio.sleep(SWEEP_SECONDS)

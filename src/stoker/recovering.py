"""What outlives a run: the state file, the list of engines in it, and what an earlier Stoker left of both."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import trio

from stoker.model import EngineRun, KeptEngine
from stoker.store.database import Database, StoreError, open_database
from stoker.store.engines import EngineStore
from stoker.store.schema import MIGRATIONS
from stoker.supervise.adoption import survey
from stoker.supervise.keeping import Keeper
from stoker.supervise.leftovers import end_leftovers

log = logging.getLogger("stoker.app")


@attrs.frozen
class Recovered:
    """What an earlier Stoker left: the list of its engines, and those that still run."""

    kept: Sequence[KeptEngine]
    living: Sequence[EngineRun]


@contextlib.asynccontextmanager
async def open_state(path: Path) -> AsyncIterator[Database | None]:
    """The state file; None, and an error in the log, where there can be none."""
    try:
        database = await trio.to_thread.run_sync(open_database, path, MIGRATIONS)
    except StoreError as error:
        log.error("%s; nothing is kept beyond this run", error)  # noqa: TRY400 - it says all there is to say
        yield None
        return
    try:
        yield database
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(database.close)


@contextlib.asynccontextmanager
async def keep_engines(store: EngineStore | None) -> AsyncIterator[Keeper]:
    """What keeps the list of engines, for as long as the block lasts, and in its end. None keeps nothing."""
    keeper = Keeper(_save_nothing if store is None else store.save)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield keeper
        nursery.cancel_scope.cancel()


async def _save_nothing(engines: Sequence[KeptEngine]) -> None:
    """For a run without a state file."""


async def recover(store: EngineStore | None, home_digest: str) -> Recovered:
    """Find what an earlier Stoker left. What runs of it and is on no list is ended."""
    kept = () if store is None else await _load(store)
    runs = [each.run for each in kept if each.run is not None]
    found = await trio.to_thread.run_sync(survey, runs)
    for doubt in found.doubtful:
        log.warning("%s", doubt)
    leftovers = await end_leftovers(home_digest, [run.mark for run in found.living])
    if leftovers.found:
        log.warning("ended what an earlier run left behind: pids %s", leftovers.found)
    if leftovers.remaining:
        log.error("these processes of an earlier run can't be ended: pids %s", leftovers.remaining)
    return Recovered(kept, found.living)


async def _load(store: EngineStore) -> Sequence[KeptEngine]:
    try:
        return await store.load()
    except StoreError as error:
        log.error("the engines of an earlier run can't be found again: %s", error)  # noqa: TRY400
        return ()

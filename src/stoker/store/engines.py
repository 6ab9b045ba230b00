"""The engines that are wanted, and the processes that run, for the next Stoker to find."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import cattrs

from stoker.model import EngineRun, EngineSpec, KeptEngine, Origin
from stoker.store.database import Database
from stoker.store.looking import look

log = logging.getLogger("stoker.store")

_Row = tuple[str, str, int, int, str, str | None]

_READ = "SELECT engine_id, origin, configured, wanted, spec, run FROM engines ORDER BY place"
_WRITE = "INSERT INTO engines (engine_id, place, origin, configured, wanted, spec, run) VALUES (?, ?, ?, ?, ?, ?, ?)"


@attrs.frozen
class EngineStore:
    """The table of engines. It is written whole: there are few, and so it never is a mixture of two lists."""

    database: Database
    _converter: cattrs.Converter = attrs.field(factory=cattrs.Converter)

    async def load(self) -> tuple[KeptEngine, ...]:
        """The engines of the last :meth:`save`, in their order. A row that can't be understood is left out, and named.

        Raises :class:`stoker.store.database.StoreError`.
        """
        return tuple(_understood(await self.database.run(_rows), self._converter))

    async def save(self, engines: Sequence[KeptEngine]) -> bool:
        """Keep these and no others. Whether they are kept: what keeps them from it is logged."""
        rows = [self._row(place, engine) for place, engine in enumerate(engines)]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM engines")
            connection.executemany(_WRITE, rows)

        return await self.database.try_to(write, "the list of engines was")

    def _row(self, place: int, engine: KeptEngine) -> tuple[object, ...]:
        spec = json.dumps(self._converter.unstructure(engine.spec))
        run = None if engine.run is None else json.dumps(self._converter.unstructure(engine.run))
        return engine.engine_id, place, engine.origin.value, engine.configured, engine.wanted, spec, run


def peek(path: Path) -> tuple[KeptEngine, ...]:
    """The engines in the state file ``path``, which is left as it is; none if it is missing. Blocks.

    Raises :class:`stoker.store.database.StoreError`.
    """
    return tuple(_understood(look(path, "engines", _rows, []), cattrs.Converter()))


def _rows(connection: sqlite3.Connection) -> list[_Row]:
    return list(connection.execute(_READ))


def _understood(rows: Sequence[_Row], converter: cattrs.Converter) -> Iterator[KeptEngine]:
    for engine_id, origin, configured, wanted, spec, run in rows:
        try:
            yield KeptEngine(
                engine_id=engine_id,
                spec=converter.structure(json.loads(spec), EngineSpec),
                origin=Origin(origin),
                configured=bool(configured),
                wanted=bool(wanted),
                run=None if run is None else converter.structure(json.loads(run), EngineRun),
            )
        except (ValueError, TypeError, KeyError, RecursionError, cattrs.BaseValidationError) as error:
            log.warning("what was kept of engine %r can't be understood, and is left out: %r", engine_id, error)

"""The management endpoints of API keys, and the desk behind them: what is changed in the state file counts at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import trio
from quart import Blueprint, Response, request

from stoker.core.keys import ApiKey, KeyOrder, key_order
from stoker.gateway.keyring import KeyRing
from stoker.store.database import Database, StoreError, T, Work
from stoker.store.keys import creation, listing, revocation
from stoker.web.reading import read_object
from stoker.web.wire import Wire


@attrs.define(eq=False)
class KeyDesk:
    """Makes and revokes keys, and hands all of them to ``ring`` after each change.

    ``database`` is None where the state file can't be used; then StoreError is raised, as it is for a full disk.
    """

    database: Database | None
    ring: KeyRing
    clock: Callable[[], float] = time.time
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def all(self) -> tuple[ApiKey, ...]:
        """All keys there ever were. Reads them anew, so that those of another process count from now on."""
        return (await self._do(listing))[1]

    async def create(self, order: KeyOrder) -> tuple[ApiKey, str]:
        """A new key, and its text, which nobody can have again."""
        return (await self._do(creation(order, self.clock())))[0]

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key: requests that come from now on are refused. Raises NotFoundError."""
        return (await self._do(revocation(key_id, self.clock())))[0]

    async def _do(self, work: Work[T]) -> tuple[T, tuple[ApiKey, ...]]:
        """Do it, and give the keys to the ring. What is in the file is in the ring, also when this is cancelled."""
        if self.database is None:
            raise StoreError("the state file can't be used, and keys stand in it; the gateway's log says why")
        async with self._turn:  # or an older list could come after a newer one
            done, keys = await self.database.run(lambda connection: (work(connection), listing(connection)))
            self.ring.replace(keys)
        return done, keys


@attrs.frozen
class KeyEndpoints:
    """What stands below ``/v1/management/keys``."""

    desk: KeyDesk
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``, below its prefix."""
        blueprint.add_url_rule("/keys", view_func=self.keys, methods=["GET"])
        blueprint.add_url_rule("/keys", view_func=self.create_key, methods=["POST"])
        blueprint.add_url_rule("/keys/<key_id>", view_func=self.revoke_key, methods=["DELETE"])

    async def keys(self) -> Response:
        """``GET /keys``: all API keys there ever were, without their texts."""
        return self.wire.listing([key.shown() for key in await self.desk.all()])

    async def create_key(self) -> Response:
        """``POST /keys``: make an API key. Its text is in this answer, as ``key``, and can't be had again."""
        key, text = await self.desk.create(key_order(await read_object(request), "the request"))
        return self.wire.answer({**key.shown(), "key": text}, 201)

    async def revoke_key(self, key_id: str) -> Response:
        """``DELETE /keys/{id}``: revoke an API key, at once and for good; it stays in the listing."""
        await read_object(request, optional=True)
        return self.wire.answer((await self.desk.revoke(key_id)).shown())

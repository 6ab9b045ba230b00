"""Who may come in, put together: the keys of the state file, the admin token, and the address that is listened on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from stoker.config import parse_listen, require_a_door
from stoker.core.keys import ApiKey
from stoker.errors import StokerError
from stoker.gateway.keyring import KeyRing
from stoker.home import Home
from stoker.settings import GatewaySettings
from stoker.store.database import Database, StoreError
from stoker.store.keys import listing, peek, there_is_one
from stoker.web.keys import KeyDesk
from stoker.web.token import AdminToken

log = logging.getLogger("stoker.doors")


def check_address(settings: GatewaySettings, home: Home) -> None:
    """Raises :class:`StokerError` for an address that others could reach, if nothing would keep them out. Blocks."""
    listen = parse_listen(settings.listen)
    if listen.is_loopback:
        return
    try:
        keys = settings.require_keys or there_is_one(home.state, time.time())
    except StoreError:  # which will be set aside, or is not to be had: no key of it opens anything
        keys = False
    try:
        require_a_door(listen, keys=keys)
    except ValueError as error:
        raise StokerError(str(error)) from None


async def open_desk(
    settings: GatewaySettings, home: Home, database: Database | None, token: AdminToken, clock: Callable[[], float]
) -> KeyDesk:
    """Where keys are made, with those that are there. ``clock`` gives monotonic seconds.

    Keys are asked for also where others could come in, and where there may be some, but they can't be read.
    """
    known = await _known(home, database)
    far = not parse_listen(settings.listen).is_loopback
    if far and settings.certfile is None:
        log.warning(
            "%s can be reached from other machines and speaks no TLS: keys go over the network as they are; "
            "see certfile in [gateway]",
            settings.listen,
        )
    ring = KeyRing(token.accepts, clock, require=settings.require_keys or far or known is None)
    ring.replace(known or ())
    return KeyDesk(database, ring)


async def _known(home: Home, database: Database | None) -> tuple[ApiKey, ...] | None:
    """The keys; None where some may be that can't be read. What can't be written may still be looked into."""
    try:
        if database is not None:
            return await database.run(listing)
        return await trio.to_thread.run_sync(peek, home.state)
    except StoreError as error:
        log.error("%s; without the keys in it only the admin token opens anything", error)  # noqa: TRY400
        return None

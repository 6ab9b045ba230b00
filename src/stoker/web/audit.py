"""Keeps the audit trail of management calls that change something, and shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from quart import Blueprint, Response, request

from stoker.gateway.keyring import KeyRing
from stoker.store.audit import MOST_ENTRIES, AuditTrail, Entry
from stoker.web.doors import MANAGEMENT, CalledRequest, is_management
from stoker.web.reading import Query
from stoker.web.wire import Wire

CLIENT_GONE = 499
_ONLY_LOOK = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKS = frozenset({f"{MANAGEMENT}/route/explain"})
USUAL = 100


@attrs.frozen
class Auditor:
    """Notes who did what. Those whom nobody knows are not noted: they could push out all others."""

    trail: AuditTrail
    ring: KeyRing
    clock: Callable[[], float] = time.time

    async def note(self, asked: CalledRequest, status: int) -> None:
        """``asked`` was answered with ``status``. Never fails; what can't be kept is logged."""
        if asked.method in _ONLY_LOOK or asked.path in _ASKS or not is_management(asked.path):
            return
        caller = self.ring.whose(dict(asked.scope["headers"]))
        if caller is None:
            return
        client = asked.scope.get("client")
        entry = Entry(
            at=self.clock(),
            who=caller.who,
            address=client[0] if client else "",
            method=asked.method,
            path=asked.path,
            status=status,
            request_id=asked.request_id,
        )
        await self.trail.note(entry)


@attrs.frozen
class AuditEndpoint:
    """What stands at ``/v1/management/audit``."""

    trail: AuditTrail
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoint to ``blueprint``, below its prefix."""
        blueprint.add_url_rule("/audit", view_func=self.audit, methods=["GET"])

    async def audit(self) -> Response:
        """``GET /audit``: the last management calls that changed something, the latest last.

        ``who`` is the admin token, or a key by its id. With status 499 the client left before it was answered.
        """
        count = Query(request.query_string, ("tail",)).number("tail", most=MOST_ENTRIES)
        return self.wire.listing(await self.trail.latest(USUAL if count is None else count))

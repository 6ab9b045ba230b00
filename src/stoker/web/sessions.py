"""Stored conversations over HTTP: what stands below ``/sessions``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio
from quart import Blueprint, Response, request

from stoker.core.conversation import Message
from stoker.gateway.answers import Answer
from stoker.gateway.callers import Reach
from stoker.gateway.keyring import KeyRing
from stoker.settings import SessionSettings
from stoker.store import sessions as store
from stoker.store.archive import DAY_SECONDS, SessionArchive
from stoker.store.sessions import Kept, Session
from stoker.web.problems import RequestError, bad_request
from stoker.web.reading import Query, parse_json, read_object
from stoker.web.session_orders import EXPORT, VERSION, cleanup_order, imported, session_order, title_order
from stoker.web.wire import JSON, Wire

USUAL = 50
MOST = 1000
LAST_PLACE = 2**53


@attrs.frozen
class SessionEndpoints:
    """The sessions of whoever asks; an admin's are all."""

    archive: SessionArchive
    ring: KeyRing
    settings: SessionSettings
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``."""
        for path, view, methods in (
            ("/sessions", self.sessions, ["GET"]),
            ("/sessions", self.create, ["POST"]),
            ("/sessions/import", self.take_in, ["POST"]),
            ("/sessions/cleanup", self.clean_up, ["POST"]),
            ("/sessions/<session_id>", self.show, ["GET"]),
            ("/sessions/<session_id>", self.delete, ["DELETE"]),
            ("/sessions/<session_id>/messages", self.messages, ["GET"]),
            ("/sessions/<session_id>/export", self.export, ["GET"]),
            ("/sessions/<session_id>/clear", self.clear, ["POST"]),
            ("/sessions/<session_id>/turns/<int:turn>", self.retract, ["DELETE"]),
            ("/sessions/<session_id>/title", self.rename, ["PATCH", "PUT", "POST"]),
        ):
            blueprint.add_url_rule(path, view_func=view, methods=methods)

    async def sessions(self) -> Response:
        """``GET /sessions``: the sessions there are, the one last used first, page by page."""
        query = Query(request.query_string, ("limit", "after"))
        cursor = query.text("after")
        try:
            after = None if cursor is None else store.place_in(cursor)
        except ValueError:
            raise bad_request("after must be what an earlier page calls 'next'", "after") from None
        limit = _limit(query)
        page = await self.archive.run(store.listing(self._reach().whose, limit, after))
        return self._page([_shown(each) for each in page.items], page.next)

    async def create(self) -> Response:
        """``POST /sessions``: begin a session.

        ``title``, ``instructions`` (a text, or messages of the role ``system``) and ``metadata`` (an object of one's
        own) may be given.
        """
        order = session_order(await read_object(request, optional=True), self._reach().owner, self.archive.clock())
        return self.wire.answer(_shown(await self.archive.run(store.creation(order))), 201)

    async def show(self, session_id: str) -> Response:
        """``GET /sessions/{id}``: one session, without what was said."""
        return self.wire.answer(_shown(await self.archive.run(store.one(session_id, self._reach().whose))))

    async def delete(self, session_id: str) -> Response:
        """``DELETE /sessions/{id}``: forget a session, and all that was said in it."""
        await read_object(request, optional=True)
        await self.archive.run(store.deletion(session_id, self._reach().whose))
        return self.wire.answer({"object": "session.deleted", "session_id": session_id, "deleted": True})

    async def messages(self, session_id: str) -> Response:
        """``GET /sessions/{id}/messages``: what was said in a session, the first first, page by page."""
        query = Query(request.query_string, ("limit", "after"))
        after, limit = query.number("after", most=LAST_PLACE) or 0, _limit(query)
        page = await self.archive.run(store.messages(session_id, self._reach().whose, limit, after))
        return self._page([{**each.message, **_about(each)} for each in page.items], page.next)

    async def clear(self, session_id: str) -> Response:
        """``POST /sessions/{id}/clear``: forget what was said in a session, and keep its title and its instructions."""
        await read_object(request, optional=True)
        work = store.clearing(session_id, self._reach().whose, self.archive.clock())
        return self.wire.answer(_shown(await self.archive.run(work)))

    async def retract(self, session_id: str, turn: int) -> Response:
        """``DELETE /sessions/{id}/turns/{turn}``: forget one turn: a question and its answer."""
        await read_object(request, optional=True)
        work = store.retraction(session_id, self._reach().whose, min(turn, LAST_PLACE), self.archive.clock())
        return self.wire.answer(_shown(await self.archive.run(work)))

    async def rename(self, session_id: str) -> Response:
        """``PATCH /sessions/{id}/title``: give a session another ``title``."""
        title = title_order(await read_object(request))
        work = store.renaming(session_id, self._reach().whose, title, self.archive.clock())
        return self.wire.answer(_shown(await self.archive.run(work)))

    async def clean_up(self) -> Response:
        """``POST /sessions/cleanup``: forget the caller's sessions in which nothing happened for ``older_than_days``.

        If nothing is said, ``keep_days`` of the configuration count. Answers with how many were ``deleted``.
        """
        days = cleanup_order(await read_object(request, optional=True), self.settings.keep_days)
        before = self.archive.clock() - days * DAY_SECONDS
        return self.wire.answer({"deleted": await self.archive.clean_up(before, self._reach().whose)})

    async def export(self, session_id: str) -> Response:
        """``GET /sessions/{id}/export``: all of a session as one JSON document, which ``import`` takes."""
        owner = self._reach().whose
        session = await self.archive.run(store.one(session_id, owner))
        headers = {"content-disposition": f'attachment; filename="{session_id}.json"'}
        return Response(self._exported(session, owner), 200, headers, content_type=JSON)

    async def _exported(self, session: Session, owner: str | None) -> AsyncIterator[bytes]:
        head = {**_shown(session), "object": EXPORT, "version": VERSION}
        yield self.wire.encode(head)[:-1] + b', "messages": ['
        after, mark = "0", b""
        while after:
            page = await self.archive.run(store.messages(session.session_id, owner, MOST, int(after)))
            for each in page.items:
                yield mark + b"\n" + self.wire.encode({**_about(each), "message": each.message})
                mark = b","
            after = page.next or ""
        yield b"\n]}\n"

    async def take_in(self) -> Response:
        """``POST /sessions/import``: make the session that an export is of.

        Its id stays, unless it is left out; 409 if that is taken. The body may have 64 MiB. ``messages`` may also be
        those of a chat.
        """
        body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
        reach, now = self._reach(), self.archive.clock()

        def read() -> tuple[Session, Any]:
            document = parse_json(body)
            if not isinstance(document, dict):
                raise bad_request("the body must be a JSON object, as 'export' gives it")
            return imported(document, reach.owner, now)

        session, turns = await trio.to_thread.run_sync(read)
        return self.wire.answer(_shown(await self.archive.run(store.creation(session, turns))), 201)

    def _reach(self) -> Reach:
        caller = request.caller  # type: ignore[attr-defined]  # of the app's own class of requests
        reach = self.ring.reach(caller, dict(request.scope["headers"]))
        if isinstance(reach, Answer):
            raise RequestError(reach)
        return reach

    def _page(self, items: list[dict[str, Any]], following: str | None) -> Response:
        return self.wire.answer({"object": "list", "data": items, "has_more": following is not None, "next": following})


def _limit(query: Query) -> int:
    limit = query.number("limit", most=MOST)
    return USUAL if limit is None else max(1, limit)


def _shown(session: Session) -> dict[str, Any]:
    shown = {field.name: getattr(session, field.name) for field in attrs.fields(Session)}
    instructions: list[Message] = list(session.instructions)
    return {"object": "session", **shown, "instructions": instructions, "metadata": dict(session.metadata)}


def _about(kept: Kept) -> dict[str, Any]:
    return {
        "place": kept.place,
        "turn": kept.turn,
        "at": kept.at,
        "model": kept.model,
        "aborted": kept.aborted,
    }

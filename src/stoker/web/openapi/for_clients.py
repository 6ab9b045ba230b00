"""The endpoints for clients: how the gateway does, models, stored conversations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stoker.store.sessions import Kept, Session
from stoker.web.openai import Model
from stoker.web.openapi.operation import ANYTHING, Operation, Parameter, listing, page
from stoker.web.openapi.schemas import Either, Many, May, one_of, optional, said, sent
from stoker.web.session_orders import EXPORT, LONGEST_TITLE, MOST_DAYS
from stoker.web.sessions import LAST_PLACE, MOST, USUAL

_SESSION = {"object": one_of("session"), **sent(Session)}
_ABOUT = sent(Kept, besides=("message",))
_TITLE = said(str, maxLength=LONGEST_TITLE)
_GIVEN = {
    "title": optional(_TITLE),
    "instructions": optional(Either((str, Many(ANYTHING)))),
    "metadata": optional(ANYTHING),
}
_EXPORTED = {
    **sent(Session),
    "object": one_of(EXPORT),
    "version": int,
    "messages": Many(Any),
}
_LIMIT = Parameter(said(int, minimum=0, maximum=MOST, default=USUAL), "How many at most; 0 counts as 1.")
_NO_STATE = (503,)

FOR_CLIENTS: Mapping[str, Operation] = MappingProxyType(
    {
        "open.health": Operation(answers={200: {"status": one_of("ok")}}),
        "open.ready": Operation(answers={200: {"status": one_of("ready"), "engines_ready": int}}, errors=[503]),
        "open.document": Operation(answers={200: ANYTHING}),
        "open.metrics": Operation(answers={200: str}, media=("text/plain", "application/openmetrics-text")),
        "openai.listing": Operation(answers={200: listing(Model)}),
        "openai.show": Operation(answers={200: Model}),
        "sessions.sessions": Operation(
            answers={200: page(_SESSION)},
            errors=_NO_STATE,
            query={"limit": _LIMIT, "after": Parameter(str, "What the page before calls `next`.")},
        ),
        "sessions.create": Operation(answers={201: _SESSION}, errors=_NO_STATE, body=_GIVEN),
        "sessions.take_in": Operation(
            answers={201: _SESSION},
            errors=(409, *_NO_STATE),
            body={
                **_GIVEN,
                "object": optional(one_of(EXPORT)),
                "version": optional(int),
                "session_id": optional(str),
                "owner": May(Any),
                "created_at": optional(float),
                "updated_at": May(Any),
                "message_count": May(Any),
                "messages": optional(Many(ANYTHING)),
            },
            needs_body=True,
        ),
        "sessions.clean_up": Operation(
            answers={200: {"deleted": int}},
            errors=_NO_STATE,
            body={"older_than_days": optional(said(float, minimum=0, maximum=MOST_DAYS))},
        ),
        "sessions.show": Operation(answers={200: _SESSION}, errors=_NO_STATE),
        "sessions.delete": Operation(
            answers={200: {"object": one_of("session.deleted"), "session_id": str, "deleted": bool}},
            errors=_NO_STATE,
            body=ANYTHING,
        ),
        "sessions.messages": Operation(
            answers={200: page(said({"role": str, **_ABOUT}, additionalProperties=True))},
            errors=_NO_STATE,
            query={
                "limit": _LIMIT,
                "after": Parameter(said(int, minimum=0, maximum=LAST_PLACE), "What the page before calls `next`."),
            },
        ),
        "sessions.export": Operation(answers={200: _EXPORTED}, errors=_NO_STATE),
        "sessions.clear": Operation(answers={200: _SESSION}, errors=_NO_STATE, body=ANYTHING),
        "sessions.retract": Operation(answers={200: _SESSION}, errors=_NO_STATE, body=ANYTHING),
        "sessions.rename": Operation(
            answers={200: _SESSION}, errors=_NO_STATE, body={"title": _TITLE}, needs_body=True
        ),
    }
)

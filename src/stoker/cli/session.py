"""``stoker session list|show|export|import|rename|clear|delete|cleanup``: the gateway's stored conversations."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from cyclopts import Parameter

from stoker.cli.client import Client, connect
from stoker.cli.completing import completing
from stoker.cli.consent import Yes, require_consent
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, Watch
from stoker.cli.output import ago, print_json
from stoker.cli.pages import Page, Record, print_page
from stoker.cli.presenting import present
from stoker.cli.reading import read_json
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import ConfigError, ConflictError, Mistake, NotFoundError, StokerError

COLUMNS = (
    Column("SESSION", Fit.WHOLE),
    "TITLE",
    Column("MESSAGES", Fit.WHOLE, spare=2),
    Column("LAST USED", Fit.WHOLE, spare=3),
    Column("KEY", Fit.WHOLE, spare=1),
)
PAGE = 1000
MOST_DAYS = 36_600
DAY_SECONDS = 86400.0
IMPORT_SECONDS = 300.0

SessionId = Annotated[
    str, Parameter(help="The id of the session, as `session list` shows it.", completer=completing("sessions"))
]


def listing(
    *,
    limit: Annotated[
        int, Parameter(("--limit", "-n"), metavar="SESSIONS", help="How many to show, the last used ones (100).")
    ] = 100,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """List the sessions, the one last used first.

    All there are, for an admin, else those of the key.
    """
    if limit < 1:
        raise ConfigError("--limit", [Mistake("", "must be at least 1")])

    def look() -> list[dict[str, Any]]:
        with connect(root="") as client:
            return list(_all_of(client, "/sessions", limit))

    def page(sessions: list[dict[str, Any]]) -> list[Table]:
        return [Table(columns=COLUMNS, rows=list(map(_row, sessions)), empty="there are no sessions")]

    present(look, page, as_json=as_json, watch=watch)


def show(session_id: SessionId, /, *, as_json: AsJson = False) -> None:
    """Show a session, and what was said in it."""
    with _client(session_id) as client:
        session = client.get(_path(session_id))
        messages = list(_all_of(client, _path(session_id, "messages")))
    if as_json:
        print_json({**session, "messages": messages})
        return
    about = {
        **{name: session[name] for name in ("session_id", "title", "owner", "metadata")},
        "created": ago(session["created_at"]),
        "last used": ago(session["updated_at"]),
    }
    said = [_said(each) for each in (*session["instructions"], *messages)]
    page: Page = [Record(about), *(block for text in said for block in ("", text))]
    print_page(page)


def export(
    session_id: SessionId,
    /,
    *,
    output: Annotated[
        Path | None, Parameter(("--output", "-o"), metavar="FILE", help="A file to write; without it, print.")
    ] = None,
) -> None:
    """Print all of a session as one JSON document.

    `session import` takes it.
    """
    with _client(session_id) as client:
        text = client.text(_path(session_id, "export"))
        if output is None:
            for part in text:
                sys.stdout.write(part)
            return
        try:
            with output.open("w", encoding="utf-8") as file:
                file.writelines(text)
        except OSError as error:
            raise StokerError(f"{output} can't be written: {error.strerror}") from error
    print(f"the session {session_id} is in {output}")


def take_in(
    file: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="What `session export` wrote; - for standard input.")
    ],
    /,
    *,
    new_id: Annotated[
        bool, Parameter("--new-id", help="Give it another id; else it keeps its own, which nobody else may have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a session of an export, and print its id.

    It belongs to whoever imports it.
    """
    document = _read(file)
    if new_id:
        document.pop("session_id", None)
    with connect(root="") as client:
        try:
            session = client.post("/sessions/import", document, patience_seconds=IMPORT_SECONDS)
        except ConflictError:
            raise ConflictError(
                f"there is a session {document.get('session_id')!r} already; to have this one beside it, say --new-id"
            ) from None
    if as_json:
        print_json(session)
        return
    print(session["session_id"])


def rename(session_id: SessionId, title: Annotated[str, Parameter(help="Its new title.")], /) -> None:
    """Give a session another title."""
    with _client(session_id) as client:
        session = client.post(_path(session_id, "title"), {"title": title})
    print(f"the session {session_id} is called {session['title']!r}")


def clear(session_id: SessionId, /) -> None:
    """Forget what was said in a session, and keep the session."""
    with _client(session_id) as client:
        client.post(_path(session_id, "clear"))
    print(f"the session {session_id} is empty")


def delete(
    session_id: SessionId,
    /,
    *more: Annotated[str, Parameter(help="The ids of more of them.", completer=completing("sessions"))],
) -> None:
    """Forget sessions, and all that was said in them."""
    for each in (session_id, *more):
        with _client(each) as client:
            client.delete(_path(each))
        print(f"the session {each} is deleted")


def cleanup(
    *,
    days: Annotated[
        float,
        Parameter("--older-than-days", metavar="DAYS", help=f"How long nothing happened in them, 0 to {MOST_DAYS}."),
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget the sessions in which nothing happened for long.

    All of them, for an admin, else those of the key. How many it would be is said first: at a terminal you are asked,
    elsewhere it takes --yes.
    """
    if not 0 <= days <= MOST_DAYS:
        raise ConfigError("--older-than-days", [Mistake("", f"must be a number from 0 to {MOST_DAYS}")])
    with connect(root="") as client:
        if not yes:
            before = time.time() - days * DAY_SECONDS
            count = sum(each["updated_at"] < before for each in _all_of(client, "/sessions"))
            if count:
                require_consent(f"{count} session{'' if count == 1 else 's'} would be forgotten, for good")
        done = client.post("/sessions/cleanup", {"older_than_days": days}, patience_seconds=IMPORT_SECONDS)
    if as_json:
        print_json(done)
        return
    print(f"{done['deleted']} sessions are deleted")


@contextlib.contextmanager
def _client(session_id: str) -> Iterator[Client]:
    """A client for what is done with that session."""
    try:
        with connect(root="") as client:
            yield client
    except NotFoundError:
        raise NotFoundError(f"there is no session {session_id!r}; see: {program()} session list") from None


def _all_of(client: Client, path: str, limit: int = sys.maxsize) -> Iterator[dict[str, Any]]:
    """What ``path`` lists, page by page."""
    query: dict[str, Any] = {}
    while limit > 0:
        page = client.get(f"{path}?{urlencode({**query, 'limit': min(limit, PAGE)})}")
        yield from page["data"]
        limit -= len(page["data"])
        if not page["has_more"]:
            return
        query = {"after": page["next"]}


def _path(session_id: str, action: str = "") -> str:
    return f"/sessions/{quote(session_id, safe='')}" + (f"/{action}" if action else "")


def _row(session: Mapping[str, Any]) -> tuple[object, ...]:
    used = ago(session["updated_at"])
    return session["session_id"], session["title"], session["message_count"], used, session["owner"]


def _said(message: Mapping[str, Any]) -> str:
    """One message for people: who, when, and what."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message["at"])) if "at" in message else ""
    who = ", ".join(filter(None, [message["role"], when, "aborted" if message.get("aborted") else ""]))
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part(part) for part in parts if part is not None]
    texts += [f"[calls {json.dumps(call, ensure_ascii=False)}]" for call in message.get("tool_calls") or []]
    return f"{who}:\n" + "\n".join(texts)


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        return part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type', 'something else')}]"
    return json.dumps(part)


def _read(file: str) -> dict[str, Any]:
    _, document = read_json(file)
    if not isinstance(document, dict):
        raise StokerError(f"{file} is no export of a session: it must be a JSON object")
    return document

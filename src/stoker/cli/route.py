"""``stoker route explain``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.client import connect
from stoker.cli.completing import completing
from stoker.cli.options import AsJson, Watch
from stoker.cli.output import load
from stoker.cli.pages import Page, Record
from stoker.cli.presenting import present
from stoker.cli.reading import read_json
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import ConfigError, Mistake

COLUMNS = (
    Column("ENGINE", Fit.WHOLE),
    Column("STATE", Fit.WHOLE),
    Column("ACTIVE", Fit.WHOLE, spare=2),
    Column("LOAD", spare=1),
    Column("CANDIDATE", Fit.WHOLE),
    "WHY NOT",
)
CHAT = "/v1/chat/completions"


def explain(
    model: Annotated[str, Parameter(help="What the request asks for.", completer=completing("models"))],
    /,
    *,
    path: Annotated[str, Parameter(metavar="PATH", help=f"Where it is sent; else {CHAT}.")] = CHAT,
    header: Annotated[
        tuple[str, ...], Parameter(("--header", "-H"), metavar="'NAME: VALUE'", help="A header of it; repeatable.")
    ] = (),
    prompt: Annotated[
        str | None, Parameter(metavar="TEXT", help="What the user says in it.", allow_leading_hyphen=True)
    ] = None,
    body: Annotated[
        str | None,
        Parameter(metavar="FILE", help="A file with its body, or - for standard input.", allow_leading_hyphen=True),
    ] = None,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Say which engine a request would get, and why, without sending it.

    A policy may go by what the request has: its path, its headers, and its body, of which either --prompt says
    the words or --body is the whole, for the same MODEL. Policies that remember prompts go by their very bytes.
    """
    if prompt is not None and body is not None:
        raise ConfigError("--body", [Mistake("", "says what the request holds, as --prompt does; give one of them")])
    if body is not None:
        text, _ = read_json(body)
    else:
        text = json.dumps(_asking(model, path, prompt), separators=(",", ":"))
    order = json.dumps({"model": model, "path": path, "headers": _headers(header)})

    def look() -> dict[str, Any]:
        with connect() as client:
            # As it was written: what policies remember of prompts are their very bytes.
            return client.post_text("/route/explain", f'{order[:-1]}, "body": {text}}}')

    present(look, _page, as_json=as_json, watch=watch, events=True)


def _page(told: Mapping[str, Any]) -> Page:
    policy = f"{told['policy']} (of the plugin {told['plugin']}{'' if told['in_service'] else '; out of service'})"
    rows = [_row(each) for each in told["engines"]]
    record = {
        "model": told["model"],
        "policy": policy,
        "engine": told["choice"] or "none now",
        "why": told["why"],
        "but": "chance is in it: the next request may get another engine" if told["may_differ"] else None,
    }
    return [Record(record), "", Table(columns=COLUMNS, rows=rows, empty="there are no engines", prose=True)]


def _row(each: Mapping[str, Any]) -> tuple[object, ...]:
    active, limit = each["in_flight"], each["limit"]
    return (
        each["engine_id"],
        each["state"],
        f"{active}/{limit}" if limit else active,
        load(each["load"]),
        each["candidate"],
        each["why_not"],
    )


def _asking(model: str, path: str, prompt: str | None) -> dict[str, object]:
    """A body as a client would write it."""
    if prompt is None:
        return {"model": model}
    match path:
        case "/v1/completions":
            return {"model": model, "prompt": prompt}
        case "/v1/chat/completions" | "/v1/messages":
            return {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return {"model": model, "input": prompt}


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise ConfigError("--header", [Mistake("", f"must be 'Name: value', not {each!r}")])
        headers[name.strip()] = value.strip()
    return headers

"""``stoker key create|list|revoke``."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from stoker.cli.activity import warn
from stoker.cli.client import MANAGEMENT, connect
from stoker.cli.completing import completing
from stoker.cli.finding import has_gateway
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, Watch
from stoker.cli.output import ago, print_json
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.core.keys import Scope, key_order
from stoker.errors import ConfigError, Mistake, NotFoundError
from stoker.home import Home
from stoker.store import keys as store
from stoker.store.audit import Entry, addition
from stoker.store.database import StoreError, T, Work, open_database
from stoker.store.schema import MIGRATIONS
from stoker.suggesting import suggestion

KEYS = f"{MANAGEMENT}/keys"
COLUMNS = (
    Column("ID", Fit.WHOLE),
    Column("NAME", Fit.MIDDLE),
    "SCOPES",
    "MODELS",
    Column("PER MINUTE", Fit.WHOLE, spare=2),
    Column("AT ONCE", Fit.WHOLE, spare=1),
    Column("CREATED", Fit.WHOLE, spare=3),
    "STATE",
)
_UNITS: Mapping[str, int] = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,6})(s|min|h|d)", re.ASCII)


def create(
    *,
    name: Annotated[str, Parameter("--name", metavar="NAME", help="Whose key it is, or what it is for.")],
    scopes: Annotated[
        tuple[Scope, ...],
        Parameter(
            "--scope",
            metavar="SCOPE",
            help="What it may do: inference (if nothing is said), sessions, admin. May be repeated.",
        ),
    ] = (Scope.INFERENCE,),
    models: Annotated[
        tuple[str, ...],
        Parameter("--model", metavar="NAME", help="A name that it may ask for; without any, all. May be repeated."),
    ] = (),
    requests_per_minute: Annotated[
        int | None, Parameter("--requests-per-minute", metavar="N", help="How many requests it may send in any minute.")
    ] = None,
    concurrent_requests: Annotated[
        int | None, Parameter("--concurrent", metavar="N", help="How many of its requests may be under way at once.")
    ] = None,
    expires: Annotated[
        str | None,
        Parameter("--expires", metavar="TIME", help="How long it lives: 30d, 12h, 45min, 90s; else for good."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it; it can't be shown again.

    Only its digest is kept. The key is all that goes to standard output. A gateway that runs acts on it at once;
    without one it works as well.
    """
    order = {
        "name": name,
        "scopes": [scope.value for scope in scopes],
        "models": list(models) or None,
        "requests_per_minute": requests_per_minute,
        "concurrent_requests": concurrent_requests,
        "expires_in_seconds": None if expires is None else _seconds(expires),
    }
    checked = key_order(order, "--key")
    if has_gateway(_home(), os.environ):
        with connect() as client:
            made = client.post("/keys", order)
    else:
        key, text = _do_here(store.creation(checked, time.time()), "POST", KEYS, 201)
        made = {**key.shown(), "key": text}
    if as_json:
        print_json(made)
        return
    print(made["key"])
    warn(f"this is the key {made['key_id']}; keep it now, it can't be shown again")


def listing(*, as_json: AsJson = False, watch: Watch = False) -> None:
    """List the keys: what each may do, and whether it still does.

    Works without a gateway.
    """

    def page(keys: list[dict[str, Any]]) -> list[Table]:
        empty = f"there are no keys; make one with: {program()} key create --name NAME"
        return [Table(columns=COLUMNS, rows=[_row(key) for key in keys], empty=empty)]

    present(all_keys, page, as_json=as_json, watch=watch)


def all_keys() -> list[dict[str, Any]]:
    """The keys that there are, revoked ones too, without their secrets."""
    if has_gateway(_home(), os.environ):
        with connect() as client:
            return client.listing("/keys")
    return [key.shown() for key in store.peek(_home().state)]


def revoke(
    key_id: Annotated[str, Parameter(help="The id of the key, as `key list` shows it.", completer=completing("keys"))],
    /,
) -> None:
    """Revoke a key, at once and for good.

    Works without a gateway.
    """
    try:
        if has_gateway(_home(), os.environ):
            with connect() as client:
                client.delete(f"/keys/{quote(key_id, safe='')}")
        else:
            _do_here(store.revocation(key_id, time.time()), "DELETE", f"{KEYS}/{key_id}", 200)
    except NotFoundError:
        raise NotFoundError(f"there is no key {key_id!r}; {_hint(key_id, all_keys())}") from None
    keys = all_keys()
    print(f"the key {key_id} is revoked")
    if all(key["revoked_at"] is not None for key in keys):
        warn(
            "there is no key left: a gateway that only this machine can reach is open to it, "
            "unless its [gateway] has require_keys = true"
        )


def _hint(key_id: str, keys: list[dict[str, Any]]) -> str:
    """Which key was probably meant: who has forgotten its id may have typed its name."""
    names = {key["key_id"]: key["name"] for key in keys if key["revoked_at"] is None}
    if of_that_name := [each for each, name in names.items() if name == key_id]:
        return f"the id of {key_id!r} is {' or '.join(of_that_name)}"
    return suggestion(key_id, names)


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(
            "--expires", [Mistake("", f"must be a number with s, min, h or d, such as 30d, not {text!r}")]
        )
    return int(match[1]) * _UNITS[match[2]]


def _row(key: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        key["key_id"],
        key["name"],
        key["scopes"],
        key["models"] or "all",
        key["requests_per_minute"],
        key["concurrent_requests"],
        ago(key["created_at"]),
        _state(key),
    )


def _state(key: Mapping[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return f"revoked {ago(key['revoked_at'])}"
    expires_at = key["expires_at"]
    if expires_at is None:
        return "active"
    return f"active, expires {ago(expires_at)}" if expires_at > time.time() else f"expired {ago(expires_at)}"


# Without a gateway


def _home() -> Home:
    return Home.from_environment(os.environ)


def _do_here(work: Work[T], method: str, path: str, status: int) -> T:
    """Do it with the state file, since no gateway runs.

    One that has been started meanwhile may have read the keys before this: it is asked for them, and reads them anew.
    """
    with contextlib.closing(open_database(_home().state, MIGRATIONS)) as database:
        done = database.do(work)
        with contextlib.suppress(StoreError):  # it is done, and its trail is not worth losing what came of it
            database.do(addition(_entry(method, path, status)))
    if has_gateway(_home(), os.environ):
        with connect() as client:
            client.listing("/keys")
    return done


def _entry(method: str, path: str, status: int) -> Entry:
    """The trail has what a gateway would have put there."""
    return Entry(at=time.time(), who="command line", address="", method=method, path=path, status=status, request_id="")

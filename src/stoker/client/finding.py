"""Finds the gateway that a client means, and the secrets that go with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from stoker.client.errors import BadRequest
from stoker.home import Home
from stoker.reaching import DEFAULT_URL, admin_token_of, base_of, is_loopback

_PROC = Path("/proc/self/stat")


@attrs.frozen(kw_only=True)
class Address:
    """Where a gateway is, and what proves that we may use it.

    ``url`` has no ``/v1`` and no slash at its end. ``key`` goes with requests to models, ``admin`` with those to the
    management side. ``certfile`` is what the gateway of this home proves itself with, where it speaks TLS.
    """

    url: str
    key: str | None = attrs.field(default=None, repr=False)
    admin: str | None = attrs.field(default=None, repr=False)
    local: bool = False
    certfile: str | None = None


def find_gateway(url: str | None, api_key: str | None, environ: Mapping[str, str]) -> Address:
    """``url``, else ``STOKER_URL``, else the gateway of this home that runs, else the default address.

    The key is ``api_key``, else ``STOKER_API_KEY``. The admin token of this home goes to loopback addresses that
    somebody named and to this home's own gateway, and not to whatever may happen to listen at the default address: to
    the management side, and where there is no key to the rest too. A key that is given manages as well, unless the
    gateway is this home's own. Raises BadRequest for what is no URL.
    """
    home = Home.from_environment(environ)
    running = _running(home)
    key = api_key or environ.get("STOKER_API_KEY") or None
    named = url or environ.get("STOKER_URL") or None
    own = str(running["url"]) if running else None
    base = _checked(named or own or DEFAULT_URL)
    ours = own is not None and _same(base, own)
    local = ours or is_loopback(urlsplit(base).hostname or "")
    token = admin_token_of(home) if local and (named or ours) else None
    return Address(
        url=base,
        key=key or token,
        admin=(token or key) if ours else (key or token),
        local=local,
        certfile=running.get("certfile") if running and ours else None,
    )


def _same(one: str, other: str) -> bool:
    """Whether two URLs are one address: this machine has several names."""
    ours, theirs = urlsplit(one), urlsplit(other)
    here = all(is_loopback(parts.hostname or "") for parts in (ours, theirs))
    return one == other or (here and (ours.scheme, ours.port) == (theirs.scheme, theirs.port))


def _checked(url: str) -> str:
    base = base_of(url)
    if base is None:
        raise BadRequest(f"the gateway's address is {url!r}, which is not a URL such as {DEFAULT_URL}/v1")
    return base


def _running(home: Home) -> Mapping[str, Any]:
    """What ``gateway.json`` says of a gateway that lives; empty where none does, whatever a dead one left behind."""
    try:
        about = json.loads(home.gateway.read_text())
        pid, started, url = int(about["pid"]), about["process_start"], about["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return about if isinstance(url, str) and _lives(pid, started) else {}


def _lives(pid: int, started: object) -> bool:
    """Whether the process is there, and is not a later one of the same number."""
    if pid <= 0:
        return False
    if started is None or not _PROC.exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
    try:
        stat = _PROC.parent.with_name(str(pid)).joinpath("stat").read_bytes()
    except OSError:
        return False
    state, *fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold any character
    return state not in (b"Z", b"X") and int(fields[18]) == started

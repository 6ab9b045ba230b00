"""Finds the gateway that commands talk to, and the secret that goes with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import attrs

from stoker.cli.invocation import program
from stoker.errors import NotRunningError, StokerError
from stoker.home import Home
from stoker.reaching import DEFAULT_URL, admin_token_of, base_of, is_loopback
from stoker.supervise import proctable


@attrs.frozen(kw_only=True)
class RunningGateway:
    """The gateway of this home, as it describes itself in ``gateway.json``; it was alive a moment ago."""

    pid: int
    process_start: int | None
    url: str
    started_at: float
    version: str
    argv: tuple[str, ...]
    config: str | None
    certfile: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is still there, and still the same one."""
        if not proctable.HAS_PROC or self.process_start is None:
            return _answers_signals(self.pid)
        entry = proctable.read_entry(self.pid)
        return entry is not None and entry.started == self.process_start and not entry.gone


def _answers_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_gateway(home: Home) -> RunningGateway | None:
    """The gateway that runs on ``home``; None where there is none, whatever a dead one may have left behind."""
    try:
        about = json.loads(home.gateway.read_text())
        gateway = RunningGateway(
            pid=int(about["pid"]),
            process_start=about["process_start"],
            url=str(about["url"]),
            started_at=float(about["started_at"]),
            version=str(about["version"]),
            argv=tuple(map(str, about["argv"])),
            config=about["config"],
            certfile=about.get("certfile"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return gateway if gateway.pid > 0 and gateway.alive else None


@attrs.frozen
class Address:
    """Where a gateway is, and what proves that we may manage it."""

    url: str
    token: str | None = attrs.field(default=None, repr=False)
    named: bool = attrs.field(default=False, kw_only=True)  # by STOKER_URL
    ours: bool = attrs.field(default=False, kw_only=True)  # the gateway of this home
    certfile: str | None = attrs.field(default=None, kw_only=True)  # what the gateway of this home proves itself with

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return self.ours or is_loopback(urlsplit(self.url).hostname or "")


def find_gateway(home: Home, environ: Mapping[str, str]) -> Address:
    """``STOKER_URL``, else the gateway of this home, else the default address.

    ``STOKER_API_KEY`` is the token if it is set. The admin token of this home goes only to loopback addresses that
    somebody named: not to whatever may happen to listen at the default one. Raises StokerError for a wrong URL.
    """
    key = environ.get("STOKER_API_KEY") or None
    if url := environ.get("STOKER_URL"):
        named = Address(_checked(url), key, named=True)
        return attrs.evolve(named, token=key or admin_token_of(home)) if named.local else named
    if running := read_gateway(home):
        return address_of(home, running, environ)
    if home.gateway.exists():
        raise not_running(f"the gateway of {home.path} is gone")
    return Address(DEFAULT_URL, key)


def has_gateway(home: Home, environ: Mapping[str, str]) -> bool:
    """Whether there is one to ask: that of ``home``, or the one that ``STOKER_URL`` names."""
    return bool(environ.get("STOKER_URL")) or read_gateway(home) is not None


def address_of(home: Home, running: RunningGateway, environ: Mapping[str, str]) -> Address:
    """The address of the gateway that runs on ``home``."""
    token = environ.get("STOKER_API_KEY") or admin_token_of(home)
    return Address(running.url, token, ours=True, certfile=running.certfile)


def not_running(what: str, *, named: bool = False) -> NotRunningError:
    """The error for when there is nobody to talk to; ``named`` says that it was sought where STOKER_URL points."""
    remedy = "correct STOKER_URL, or unset it and start one here" if named else "start it"
    return NotRunningError(f"{what}; {remedy} with: {program()} gateway start")


def _checked(url: str) -> str:
    base = base_of(url)
    if base is None:
        raise StokerError(f"STOKER_URL is {url!r}, which is not a URL such as {DEFAULT_URL}")
    return base

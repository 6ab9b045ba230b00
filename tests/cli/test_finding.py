"""Which gateway a command talks to, and where the admin token may go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.finding import find_gateway, read_gateway
from stoker.errors import NotRunningError, StokerError
from stoker.home import Home
from stoker.reaching import DEFAULT_URL
from stoker.supervise import proctable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "admin-token").write_text("secret\n")
    return Home(tmp_path)


def announce(home: Home, **changes: Any) -> None:
    """What a gateway that is this very process would write."""
    entry = proctable.read_entry(os.getpid())
    assert entry is not None
    about = {
        "pid": os.getpid(),
        "process_start": entry.started,
        "url": "http://127.0.0.1:4321",
        "started_at": 1.0,
        "version": "0",
        "argv": ["stoker", "up"],
        "config": None,
    }
    home.gateway.write_text(json.dumps({**about, **changes}))


def test_the_gateway_of_the_home_gets_its_token(home: Home) -> None:
    announce(home)
    address = find_gateway(home, {})
    assert (address.url, address.token, address.local) == ("http://127.0.0.1:4321", "secret", True)
    assert "secret" not in repr(address)


def test_an_unknown_listener_at_the_default_address_gets_no_token(home: Home) -> None:
    address = find_gateway(home, {})
    assert (address.url, address.token) == (DEFAULT_URL, None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9/", "http://127.0.0.1:9/v1"]
)
def test_a_loopback_url_gets_the_token_of_the_home(home: Home, url: str) -> None:
    address = find_gateway(home, {"STOKER_URL": url})
    assert address.token == "secret"
    assert address.url.endswith(":9")


def test_another_machine_gets_only_the_key_that_was_meant_for_it(home: Home) -> None:
    assert find_gateway(home, {"STOKER_URL": "https://gate.example"}).token is None
    assert find_gateway(home, {"STOKER_URL": "https://gate.example", "STOKER_API_KEY": "key"}).token == "key"
    assert find_gateway(home, {"STOKER_URL": "http://127.0.0.1:9", "STOKER_API_KEY": "key"}).token == "key"


@pytest.mark.parametrize("url", ["gate.example", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://[x"])
def test_a_wrong_url_is_refused(home: Home, url: str) -> None:
    with pytest.raises(StokerError, match="STOKER_URL"):
        find_gateway(home, {"STOKER_URL": url})


def test_a_gateway_that_died_is_not_running_whoever_has_its_pid_now(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    for changes in ({"pid": process.pid}, {"process_start": 1}, {"pid": 0}, {"pid": -1}):
        announce(home, **changes)
        assert read_gateway(home) is None
        with pytest.raises(NotRunningError, match="is gone"):
            find_gateway(home, {})


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"pid": "x"}', "\x00", '{"pid": 1'])
def test_a_damaged_announcement_is_no_gateway(home: Home, text: str) -> None:
    home.gateway.write_text(text)
    assert read_gateway(home) is None

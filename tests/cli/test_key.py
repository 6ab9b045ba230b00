"""``stoker key``: with a gateway, which acts at once, and without one, on the state file."""

from __future__ import annotations

import re

import httpx2
import pytest

from stoker.cli.finding import read_gateway

from .conftest import Call, Shell, interrupt

KEY = re.compile(r"sk-stoker-([0-9a-f]{8})-[A-Za-z0-9_-]{43}\n")


def models(url: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.get(f"{url}/v1/models", headers=headers, trust_env=False, verify=False).status_code


def test_without_a_gateway_keys_are_made_listed_and_revoked(here: Call) -> None:
    made = here("key", "create", "--name", "alice", "--model", "m", "--expires", "30d", "--scope", "sessions")
    assert made.code == 0, made.err
    found = KEY.fullmatch(made.out)
    assert found is not None
    key_id = found[1]
    assert key_id in made.err
    listed = here("key", "list")
    assert (key_id in listed.out, "alice" in listed.out, "active, expires in 30 d" in listed.out) == (True, True, True)
    [key] = here("key", "list", "--json").json
    assert (key["models"], key["scopes"]) == (["m"], ["sessions"])
    revoked = here("key", "revoke", key_id)
    assert revoked.code == 0
    assert "require_keys" in revoked.err
    assert "revoked 0 s ago" in here("key", "list").out


def test_the_trail_has_what_was_done_with_and_without_a_gateway(shell: Shell) -> None:
    assert shell.run("audit").out == "nothing was changed through management yet\n"
    key = shell.run("key", "create", "--name", "x", "--json").json
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n')
    assert shell.run("gateway", "start").code == 0
    assert shell.run("key", "revoke", key["key_id"]).code == 0
    with_gateway = shell.run("audit", "--json").json
    assert shell.run("gateway", "stop").code == 0
    assert shell.run("audit", "--json").json == with_gateway
    assert [(entry["who"], entry["method"], entry["status"]) for entry in with_gateway] == [
        ("command line", "POST", 201),
        ("admin token", "DELETE", 200),
    ]
    assert key["key_id"] in shell.run("audit", "--tail", "1").out
    assert shell.run("audit", "--tail", "-1").code == 2


def test_what_makes_no_sense_is_the_command_lines_fault(here: Call) -> None:
    for wrong in (["--expires", "soon"], ["--scope", "all"], ["--requests-per-minute", "0"]):
        assert here("key", "create", "--name", "x", *wrong).code == 2, wrong
    assert here("key", "create").code == 2
    assert here("key", "list").out.startswith("there are no keys")
    assert here("key", "revoke", "nobody").code == 1


def test_a_named_gateway_is_not_replaced_by_the_state_file(here: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_URL", "http://127.0.0.1:9")
    assert here("key", "create", "--name", "x").code == 3


def test_a_gateway_acts_on_keys_at_once(shell: Shell) -> None:
    first = shell.run("key", "create", "--name", "before", "--json").json
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n')
    assert shell.run("gateway", "start").code == 0
    running = read_gateway(shell.home)
    assert running is not None
    assert models(running.url) == 401
    assert models(running.url, first["key"]) == 200
    second = shell.run("key", "create", "--name", "after").out.strip()
    assert models(running.url, second) == 200
    assert shell.run("key", "revoke", first["key_id"]).code == 0
    assert models(running.url, first["key"]) == 401
    assert shell.run("gateway", "stop").code == 0
    assert first["key"] not in shell.home.gateway_log.read_text()


def test_an_address_that_others_can_reach_wants_a_key_first(shell: Shell) -> None:
    shell.write('[gateway]\nlisten = "0.0.0.0:0"\n')
    for refused in (shell.run("config", "check"), shell.run("gateway", "start"), shell.run("up")):
        assert refused.code == 1
        assert "gateway.listen: 0.0.0.0:0 can be reached from other machines" in refused.err
        assert "stoker key create" in refused.err
    assert shell.run("up", "--listen", "[::]:0").code == 2
    key = shell.run("key", "create", "--name", "x", "--json").json
    assert shell.run("config", "check").code == 0
    assert shell.run("gateway", "start").code == 0
    running = read_gateway(shell.home)
    assert running is not None
    assert running.url.startswith("http://127.0.0.1:")
    assert models(running.url, key["key"]) == 200
    revoked = shell.run("key", "revoke", key["key_id"])
    assert revoked.code == 0
    assert models(running.url) == 401, "it must not open to everybody"


def test_whoever_requires_keys_may_listen_anywhere_before_there_is_one(shell: Shell) -> None:
    shell.write('[gateway]\nlisten = "0.0.0.0:0"\nrequire_keys = true\n')
    assert shell.run("config", "check").code == 0
    with shell.start("up") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1].removesuffix("/v1")
        assert models(url) == 401
        assert interrupt(process).code == 0

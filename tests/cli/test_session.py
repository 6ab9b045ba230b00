"""``stoker session``: looking after the conversations of a gateway."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from stoker.cli.finding import read_gateway
from tests.e2e.running import until

from .conftest import Call, Shell
from .test_watching import terminal

QUESTION = {"role": "user", "content": "What is\nthe capital of France?"}


@pytest.fixture
def url(running: Shell, call: Call) -> Iterator[str]:
    """The gateway's address. In the end no session is left."""
    gateway = read_gateway(running.home)
    assert gateway is not None
    yield gateway.url
    assert call("session", "cleanup", "--older-than-days", "0", "--yes").code == 0


def begin(url: str, **body: object) -> str:
    made = httpx2.post(f"{url}/sessions", json=body, trust_env=False, verify=False)
    assert made.status_code == 201
    return str(made.json()["session_id"])


def talk(url: str, session_id: str) -> str:
    body = {"model": "one", "session_id": session_id, "messages": [QUESTION]}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, trust_env=False, verify=False, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_conversation_is_listed_and_shown_renamed_cleared_and_deleted(url: str, call: Call) -> None:
    assert call("engine", "restart", "one").code == 0  # it is READY now, whatever it was
    assert call("session", "list").out == "there are no sessions\n"
    session_id = begin(url, instructions="Be brief.")
    said = talk(url, session_id)
    listed = call("session", "list")
    assert (session_id in listed.out, "What is the capital of France?" in listed.out) == (True, True)
    shown = call("session", "show", session_id)
    for words in ("system:\nBe brief.", "user, 2", "What is\nthe capital of France?", said, session_id):
        assert words in shown.out
    assert [message["role"] for message in call("session", "show", session_id, "--json").json["messages"]] == [
        "user",
        "assistant",
    ]
    assert call("session", "rename", session_id, "France").code == 0
    assert call("session", "list", "--json").json[0]["title"] == "France"
    assert call("session", "clear", session_id).code == 0
    assert call("session", "show", session_id, "--json").json["messages"] == []
    assert call("session", "delete", session_id).code == 0
    gone = call("session", "show", session_id)
    assert (gone.code, f"there is no session {session_id!r}; see: " in gone.err) == (1, True)


def test_one_is_exported_and_imported_again(
    url: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = begin(url, title="To take along")
    file = tmp_path / "session.json"
    assert call("session", "export", session_id, "--output", str(file)).code == 0
    printed = call("session", "export", session_id)
    assert printed.out == file.read_text()
    assert json.loads(printed.out)["title"] == "To take along"
    taken = call("session", "import", str(file))
    assert taken.code == 1
    assert f"there is a session {session_id!r} already" in taken.err
    assert "--new-id" in taken.err
    copy = call("session", "import", str(file), "--new-id").out.strip()
    assert copy != session_id
    assert call("session", "delete", session_id, copy).code == 0
    back = call("session", "import", str(file), "--json").json
    assert (back["session_id"], back["title"]) == (session_id, "To take along")
    monkeypatch.setattr("sys.stdin", io.StringIO(printed.out))
    assert call("session", "import", "-", "--new-id").out.startswith("sess_"), "`-` was refused as an unknown option"
    file.write_text("[]")
    assert "no export" in call("session", "import", str(file)).err
    file.write_text("{")
    assert "is not JSON" in call("session", "import", str(file)).err
    assert "can't be read" in call("session", "import", str(tmp_path / "nothing")).err


def test_a_long_list_comes_in_pages_as_far_as_it_is_wanted(
    url: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.cli.session.PAGE", 2)
    made = [begin(url) for _ in range(5)]
    listed = [session["session_id"] for session in call("session", "list", "--json").json]
    assert listed == made[::-1]
    assert len(call("session", "list", "--json", "--limit", "3").json) == 3
    assert call("session", "list", "--limit", "0").code == 2
    assert call("session", "delete").code == 2


def test_many_are_only_forgotten_by_whoever_says_so(url: str, running: Shell, call: Call) -> None:
    made = [begin(url) for _ in range(2)]
    assert call("session", "cleanup", "--older-than-days", "1", "--json").json == {"deleted": 0}, "none is that old"
    for arguments in ((), ("--older-than-days", "-1")):
        wrong = call("session", "cleanup", *arguments)
        assert (wrong.code, "--older-than-days" in wrong.err) == (2, True)
    refused = running.run("session", "cleanup", "--older-than-days", "0")
    assert (refused.code, refused.out) == (1, "")
    assert "2 sessions would be forgotten, for good" in refused.err
    assert "--yes" in refused.err
    with terminal(running, "session", "cleanup", "--older-than-days", "0") as screen:
        until(lambda: "[y/N]" in screen.drawn, "it asks")
        screen.type("no\n")
    assert screen.process.returncode == 1
    assert len(call("session", "list", "--json").json) == len(made)
    with terminal(running, "session", "cleanup", "--older-than-days", "0") as screen:
        until(lambda: "[y/N]" in screen.drawn, "it asks")
        screen.type("y\n")
    assert screen.process.returncode == 0
    assert call("session", "list", "--json").json == []


def test_without_a_gateway_that_is_said(here: Call) -> None:
    assert here("session", "list").code == 3


def test_they_can_be_switched_off(shell: Shell) -> None:
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n[sessions]\nenabled = false\nkeep_days = 30.0\n')
    assert shell.run("gateway", "start").code == 0
    gateway = read_gateway(shell.home)
    assert gateway is not None
    assert httpx2.get(f"{gateway.url}/sessions", trust_env=False, verify=False).status_code == 404
    assert shell.run("gateway", "stop").code == 0

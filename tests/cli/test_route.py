"""``stoker route explain``, against a gateway in the background."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from stoker.cli.status import policy_line

from .conftest import Call


def test_it_says_which_engine_and_why(call: Call) -> None:
    assert call("engine", "restart", "one").code == 0  # it is READY now, whatever it was
    told = call("route", "explain", "uno", "--prompt", "hello")
    assert told.code == 0, told.err
    assert re.search(r"^policy +least-load \(of the plugin .*policies\)$", told.out, re.MULTILINE)
    assert re.search(r"^engine +one$", told.out, re.MULTILINE)
    assert re.search(r"^why +\S", told.out, re.MULTILINE)
    assert re.search(r"^one +READY +0/4 .* yes", told.out, re.MULTILINE)
    assert not re.search(r"^but", told.out, re.MULTILINE)
    about = call("route", "explain", "uno", "--json").json
    assert (about["asked"], about["model"], about["choice"], about["in_service"]) == ("uno", "one", "one", True)
    assert call("engine", "show", "one", "--json").json["active_requests"] == 0


def test_a_path_that_nobody_serves_is_told(call: Call) -> None:
    told = call("route", "explain", "one", "--path", "/v1/images/edits")
    assert told.code == 0
    assert re.search(r"^engine +none now$", told.out, re.MULTILINE)
    assert "it does not serve /v1/images/edits" in told.out


def test_a_body_comes_from_a_file_or_from_standard_input(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "body.json").write_text(json.dumps({"model": "one", "messages": []}))
    told = call("route", "explain", "one", "--body", str(tmp_path / "body.json"), "-H", "X-A: b", "--json")
    assert told.json["choice"] == "one"
    monkeypatch.setattr("sys.stdin", io.StringIO('{"model": "two"}'))
    contradiction = call("route", "explain", "one", "--body", "-")
    assert contradiction.code == 1
    assert "is not the one of the body" in contradiction.err


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (1, ("nobody",), "the model 'nobody' does not exist; there are: one, uno, two"),
        (1, ("one", "--body", "/no/such"), "/no/such can't be read: No such file"),
        (1, ("one", "--body", "/dev/null"), "is not JSON"),
        (2, ("one", "--header", "nonsense"), "must be 'Name: value'"),
        (2, ("one", "--prompt", "a", "--body", "b"), "give one of them"),
    ],
)
def test_what_can_not_be_explained_is_said(call: Call, code: int, arguments: tuple[str, ...], words: str) -> None:
    failed = call("route", "explain", *arguments)
    assert (failed.code, failed.out) == (code, "")
    assert words in failed.err


def test_a_model_has_the_policy_that_its_engine_was_given(call: Call) -> None:
    try:
        given = call("engine", "register", "http://127.0.0.1:1", "--model", "far", "--policy", "random", "--no-wait")
        assert given.code == 0, given.err
        assert call("route", "explain", "far", "--json").json["policy"] == "random"
        assert re.search(r"^policy +least-load.*; random for far$", call("status").out, re.MULTILINE)
        other = call("engine", "register", "http://127.0.0.1:2", "--model", "far", "--policy", "round-robin")
        assert other.code == 1
        assert "goes by the policy 'random' (engine 'far') already" in other.err
        unknown = call("engine", "register", "http://127.0.0.1:2", "--model", "far", "--policy", "rondom")
        assert "there is no policy 'rondom'; did you mean random?" in unknown.err
    finally:
        call("engine", "stop", "far", "--no-drain", "--forget")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "mine for a, b"),
        ({"models": []}, "mine"),
        ({"failures": {"raised": 2, "slow": 1}}, "mine for a, b (failed 3 times)"),
        ({"failures": {"raised": 1}}, "mine for a, b (failed once)"),
        ({"in_service": False, "failures": {"slow": 3}}, "mine for a, b (OUT OF SERVICE: too slow; see the log)"),
    ],
)
def test_the_status_says_how_a_policy_does(changes: dict[str, object], words: str) -> None:
    about = {"name": "mine", "models": ["a", "b"], "in_service": True, "failures": {"raised": 0}, **changes}
    assert policy_line(about) == words

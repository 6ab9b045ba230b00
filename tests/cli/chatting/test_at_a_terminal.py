"""``stoker chat`` as people use it: at a terminal, with a gateway and fake engines."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import stat
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.finding import read_gateway
from tests import loopback
from tests.cli.conftest import NOBODY, Shell, fake_engine_toml, interrupt
from tests.e2e.running import until

from .terminal import CTRL_A, CTRL_C, CTRL_D, QUOTED, Typist, at_a_terminal

QUICK: Mapping[str, Any] = {"probe_interval_seconds": 0.2, "restart_base_seconds": 0.1, "restart_cap_seconds": 0.5}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A gateway with the models ``one`` (also ``uno``) and ``two``, and one for embeddings."""
    shell = Shell(tmp_path_factory.mktemp("chat"))
    shell.write(
        '[gateway]\nlisten = "127.0.0.1:0"\n'
        + fake_engine_toml("one", "--name", "uno", names=["uno"], **QUICK)
        + fake_engine_toml("two", **QUICK)
        + fake_engine_toml("vectors", "--kind", "embedding", kind="embedding")
    )
    started = shell.run("gateway", "start")
    assert started.code == 0, started.err
    try:
        ready = ("one", "two")
        until(lambda: all(engine(shell, name)["state"] == "READY" for name in ready), "they are READY")
        yield shell
    finally:
        assert shell.run("gateway", "stop", "--now").code == 0


def ask_gateway(shell: Shell, method: str, path: str) -> Any:
    gateway = read_gateway(shell.home)
    assert gateway is not None
    headers = {"authorization": f"Bearer {shell.home.admin_token.read_text().strip()}"}
    return loopback.request(method, f"{gateway.url}{path}", headers=headers, timeout=60).json()


def engine(shell: Shell, name: str) -> dict[str, Any]:
    return dict(ask_gateway(shell, "GET", f"/v1/management/engines/{name}"))


def fake(shell: Shell, name: str, what: str) -> Any:
    return loopback.get(f"{engine(shell, name)['base_url']}/fake/{what}", timeout=60).json()


def bodies(shell: Shell, name: str) -> list[Any]:
    """What that engine was asked, the first first."""
    seen = fake(shell, name, "requests")["requests"]
    return [
        json.loads(base64.b64decode(each["body_base64"])) for each in seen if each["target"].endswith("/completions")
    ]


@pytest.fixture
def faults(shell: Shell) -> Iterator[Any]:
    """Changes the faults of an engine; in the end none has any."""

    def change(name: str, **faults: object) -> None:
        url = engine(shell, name)["base_url"]
        loopback.post(f"{url}/fake/faults", json=faults, timeout=60).raise_for_status()

    yield change
    for name in ("one", "two"):
        loopback.delete(f"{engine(shell, name)['base_url']}/fake/faults", timeout=60).raise_for_status()


def ends_well(typist: Typist) -> None:
    typist.until_prompt()
    typist.type(CTRL_D)
    assert typist.ends() == 0


# One question


def piped(shell: Shell, *arguments: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stoker", "chat", *arguments]
    return subprocess.run(
        command, cwd=shell.folder, env=shell.environ(environ), input=text, capture_output=True, text=True, check=False
    )


def test_one_question_is_answered_with_nothing_but_the_answer(shell: Shell) -> None:
    done = piped(shell, "one", "-m", "a b c", "--max-tokens", "4", "--temperature", "0.5", "--system", "Be brief.")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a b c a\n", "")
    body = bodies(shell, "one")[-1]
    assert (body["max_tokens"], body["temperature"]) == (4, 0.5)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a b c"}]
    assert piped(shell, "uno", "--max-tokens", "2", text="from a pipe\n").stdout == "from a\n"


def test_no_escape_sequence_of_a_model_comes_through(shell: Shell) -> None:
    done = piped(shell, "one", "-m", "\x1b[31mred\x1b]0;title\x07 \x9b2J", "--max-tokens", "2")
    assert done.stdout == "�[31mred�]0;title� �2J\n"


def test_a_question_that_can_not_be_answered_is_an_error(shell: Shell, tmp_path: Path) -> None:
    for arguments, text, code, why in (
        (("on", "-m", "hello"), "", 1, "one"),
        (("-m", "hello"), "", 1, "there are several models, say which: one, two"),
        (("one",), " \n", 2, "--message: it must have a question in it, where standard input has none"),
        (("one", "-m", "x", "--session", "sess_0"), "", 1, "there is no session 'sess_0'"),
        (("one", "-m", "x", "--session", "s", "--new-session", "t"), "", 2, "one too many"),
    ):
        failed = piped(shell, *arguments, text=text)
        assert (failed.returncode, failed.stdout) == (code, ""), arguments
        assert why in failed.stderr
    nobody = piped(Shell(tmp_path), "one", "-m", "hello", STOKER_URL=NOBODY)
    assert (nobody.returncode, nobody.stdout) == (3, "")
    assert "gateway start" in nobody.stderr


def test_ctrl_c_ends_a_question_too(shell: Shell, faults: Any) -> None:
    faults("two", token_seconds=0.05)
    process = shell.start("chat", "two", "-m", "hello", "--max-tokens", "4000")
    assert process.stdout is not None
    assert process.stdout.read(5) == "hello"
    assert interrupt(process).code == 130
    until(lambda: fake(shell, "two", "state")["active"] == 0, "the engine has stopped")


# A chat


def test_a_chat_goes_on_with_what_was_said(shell: Shell) -> None:
    with at_a_terminal(shell, "one", "--max-tokens", "3", "--system", "Be brief.") as typist:
        typist.enter("hello there")
        shown = typist.until(r"engine one")
        assert "\nhello there hello\n" in shown
        assert re.search(r"3 tokens, [\d.]+ tokens/s, first after \d+\.\d\d s, engine one$", shown)
        typist.enter("and\\", "more", "/system Be long.", "again")
        typist.until("engine one.*\n(.*\n)*.*engine one")
        ends_well(typist)
    assert bodies(shell, "one")[-1]["messages"] == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "hello there hello"},
        {"role": "user", "content": "and\nmore"},
        {"role": "assistant", "content": "and more and"},
        {"role": "user", "content": "again"},
    ]


def test_ctrl_c_stops_an_answer_and_not_the_program(shell: Shell, faults: Any) -> None:
    faults("two", token_seconds=0.05)
    before = fake(shell, "two", "state")["cancelled"]
    with at_a_terminal(shell, "two", "--max-tokens", "4000") as typist:
        typist.enter("one two")
        typist.until(r"\none two one")
        typist.type(CTRL_C)
        assert "engine two" in typist.until(r"stopped, .*\n")
        until(lambda: fake(shell, "two", "state")["cancelled"] > before, "the engine's work is cancelled")
        faults("two", first_token_seconds=60)
        typist.enter("still waiting")
        until(lambda: fake(shell, "two", "state")["active"] == 1, "it is asked")
        typist.type(CTRL_C)
        typist.until("stopped")
        faults("two", first_token_seconds=0, token_seconds=0)
        typist.enter("/clear", "/help")
        typist.until("/exit")
        ends_well(typist)


def test_ctrl_c_clears_the_line_and_twice_ends_it(shell: Shell) -> None:
    with at_a_terminal(shell, "one", "--max-tokens", "2") as typist:
        typist.until_prompt()
        typist.type("not this" + CTRL_C)
        typist.until("Ctrl-C again ends it")
        typist.enter("but this")
        assert "but this" in typist.until("engine one")
        typist.until_prompt()
        typist.type(CTRL_C)
        typist.until_prompt()
        typist.type(CTRL_C)
        assert typist.ends() == 130
    assert bodies(shell, "one")[-1]["messages"] == [{"role": "user", "content": "but this"}]


def test_a_line_is_edited_on_after_ctrl_z_and_fg(shell: Shell) -> None:
    """The shell gives the terminal back as it is for commands: keys came out as ^A and ^[[D, and the line was gone."""
    with at_a_terminal(shell, "one", "--max-tokens", "3") as typist:
        typist.until_prompt()
        editing = typist.modes
        typist.type("two thre")
        typist.until("two thre")
        typist.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, typist.process.pid, os.WSTOPPED | os.WNOWAIT)
        cooked = [*editing]
        cooked[3] |= termios.ICANON | termios.ECHO
        typist.modes = cooked
        typist.process.send_signal(signal.SIGCONT)
        typist.until("> two thre")
        until(lambda: typist.modes == editing, "keys are its own again")
        typist.type(f"e{CTRL_A}one \n")
        assert "\none two three\n" in typist.until("engine one")
        ends_well(typist)


def test_models_are_listed_switched_and_suggested(shell: Shell) -> None:
    with at_a_terminal(shell, "one", "--max-tokens", "1") as typist:
        typist.until_prompt()
        typist.type("/mo\tun\t\n")
        typist.until("uno answers from now on")
        typist.enter("/model")
        listed = typist.until("  two\n")
        assert "* one, uno\n" in listed
        assert "vectors" not in listed
        typist.enter("/model twoo")
        typist.until("! there is no model 'twoo' to chat with; did you mean two\\?")
        typist.enter("/modle")
        typist.until("did you mean /model\\?")
        typist.enter("/model two", "hello")
        typist.until("two answers from now on")
        typist.until("engine two")
        ends_well(typist)


def test_an_engine_that_dies_costs_an_answer_and_a_retry_asks_again(shell: Shell, faults: Any) -> None:
    faults("two", die_after_chunks=3)
    with at_a_terminal(shell, "two", "--max-tokens", "5") as typist:
        typist.enter("first of all")
        assert "\nfirst of\n" in typist.until(r"! the stream ended before its answer did: .*\n")
        until(lambda: engine(shell, "two")["state"] == "READY", "it is back")
        typist.enter("/retry")
        assert "\nfirst of all first of\n" in typist.until("engine two")
        typist.enter("/retry")
        typist.until("engine two")
        ends_well(typist)
    assert [body["messages"] for body in bodies(shell, "two")] == [[{"role": "user", "content": "first of all"}]] * 2


def test_a_conversation_is_saved_and_nothing_is_written_over(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "a talk.json"
    with at_a_terminal(shell, "one", "--max-tokens", "2") as typist:
        typist.enter("hello there", f"/save {file}")
        typist.until("the conversation is in ")
        first = file.read_text()
        typist.enter("more", f"/save {file}")
        typist.until("is there already; /save! ")
        assert file.read_text() == first
        typist.enter(
            f"/save! {file}", f"/save {tmp_path}/talk.md", f"/save {tmp_path}/no/talk.md", "/save talk.doc", "/save"
        )
        typist.until("can't be written: No such file")
        typist.until("must end in .md")
        typist.until("say where: /save FILE")
        ends_well(typist)
    said = [each["message"]["content"] for each in json.loads(file.read_text())["messages"]]
    assert said == ["hello there", "hello there", "more", "more more"]
    assert "## You\n\nhello there\n\n## Answer (one)\n\nhello there\n" in (tmp_path / "talk.md").read_text()
    assert shell.run("session", "import", str(file)).code == 0


def test_a_session_is_kept_by_the_gateway_and_sent_once(shell: Shell, tmp_path: Path) -> None:
    with at_a_terminal(shell, "one", "--new-session", "A talk", "--max-tokens", "2") as typist:
        session_id = re.findall(r"session (sess_\w+) 'A talk', 0 messages", typist.until("messages\n"))[0]
        typist.enter("hello there", "and then", "/retry")
        for _ in range(3):
            typist.until("engine one")
        typist.enter("/session")
        typist.until(f"{session_id} 'A talk', 4 messages")
        typist.enter(f"/save {tmp_path}/talk.md")
        typist.until("the conversation is in")
        ends_well(typist)
    turns = [("user", "hello there"), ("assistant", "hello there"), ("user", "and then")]
    assert [(each["role"], each["content"]) for each in bodies(shell, "one")[-1]["messages"]] == turns
    assert (tmp_path / "talk.md").read_text().startswith("# A talk\n\n## You\n\nhello there\n")
    with at_a_terminal(shell, "one", "--session", session_id, "--max-tokens", "2") as typist:
        typist.enter("/retry")
        assert "> and then\n" in typist.until("engine one")
        typist.enter("/clear", "/session")
        typist.until("0 messages")
        typist.enter("/session none", "/session sess_0")
        typist.until("no session: what is said here is kept nowhere else")
        typist.until("! there is no session 'sess_0'")
        ends_well(typist)
    kept = ask_gateway(shell, "GET", f"/sessions/{session_id}/messages")["data"]
    assert kept == []


def test_what_an_engine_refused_costs_a_session_nothing(shell: Shell, faults: Any) -> None:
    """A retry after it once would have dropped the same question's answer of before."""
    with at_a_terminal(shell, "one", "--new-session", "", "--max-tokens", "2") as typist:
        session_id = re.findall(r"sess_\w+", typist.until("messages\n"))[0]
        typist.enter("hello there")
        typist.until("engine one")
        faults("one", status=400)
        typist.enter("hello there")
        typist.until("! told to fail")
        faults("one", status=None)
        typist.enter("/retry")
        typist.until("engine one")
        ends_well(typist)
    assert len(ask_gateway(shell, "GET", f"/sessions/{session_id}/messages")["data"]) == 4


def test_what_was_typed_is_there_the_next_time_for_nobody_else(shell: Shell) -> None:
    with at_a_terminal(shell, "one", "--max-tokens", "1") as typist:
        typist.enter("remembered", " secret")
        typist.until("engine one(.*\n)*.*engine one")
        ends_well(typist)
    assert shell.home.chat_history.read_text().splitlines()[-1] == "remembered"
    assert stat.S_IMODE(shell.home.chat_history.stat().st_mode) == 0o600
    with at_a_terminal(shell, "one", "--max-tokens", "1") as typist:
        typist.until_prompt()
        typist.type("\x1b[A\n")
        typist.until("remembered\nremembered\n")
        ends_well(typist)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_what_wants_no_colours_gets_none(shell: Shell, environ: dict[str, str]) -> None:
    with at_a_terminal(shell, "one", "--max-tokens", "2", **environ) as typist:
        typist.enter(f"{QUOTED}\x1b[31mred", "/nothing")
        typist.until("�\\[31mred �")
        typist.until("engine one")
        typist.until("there is no /nothing")
        ends_well(typist)
    assert re.search(rb"\x1b\[[0-9;]*m", typist.drawn) is None
    if environ.get("TERM") == "dumb":
        assert b"\x1b[?" not in typist.drawn


def test_a_gateway_that_goes_and_comes_back_is_talked_to_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    toml = '[gateway]\nlisten = "127.0.0.1:0"\n' + fake_engine_toml("one")
    shell.write(toml)
    assert shell.run("gateway", "start").code == 0
    try:
        gateway = read_gateway(shell.home)
        assert gateway is not None
        shell.write(toml.replace("127.0.0.1:0", gateway.url.removeprefix("http://")))
        until(lambda: engine(shell, "one")["state"] == "READY", "it is READY")
        with at_a_terminal(shell, "--max-tokens", "2") as typist:
            typist.enter("hello there")
            typist.until("engine one")
            assert shell.run("gateway", "stop", "--now").code == 0
            typist.enter("lost", "/model two", "/session new")
            for _ in range(3):
                assert len(typist.until(r"\n! no gateway answers at .*\n").splitlines()) < 6
            assert shell.run("gateway", "start").code == 0
            until(lambda: engine(shell, "one")["state"] == "READY", "it is READY again")
            typist.enter("/retry")
            typist.until("engine one")
            ends_well(typist)
        assert bodies(shell, "one")[-1]["messages"] == [
            {"role": "user", "content": "hello there"},
            {"role": "assistant", "content": "hello there"},
            {"role": "user", "content": "lost"},
        ]
    finally:
        shell.run("gateway", "stop", "--now")

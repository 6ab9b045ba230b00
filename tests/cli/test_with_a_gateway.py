"""Commands against a gateway in the background, with fake engines."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stoker
from stoker.cli.finding import read_gateway
from stoker.cli.question import ASKED, Question
from stoker.supervise import proctable
from stoker.testing.engines import COMMAND
from tests import loopback
from tests.e2e.running import until

from .conftest import Call, Shell, fake_engine_toml, interrupt

DYING = ["--exit-at-start", "3", "--message", "no such weights"]
FAKE = ["--runtime", "command", "--", *COMMAND, "--port", "{port}", "--model", "{model}"]


@contextlib.contextmanager
def removed_after(call: Call, *engine_ids: str) -> Iterator[None]:
    try:
        yield
    finally:
        for engine_id in engine_ids:
            call("engine", "stop", engine_id, "--no-drain", "--forget")


def states(call: Call) -> dict[str, str]:
    return {info["engine_id"]: info["state"] for info in call("engine", "list", "--json").json}


def test_engines_are_listed_for_people_and_for_programs(call: Call) -> None:
    assert call("engine", "restart", "one").code == 0  # it is READY now, whatever it was
    engines = {info["engine_id"]: info for info in call("engine", "list", "--json").json}
    assert engines["one"]["names"] == ["one", "uno"]
    assert engines["two"]["kind"] == "embedding"
    assert engines["one"]["state_since"] == engines["one"]["ready_at"]
    head, *rows = call("engine", "list").out.splitlines()
    assert head.split()[:5] == ["ENGINE", "MODEL", "RUNTIME", "KIND", "STATE"]
    assert re.match(r"one +one +command +llm +READY +\d+ s +0/4 ", rows[0])


def test_the_table_fits_a_terminal(running: Shell) -> None:
    """What is too long is wrapped, and without colours where NO_COLOR asks for it."""
    reader, writer = pty.openpty()
    environ = running.environ({"COLUMNS": "70", "NO_COLOR": "1", "TERM": "xterm"})
    command = [sys.executable, "-m", "stoker", "engine", "list"]
    with subprocess.Popen(command, env=environ, stdin=writer, stdout=writer, stderr=writer) as process:
        os.close(writer)
        shown = b""
        with contextlib.suppress(OSError):  # that is how the end of a terminal looks
            while data := os.read(reader, 4096):
                shown += data
        os.close(reader)
        assert process.wait(60) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert max(map(len, lines)) <= 70
    assert lines[0].split() == ["ENGINE", "MODEL", "RUNTIME", "KIND", "STATE", "SINCE", "ACTIVE", "GPUS", "DETAIL"]
    assert re.search(rb"\x1b\[[0-9;]*3[0-7]m", shown) is None


def test_an_engine_that_was_not_started_for_it_can_neither_sleep_nor_load_adapters(call: Call) -> None:
    assert call("engine", "restart", "one").code == 0
    for command in (("sleep", "one"), ("wake", "one")):
        done = call("engine", *command)
        assert (done.code, done.out) == (1, "")
        assert "engine 'one' can't sleep as it was started" in done.err
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in call("engine", "adapter", "load", "one", "sql", "/x").err
    assert "can't change its adapters" in call("engine", "adapter", "unload", "one", "org/sql").err
    assert call("engine", "adapter", "list", "one").out == "one has loaded no adapter\n"
    assert call("engine", "adapter", "list", "one", "--json").json == []


def test_one_engine_is_shown_and_an_unknown_one_is_named(call: Call) -> None:
    shown = call("engine", "show", "one")
    assert re.search(r"^names +one, uno$", shown.out, re.MULTILINE)
    assert call("engine", "show", "one", "--json").json["engine_id"] == "one"
    unknown = call("engine", "show", "no/such?")
    assert unknown.code == 1
    assert unknown.out == ""
    assert "no/such?" in unknown.err


def test_the_status_tells_of_gateway_and_engines(call: Call) -> None:
    status = call("status")
    assert status.code == 0
    assert re.search(r"^gateway +http://127", status.out)
    assert "two" in status.out
    about = call("status", "--json").json
    assert (about["policy"], about["lanes"]) == ("least-load", ["express", "hypercorn"])
    assert f"requests framed by {about['parser']}, bodies read by {about['body_reader']}" in call("status").out
    assert call("gateway", "status", "--json").json["running"] is True
    assert re.search(r"^config +/.*stoker\.toml$", call("gateway", "status").out, re.MULTILINE)
    assert "gpus" in call("gpu", "--json").json


def test_starting_a_gateway_that_runs_is_done_already(call: Call) -> None:
    again = call("gateway", "start")
    assert (again.code, again.err) == (0, "")
    assert "runs already" in again.out
    other = call("gateway", "start", "--listen", "127.0.0.1:0")
    assert other.code == 0
    assert "left as it is" in other.err


def test_an_engine_that_is_there_is_not_taken_for_a_new_ones_model(call: Call) -> None:
    mistaken = call("engine", "start", "one")
    assert mistaken.code == 1
    assert re.search(r"there is an engine 'one' already, and it is READY; .* engine restart one; ", mistaken.err)
    assert set(states(call)) == {"one", "two"}


def test_an_engine_that_never_ran_has_no_log_to_look_at(call: Call) -> None:
    with removed_after(call, "never", "stranger"):
        failed = call("engine", "start", "m", "--label", "never", "--runtime", "vllm")
        assert failed.code == 1
        assert "engine restart never; " in failed.err
        assert "engine stop never --forget" in failed.err
        assert "engine logs" not in failed.err
        assert "printed nothing" in call("engine", "logs", "never").err
        call("engine", "register", "http://127.0.0.1:1", "--model", "m2", "--id", "stranger", "--no-wait")
        assert "somebody else" in call("engine", "logs", "stranger").err


def test_a_command_runs_in_the_folder_it_was_typed_in(running: Shell, call: Call, tmp_path: Path) -> None:
    (tmp_path / "here.sh").write_text('exec "$@"\n')
    with removed_after(call, "typed"), contextlib.chdir(tmp_path):
        script = ["sh", "here.sh", *COMMAND, "--port", "{port}", "--model", "{model}"]
        started = call("engine", "start", "typed", "--runtime", "command", "--", *script)
        assert (started.code, started.out) == (0, "typed is READY\n"), started.err


def test_ctrl_c_while_an_engine_stops_says_how_to_hurry(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with removed_after(call, "busy"):
        assert call("engine", "start", "busy", *FAKE).code == 0
        with monkeypatch.context() as patch:
            patch.setattr("stoker.cli.engine._wait_until_stopped", interrupted)
            with pytest.raises(KeyboardInterrupt):
                call("engine", "stop", "busy", "--forget")
        assert "busy goes on stopping" in (said := capsys.readouterr().err)
        assert "engine stop busy --no-drain --forget" in said


def test_an_engine_is_started_waited_for_stopped_and_started_again(call: Call) -> None:
    with removed_after(call, "third"):
        started = call("engine", "start", "three", "--name", "drei", "--label", "third", "--env", "A=b=c", *FAKE)
        assert (started.code, started.out) == (0, "third is READY\n"), started.err
        assert states(call)["third"] == "READY"
        stopped = call("engine", "stop", "third")
        assert (stopped.code, stopped.out) == (0, "third is stopped\n")
        assert states(call)["third"] == "STOPPED"
        again = call("engine", "restart", "third", "--json")
        assert again.json[0]["state"] == "READY"
        assert again.json[0]["names"] == ["three", "drei"]


def test_replicas_are_all_waited_for(call: Call) -> None:
    with removed_after(call, "pair", "pair-2"):
        started = call("engine", "start", "pair", "--replicas", "2", *FAKE)
        assert started.out == "pair is READY\npair-2 is READY\n"


def test_an_engine_that_exits_at_once_is_an_error_with_the_end_of_its_log(call: Call) -> None:
    with removed_after(call, "bad"):
        failed = call("engine", "start", "bad", "--label", "bad", *FAKE, *DYING)
        assert failed.code == 1
        assert failed.out == ""
        assert "exit code 3" in failed.err
        assert "no such weights" in failed.err
        assert "engine logs bad" in failed.err
        assert "no such weights" in call("engine", "logs", "bad").out
        assert re.search(r"^bad .* ERROR .*exit code 3.*no such weights", call("engine", "list").out, re.MULTILINE)


STOKER = (sys.executable, "-m", "stoker")
SLOW = """
printf 'Loading safetensors checkpoint shards:  20%% Completed | 1/5\\r'
until [ -e half ]; do sleep 0.05; done
printf 'Loading safetensors checkpoint shards:  60%% Completed | 3/5\\r'
until [ -e whole ]; do sleep 0.05; done
exec "$@"
"""


def test_a_start_says_how_far_it_is(running: Shell, call: Call, tmp_path: Path) -> None:
    with removed_after(call, "slow"), contextlib.chdir(tmp_path):
        serving = [*COMMAND, "--port", "{port}", "--model", "{model}"]
        shell = Shell(running.folder)
        process = subprocess.Popen(
            [*STOKER, "engine", "start", "slow", "--runtime", "command", "--", "sh", "-c", SLOW, "sh", *serving],
            env=shell.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: states(call).get("slow"), "it is on the list")
        until(lambda: "loading weights, 20%" in call("engine", "list").out, "its listing says so")
        Path("half").touch()
        until(lambda: "loading weights, 60%" in call("status").out, "so does the status")
        assert call("engine", "show", "slow", "--json").json["progress"] == {
            "phase": "loading weights",
            "fraction": 0.6,
        }
        Path("whole").touch()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "slow is READY\n"), err
        assert err == "slow is STARTING\nslow: loading weights\n"
        assert call("engine", "show", "slow", "--json").json["progress"] is None


def test_a_wrong_spec_is_refused_by_the_gateway_in_its_own_words(call: Call) -> None:
    wrong = call("engine", "start", "m", "--replicas", "0", "--port", "70000")
    assert wrong.code == 1
    assert "  --replicas: must be at least 1" in wrong.err
    assert "  --port: must be at most 65535" in wrong.err
    url = call("engine", "register", "127.0.0.1:9", "--model", "q", "--max-concurrency", "0")
    assert "the command line: 2 mistakes" in url.err
    assert "  URL: must be http://" in url.err
    assert "  --max-concurrency: " in url.err
    no_command = call("engine", "start", "m", "--runtime", "command")
    assert (no_command.code, "takes the command after --" in no_command.err) == (2, True)
    assert "KEY=VALUE" in call("engine", "start", "m", "--env", "A").err
    assert "no runtime 'vlm'" in call("engine", "start", "m", "--runtime", "vlm").err


def test_an_engine_that_runs_already_is_registered_once(call: Call) -> None:
    url = call("engine", "show", "two", "--json").json["base_url"]
    with removed_after(call, "outside"):
        done = call("engine", "register", url, "--model", "two", "--kind", "embedding", "--id", "outside")
        assert (done.code, done.out) == (0, "outside is READY\n"), done.err
        twice = call("engine", "register", url, "--model", "two", "--no-wait")
        assert twice.code == 1
        assert "outside" in twice.err


def test_ctrl_c_while_waiting_leaves_the_engine_and_says_how_to_stop_it(running: Shell, call: Call) -> None:
    with removed_after(call, "slow"):
        process = running.start("engine", "start", "slow", *FAKE, "--never-ready")
        assert process.stderr is not None
        assert process.stderr.readline() == "slow is STARTING\n"
        result = interrupt(process)
        assert (result.code, result.out) == (130, "")
        assert result.err == "slow goes on starting; stop it with: python3 -m stoker engine stop slow\n"
        assert states(call)["slow"] == "STARTING"


def test_a_log_is_followed_until_ctrl_c(running: Shell) -> None:
    process = running.start("engine", "logs", "two", "-f")
    assert process.stdout is not None
    for line in process.stdout:
        if "listening on" in line:
            break
    result = interrupt(process)
    assert (result.code, result.err) == (130, "")


def test_the_gateway_log_is_shown_and_followed(running: Shell) -> None:
    assert "answers at" in running.run("gateway", "logs").out
    process = running.start("gateway", "logs", "--follow", "--tail", "1")
    assert process.stdout is not None
    assert process.stdout.readline() != ""
    result = interrupt(process)
    assert (result.code, result.err) == (130, "")


def test_another_homes_token_is_refused_with_the_remedy(
    running: Shell, shell: Shell, here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = read_gateway(running.home)
    assert gateway is not None
    monkeypatch.setenv("STOKER_URL", f"{gateway.url}/v1/")
    without = here("engine", "list")
    assert without.code == 1
    assert "set STOKER_API_KEY" in without.err
    monkeypatch.setenv("STOKER_API_KEY", "wrong")
    assert "STOKER_API_KEY was sent; correct it, or unset it" in here("engine", "list").err
    monkeypatch.delenv("STOKER_API_KEY")
    shell.home.path.mkdir()
    shell.home.admin_token.write_text("another")
    assert "the admin token of this home was sent; for a gateway of another" in here("engine", "list").err
    monkeypatch.setenv("STOKER_URL", gateway.url.replace("http:", "https:"))
    assert "it speaks no TLS (should its address begin with http://?)" in here("engine", "list").err
    monkeypatch.setenv("STOKER_URL", gateway.url)
    monkeypatch.setenv("STOKER_API_KEY", running.home.admin_token.read_text().strip())
    assert here("engine", "list", "--json").code == 0


async def test_the_demos_question_is_answered_and_followed_by_hints(
    running: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = read_gateway(running.home)
    assert gateway is not None
    question = Question(running.home, ["uno", "two"], stay=True)
    assert await question.ask(gateway.url) is None
    assert question.answered
    shown = capsys.readouterr().out
    assert shown.startswith(f"\nYou: {ASKED}\nuno: ")
    answer = shown.partition("uno: ")[2].partition("\n")[0]
    assert answer.strip() != ""
    for line in (f"curl {gateway.url}/v1/chat/completions", "from openai import OpenAI", " status\n"):
        assert line in shown
    assert await Question(running.home, ["uno", "two"], stay=False).ask(gateway.url) == 0
    assert capsys.readouterr().out == f"\nYou: {ASKED}\nuno: {answer}\n\n"


async def test_a_question_nobody_can_answer_is_an_error(running: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = read_gateway(running.home)
    assert gateway is not None
    question = Question(running.home, ["no-such-model"], stay=True)
    assert await question.ask(gateway.url) == 1
    assert not question.answered
    assert "no-such-model" in capsys.readouterr().err


# Gateways of their own


def test_a_gateway_comes_goes_and_comes_back_the_same(shell: Shell, here: Call) -> None:
    """And logs as it was told to, all the while."""
    gateway = '[gateway]\naccess_log = "-"\n'
    shell.write(gateway + fake_engine_toml("m"))
    started = shell.run("gateway", "start", "--listen", "127.0.0.1:0", "--log-format", "json")
    first = read_gateway(shell.home)
    assert first is not None, started.err
    assert first.url in started.out
    assert shell.home.path.stat().st_mode & 0o077 == 0
    in_place = Shell(Path("/")).run("gateway", "restart", STOKER_HOME=str(shell.home.path))
    same = read_gateway(shell.home)
    assert same is not None, in_place.err
    assert (same.pid, same.url, same.argv) == (first.pid, first.url, first.argv)
    assert same.started_at > first.started_at
    restarted = Shell(Path("/")).run("gateway", "restart", "--with-engines", STOKER_HOME=str(shell.home.path))
    second = read_gateway(shell.home)
    assert second is not None, restarted.err
    assert second.pid != first.pid
    assert not first.alive
    assert Path(f"/proc/{second.pid}/cwd").readlink() == shell.folder
    assert second.config == str(shell.folder / "stoker.toml")
    assert second.argv[1:] == ("up", "--config", second.config, "--listen", "127.0.0.1:0", "--log-format", "json")
    assert loopback.post(f"{second.url}/v1/chat/completions", json={"model": "nobody's"}).status_code == 404
    assert here("engine", "list", "--json").json[0]["model"] == "m"
    shell.write(gateway + fake_engine_toml("m") + fake_engine_toml("n"))
    assert here("gateway", "reload").out == "started: n\nleft alone: m\n"
    shell.write("[[engine]]\n")
    refused = here("gateway", "reload")
    assert (refused.code, refused.out) == (1, "")
    assert "engine[0].model" in refused.err
    shell.write(gateway + fake_engine_toml("m"))
    assert here("gateway", "reload", "--json").json["removed"] == ["n"]
    engine_pid = here("engine", "restart", "m", "--json").json[0]["pid"]
    stopped = shell.run("gateway", "stop")
    assert (stopped.code, stopped.out) == (0, "the gateway is stopped\n")
    assert not second.alive
    assert proctable.read_entry(engine_pid) is None
    assert here("gateway", "stop").code == 3
    assert here("gateway", "restart").code == 3
    assert here("gateway", "status", "--json").json == {"running": False}
    lines = [json.loads(line) for line in shell.home.gateway_log.read_text().splitlines()]
    assert {line.get("state") for line in lines if line.get("engine") == "m"} >= {"STARTING", "READY", "STOPPED"}
    [access] = [line for line in lines if line["logger"] == "stoker.access"]
    assert (access["status"], access["path"], access["caller"]) == (404, "/v1/chat/completions", "anyone")


def test_a_gateway_that_can_not_start_says_why(running: Shell, shell: Shell) -> None:
    shell.write("[gateway]\nlisten = 3\n")
    wrong = shell.run("gateway", "start")
    assert wrong.code == 1
    assert "gateway.listen" in wrong.err
    taken = read_gateway(running.home)
    assert taken is not None
    shell.write("")
    refused = shell.run("gateway", "start", "--listen", taken.url.removeprefix("http://"))
    assert refused.code == 1
    assert "did not start (exit code 1)" in refused.err
    assert "--listen" in refused.err
    assert running.run("gateway", "status").code == 0


def test_up_says_where_it_is_and_ends_well_at_ctrl_c(shell: Shell) -> None:
    shell.write(fake_engine_toml("m", names=["nick"], replicas=2))
    process = shell.start("up", "--listen", "127.0.0.1:0")
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    assert process.stdout.readline() == "starting 2 x nick (command)\n"
    assert loopback.get(url.removesuffix("/v1") + "/health").json() == {"status": "ok"}
    result = interrupt(process)
    assert result.code == 0
    assert "Traceback" not in result.err
    assert read_gateway(shell.home) is None


def test_up_refuses_a_wrong_file_before_anything_is_started(shell: Shell) -> None:
    shell.write('[[engine]]\nmodel = "m"\nruntime = "command"\n[[engine]]\nmodel = "n"\nruntime = "nosuch"\n')
    refused = shell.run("up")
    assert refused.code == 1
    assert "stoker.toml: 2 mistakes" in refused.err
    assert not shell.home.path.exists()


def test_the_demo_leaves_a_running_gateway_and_a_taken_port_alone(running: Shell, shell: Shell) -> None:
    busy = running.run("demo", "--exit")
    assert busy.code == 1
    assert "runs already" in busy.err
    gateway = read_gateway(running.home)
    assert gateway is not None
    taken = shell.run("demo", "--exit", "--listen", gateway.url.removeprefix("http://"))
    assert taken.code == 1
    assert "--listen" in taken.err
    assert not shell.home.runtimes.exists()


def test_the_gateway_in_the_background_runs_from_the_one_file_it_was_started_from(shell: Shell) -> None:
    file = shell.folder / "stoker.pyz"
    package = Path(stoker.__file__).parent
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("__main__.py", "from stoker.__main__ import main\nmain()\n")
        for path in package.rglob("*.py"):
            archive.write(path, Path("stoker") / path.relative_to(package))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "stoker.pyz", *arguments]
        return subprocess.run(
            command, cwd=shell.folder, env=shell.environ(), capture_output=True, text=True, check=False
        )

    assert "python3 stoker.pyz gateway start" in run("gateway", "status").stderr
    on_the_path = {**shell.environ(), "PATH": f"{shell.folder}{os.pathsep}{os.environ['PATH']}"}
    file.chmod(0o755)
    status = [sys.executable, str(file), "gateway", "status"]
    said = subprocess.run(status, env=on_the_path, capture_output=True, text=True, check=False).stderr
    assert "start it with: stoker.pyz gateway start" in said
    started = run("gateway", "start", "--listen", "127.0.0.1:0")
    assert started.returncode == 0, started.stderr
    gateway = read_gateway(shell.home)
    assert gateway is not None
    assert gateway.argv[0] == str(file)
    assert run("gateway", "stop").returncode == 0

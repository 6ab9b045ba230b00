"""Each check of the doctor, made to fail for real."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker.cli.checks import Finding, Verdict, What, fleet, machine
from stoker.cli.checks import home as folder
from stoker.cli.finding import read_gateway
from stoker.cli.plugins import load_plugins
from stoker.home import Home
from stoker.model import Stray
from stoker.settings import GatewaySettings, Settings
from tests.gpu.driver import Driver, driver, library

from .conftest import NOBODY, Call, Shell, fake_engine_toml

__all__ = ["driver", "library"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.path.mkdir(mode=0o700)
    return home


def failed(finding: Finding, *words: str) -> bool:
    """Whether it says so, with these words and with a remedy."""
    assert finding.verdict is Verdict.FAIL, finding
    assert finding.remedy
    return all(word in f"{finding.said} {finding.remedy}" for word in words)


def verdicts(findings: list[Mapping[str, Any]]) -> Mapping[str, str]:
    return {each["what"]: each["verdict"] for each in findings}


# The machine


def test_an_old_python() -> None:
    assert machine.python().verdict is Verdict.OK
    assert failed(machine.python((3, 9, 2), "/usr/bin/python3"), "3.9.2", "3.11 or newer")


def test_a_missing_module_is_told_of_in_its_line_alone(
    here: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log had it too, on standard error, in other words."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert "a gateway is slower without httptools" in here("doctor").out
    assert not caplog.records


def test_modules_that_are_missing() -> None:
    assert machine.native((), "").verdict is Verdict.OK
    assert machine.native(("httptools",), "1").verdict is Verdict.OK
    assert machine.native(("msgspec", "httptools"), "").said == "a gateway is slower without httptools and msgspec"


def test_few_descriptors() -> None:
    assert machine.descriptors(resource.RLIM_INFINITY).verdict is Verdict.OK
    assert machine.descriptors(1024).verdict is Verdict.WARN


def test_a_full_disk(tmp_path: Path) -> None:
    there = tmp_path / "not" / "yet"
    assert machine.disk(What.DISK, there, "make room", full=0, low=0).verdict is Verdict.OK
    assert machine.disk(What.DISK, there, "make room", full=0, low=2**80).verdict is Verdict.WARN
    assert failed(machine.disk(What.DISK, there, "make room", full=2**80), "free in", "make room")


def test_a_clock_that_stands_in_the_past(home: Home) -> None:
    written = folder.written(home, Path(__file__))
    assert machine.clock(written).verdict is Verdict.OK
    assert failed(machine.clock(written, now=time.time() - 90 * 86400.0), "before", "timedatectl")
    later = time.time() + 7200.0
    home.state.touch()
    os.utime(home.state, (later, later))
    assert failed(machine.clock(folder.written(home, Path(__file__))), "2 h before")


def test_where_models_are_kept() -> None:
    assert machine.model_cache({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert machine.model_cache({"HF_HOME": "/b"}) == Path("/b/hub")
    assert machine.model_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


def test_a_card_without_a_driver_and_a_driver_that_hangs(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "d").mkdir()
    cards = machine.plugged_in(tmp_path)
    assert cards == 1
    none: dict[str, Any] = {"gpus": [], "reason": "no driver", "incomplete": False}
    assert machine.gpus(none, 0).verdict is Verdict.OK, "a laptop is no failure"
    assert machine.gpus(none, cards).verdict is Verdict.WARN
    assert failed(machine.gpus(None, cards), "does not answer")
    assert machine.strangers(None) is None
    assert machine.strangers(none) is None


def test_a_gpu_that_is_lost_and_one_that_a_stranger_uses(shell: Shell, driver: Driver) -> None:
    driver.add_gpu(0)
    driver.add_gpu(1)
    well = shell.run("doctor", "--json", **driver.env)
    assert (verdicts(well.json["findings"])["GPUs"], verdicts(well.json["findings"])["GPU memory"]) == ("ok", "ok")
    driver.say("gpu1/lost")
    driver.run(0, os.getpid(), 20)
    told = shell.run("doctor", **driver.env)
    assert told.code == 1
    assert "fail  GPUs" in told.out
    assert "GPU is lost" in told.out
    assert f"process {os.getpid()} holds 20.0 GiB of GPU 0" in told.out


# The state folder


def test_a_folder_that_others_see_and_one_that_is_none(home: Home, tmp_path: Path) -> None:
    assert folder.folder(home).verdict is Verdict.OK
    assert folder.folder(Home(tmp_path / "not" / "yet")).verdict is Verdict.OK
    home.path.chmod(0o755)
    assert failed(folder.folder(home), f"chmod 700 {home.path}")
    (tmp_path / "file").touch()
    assert failed(folder.folder(Home(tmp_path / "file")), "is no folder")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else(home: Home) -> None:
    os.chown(home.path, 65534, 65534)
    assert failed(folder.folder(home), "belongs to somebody else (user 65534)")


def test_a_token_that_others_read_and_one_that_is_empty(home: Home) -> None:
    assert folder.token(home).verdict is Verdict.OK
    home.admin_token.write_text("secret\n")
    home.admin_token.chmod(0o600)
    assert folder.token(home).verdict is Verdict.OK
    home.admin_token.chmod(0o644)
    assert failed(folder.token(home), "others may read", "makes another one")
    home.admin_token.write_text("")
    home.admin_token.chmod(0o600)
    assert failed(folder.token(home), "is empty")
    home.admin_token.write_bytes(b"\xff\xfe")
    assert failed(folder.token(home), "can't be read")


def test_a_state_file_that_is_damaged(home: Home) -> None:
    assert folder.state(home).verdict is Verdict.OK
    connection = sqlite3.connect(home.state)
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
    connection.close()
    assert folder.state(home).verdict is Verdict.OK
    data = bytearray(home.state.read_bytes())
    data[100:400] = b"\xff" * 300
    home.state.write_bytes(data)
    assert failed(folder.state(home), "is damaged")
    home.state.write_bytes(b"no database at all, but long enough to be looked at as one" * 20)
    assert failed(folder.state(home), "is damaged")


# The configuration, the address, environments, the gateway


def test_a_configuration_with_mistakes(tmp_path: Path) -> None:
    registry = load_plugins()
    assert fleet.configuration(None, registry)[1] == Settings()
    path = tmp_path / "stoker.toml"
    path.write_text('[[engine]]\nmodel = "m"\nruntime = "vlm"\n')
    finding, settings = fleet.configuration(path, registry)
    assert failed(finding, "engine[0].runtime", "config check")
    assert settings is None
    assert failed(fleet.configuration(tmp_path / "none.toml", registry)[0], "no such file")


def test_an_address_that_somebody_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(gateway=GatewaySettings(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
        finding = fleet.address(settings, None, configured=True)
        assert failed(finding, "in use", f"process {os.getpid()} listens there", "listen")
        assert fleet.address(settings, None, configured=False).verdict is Verdict.WARN
    assert fleet.address(settings, None, configured=True).verdict is Verdict.OK


def test_environments_that_are_missing_or_broken(home: Home, tmp_path: Path) -> None:
    registry = load_plugins()
    path = tmp_path / "stoker.toml"

    def told(text: str) -> list[Finding]:
        path.write_text('[[engine]]\nmodel = "m"\nruntime = "vllm"\n' + text)
        settings = fleet.configuration(path, registry)[1]
        assert settings is not None
        return list(fleet.runtimes(home, settings, registry))

    [missing] = told("")
    assert failed(missing, "missing", "runtime install vllm")
    [gone] = told(f'[runtime.vllm]\npython = "{tmp_path}/no/python"\n')
    assert failed(gone, "can't be run: No such file", "[runtime.vllm]")
    [named] = told(f'[runtime.vllm]\npython = "{sys.executable}"\n')
    assert named.verdict is Verdict.OK
    (tmp_path / "python").write_text("#!/bin/sh\necho 'no module named os' >&2; exit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert failed(fleet.interpreter("x", tmp_path / "python", "mend it"), "no module named os")


def test_a_gateway_that_does_not_answer(running: Shell, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = read_gateway(running.home)
    assert gateway is not None
    monkeypatch.setenv("STOKER_URL", NOBODY)
    monkeypatch.setenv("STOKER_API_KEY", "one of that gateway")
    assert fleet.gateway(running.home, gateway)[0].verdict is Verdict.OK, "it is the one of this home"
    assert call("doctor", "--json").code == 0
    away = attrs.evolve(gateway, url=NOBODY)
    assert failed(fleet.gateway(running.home, away)[0], "does not answer", "gateway logs")


def test_who_does_not_see_what_nobody_watches_is_not_asked_about_it(
    here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With standard output in a file or a pager it asked whether to end what stood there."""
    one = Stray(pid=1, engine_id="lost", began_at=0.0, command="sleep")
    monkeypatch.setattr("stoker.supervise.leftovers.find_strays", lambda _: [one])
    monkeypatch.setattr("stoker.cli.doctor.can_ask", lambda: True)
    told = here("doctor")
    assert (told.code, told.err) == (1, "")
    assert "to end them: " in told.out


def test_a_gateway_that_hangs_does_not_hang_the_doctor(running: Shell, call: Call) -> None:
    """It said nothing for minutes: half of one for each thing that it asked."""
    gateway = read_gateway(running.home)
    assert gateway is not None
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        told = call("doctor", "--json")
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    assert told.code == 1
    [found] = [each for each in told.json["findings"] if each["what"] == "gateway"]
    assert "did not answer in 5 s" in found["said"]
    assert f"kill -9 {gateway.pid}, and then " in found["remedy"]
    assert told.json["strays"] == []


# All of it


def test_every_finding_has_a_verdict_and_what_fails_a_remedy(shell: Shell, here: Call) -> None:
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n' + fake_engine_toml("m"))
    well = here("doctor", "--json")
    assert well.code == 0, well.out
    assert set(verdicts(well.json["findings"])) >= {"python", "disk", "clock", "admin token", "configuration", "GPUs"}
    shell.home.path.mkdir(mode=0o755)
    told = here("doctor", "--json")
    assert told.code == 1
    assert verdicts(told.json["findings"])["state folder"] == "fail"
    assert all(each["remedy"] for each in told.json["findings"] if each["verdict"] != "ok")
    table = here("doctor")
    assert table.code == 1
    assert f"others can look into {shell.home.path}; chmod 700" in table.out

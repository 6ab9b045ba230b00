"""What stands in docs/how-to/deploy is what those who run Stoker start from: it works, and says what is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy"


def tool(name: str) -> str:
    """A program of this machine, or the test is left out."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def must(*command: str | Path) -> str:
    """What a command says, which has to succeed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# The systemd unit


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """But for where its files are, which are not on this machine."""
    analyze = tool("systemd-analyze")
    unit = (DEPLOY / "stoker.service").read_text().replace("/usr/bin/python3", "/bin/sh")
    (tmp_path / "stoker.service").write_text(unit)
    assert must(analyze, "verify", "--man=no", tmp_path / "stoker.service") == ""


def test_the_unit_lets_engines_be_and_leaves_them_the_gpus() -> None:
    unit = (DEPLOY / "stoker.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    wanted = {"Type": "notify", "KillMode": "process", "OOMPolicy": "continue", "Restart": "on-failure"}
    assert settings.items() >= wanted.items()
    assert float(settings["WatchdogSec"]) > 10
    harmful = {"PrivateDevices", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute", "PrivateTmp"}
    assert not settings.keys() & harmful

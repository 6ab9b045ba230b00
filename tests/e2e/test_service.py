"""The systemd unit as a real systemd runs it: the manager of a user, in namespaces of its own. That takes root."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker.home import Home
from stoker.supervise import proctable
from tests.faults.fleet import engine

from .conftest import ROOT
from .running import until

pytestmark = pytest.mark.e2e

UNIT = ROOT / "docs" / "how-to" / "deploy" / "stoker.service"
PLACES = ("/usr/bin/python3", "/opt/stoker/stoker.pyz", "/etc/stoker/stoker.toml", "/var/lib/stoker")
SYSTEM_ONLY = re.compile(r"^(?:User|Group|StateDirectory\w*|Protect\w+)=.*\n", re.MULTILINE)
"""What only the manager of the system can do."""
WATCHDOG = "WatchdogSec=5"
HIERARCHIES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
SECONDS = 60
UP = """
for group in "$@"; do echo $$ >"$group/cgroup.procs"; done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
ip link set lo up
"$SYSTEMD" --user --log-target=console >/dev/null 2>&1 &
for _ in {1..100}; do
    [ "$(systemctl --user is-system-running)" != running ] || { echo up; read; exit; }
    kill -0 $! || exit
    sleep 0.1
done
"""


@attrs.frozen
class Manager:
    """A systemd, and what it is told."""

    inside: Sequence[str]
    environ: dict[str, str]
    pyz: Path

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*self.inside, *map(str, words)]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=SECONDS)

    def systemctl(self, *words: str) -> str:
        """What it says to a command, which has to succeed."""
        done = self.run("systemctl", "--user", *words)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.run('systemctl', '--user', 'status').stdout}"
        return done.stdout.strip()

    @property
    def main_pid(self) -> str:
        """The service's process; 0 where there is none."""
        return self.systemctl("show", "--property=MainPID", "--value", "stoker")

    def engine(self) -> dict[str, Any] | None:
        """The engine, once it is READY."""
        done = self.run(sys.executable, self.pyz, "engine", "list", "--json")
        ready = [each for each in json.loads(done.stdout or "[]") if each["state"] == "READY"]
        return ready[0] if ready else None

    def another_than(self, pid: str) -> dict[str, Any]:
        """The engine, once the service is another process than this one."""
        until(lambda: self.main_pid not in {"0", pid}, "systemd started it again")
        return until(self.engine, "its engine is READY")


@pytest.fixture
def manager(pyz: Path, tmp_path: Path) -> Iterator[Manager]:
    systemd = shutil.which("systemd", path=f"{os.environ['PATH']}:/usr/lib/systemd:/lib/systemd")
    missing = [name for name in ("systemctl", "unshare", "nsenter", "ip") if shutil.which(name) is None]
    if systemd is None or missing or os.geteuid() != 0:
        pytest.skip("that takes root, systemd, util-linux and iproute2")
    units = tmp_path / "config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "stoker.service").write_text(for_a_user(pyz, tmp_path))
    environ = {
        **os.environ,
        "SYSTEMD": systemd,
        "XDG_RUNTIME_DIR": "/run/user/0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "STOKER_HOME": str(tmp_path / "state"),
    }
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with cgroups(f"stoker-{os.getpid()}") as groups:
        words = [*apart, "bash", "-c", UP, "bash", *map(str, groups)]
        with subprocess.Popen(
            words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "up\n":
                    pytest.skip("no systemd comes up here")
                [init] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                yield Manager(["nsenter", "--target", init, "--mount", "--net", "--pid", "--"], environ, pyz)
            finally:
                process.kill()  # and with it all that runs there


def for_a_user(pyz: Path, folder: Path) -> str:
    """The unit, with the places of this machine, and without what only the system's manager can do."""
    unit = SYSTEM_ONLY.sub("", UNIT.read_text())
    for place, here in zip(PLACES, (Path(sys.executable), pyz, folder / "stoker.toml", folder), strict=True):
        assert place in unit
        unit = unit.replace(place, str(here))
    return re.sub(r"^WatchdogSec=.*$", WATCHDOG, unit, flags=re.MULTILINE)


@contextlib.contextmanager
def cgroups(name: str) -> Iterator[list[Path]]:
    """A group of that name in each hierarchy that systemd uses, so that nothing of it stays behind."""
    groups = [Path(each, name) for each in HIERARCHIES if Path(each, "cgroup.procs").exists()]
    try:
        for group in groups:
            group.mkdir()
    except OSError as error:
        pytest.skip(f"here is no cgroup for a systemd: {error}")
    try:
        yield groups
    finally:
        for group in groups:
            for each in sorted((group, *(each for each in group.rglob("*") if each.is_dir())), reverse=True):
                until(partial(is_removed, each), f"{each} is empty")


def is_removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def test_a_service_starts_is_taken_back_after_crash_and_hang_reloads_and_stops(
    manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "stoker.toml").write_text(engine(model="m"))
    manager.systemctl("start", "stoker")
    first, main = until(manager.engine, "its engine is READY"), manager.main_pid
    assert first["origin"] == "managed"

    manager.systemctl("kill", "--signal=KILL", "--kill-who=main", "stoker")
    after_a_crash = manager.another_than(main)
    assert (after_a_crash["pid"], after_a_crash["origin"]) == (first["pid"], "adopted")

    main = manager.main_pid
    manager.systemctl("kill", "--signal=STOP", "--kill-who=main", "stoker")
    after_a_hang = manager.another_than(main)
    assert (after_a_hang["pid"], after_a_hang["origin"]) == (first["pid"], "adopted")

    manager.systemctl("reload", "stoker")
    manager.systemctl("stop", "stoker")
    assert manager.systemctl("show", "--property=Result", "--value", "stoker") == "success"
    digest = Home(tmp_path / "state").digest
    assert not proctable.members(None, lambda mark: mark.startswith(f"{digest}:"))

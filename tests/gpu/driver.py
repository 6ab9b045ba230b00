"""A machine with GPUs that are not there: a ``libnvidia-ml.so.1`` made here, and the folder that says what it says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

STUB = Path(__file__).parent / "nvml_stub.c"
HOLDER = Path(__file__).parent / "hold_memory.py"
GIB = 1024**3


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the compiled stub."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a libnvidia-ml.so.1 with")
    folder = tmp_path_factory.mktemp("driver")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(STUB)], check=True)
    return folder


@attrs.frozen
class Driver:
    """What the driver says, for processes that run with :attr:`env`. Any of it can be changed while they run."""

    library: Path
    says: Path

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which ``pynvml`` finds this driver."""
        return {"LD_LIBRARY_PATH": str(self.library), "NVML_STUB": str(self.says)}

    def say(self, name: str, what: object = "") -> None:
        """Set one of the stub's settings, such as ``init`` or ``gpu0/lost``."""
        path = self.says / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}")  # the driver must not read half of it
        unfinished.write_text(str(what))
        unfinished.replace(path)

    def unsay(self, name: str) -> None:
        """Take a setting back."""
        (self.says / name).unlink()

    def add_gpu(self, index: int, *, name: str = "Stub", gib: float = 80, used_gib: float = 0) -> str:
        """One more GPU (``0``, ``1``, …). Returns its UUID."""
        return self._describe(f"gpu{index}", f"GPU-{index:08}", name, gib, used_gib)

    def divide(self, index: int, slot: int, *, gib: float = 10) -> str:
        """Give a GPU a MIG device. Returns its UUID."""
        return self._describe(f"gpu{index}/mig/{slot}", f"MIG-{index:04}{slot:04}", "Stub MIG", gib, 0)

    def run(self, index: int, pid: int, gib: float, kind: str = "compute") -> None:
        """A process holds memory of a GPU. With a negative ``gib`` the driver does not say how much."""
        self.say(f"gpu{index}/{kind}/{pid}", -1 if gib < 0 else int(gib * GIB))

    def holding(self, gib: float, command: tuple[str, ...]) -> tuple[str, ...]:
        """``command``, which first takes ``gib`` of each GPU that CUDA_VISIBLE_DEVICES gives it."""
        return (sys.executable, str(HOLDER), str(int(gib * GIB)), *command)

    def _describe(self, folder: str, uuid: str, name: str, gib: float, used_gib: float) -> str:
        for setting, value in (
            ("uuid", uuid),
            ("name", name),
            ("total", int(gib * GIB)),
            ("used", int(used_gib * GIB)),
        ):
            self.say(f"{folder}/{setting}", value)
        return uuid


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> Driver:
    """A driver that knows no GPU yet."""
    says = tmp_path / "nvml"
    says.mkdir()
    return Driver(library, says)

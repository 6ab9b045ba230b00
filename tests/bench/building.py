"""What has to be made before anything is measured: the C programs, Stoker's file, environments for the others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .machine import ROOT, BenchError

HERE = Path(__file__).parent
PACKAGES = {"vllm-router": "vllm-router", "sglang-router": "sglang-router", "litellm": "litellm[proxy]"}
STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


def compiler() -> str | None:
    """The C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


def build_program(name: str, folder: Path) -> Path:
    """Compile ``engine`` or ``load`` into ``folder``."""
    found = compiler()
    if found is None:
        raise BenchError("there is no C compiler; install one (Debian, Ubuntu: apt install gcc libc6-dev)")
    program = folder / name
    command = [found, "-O2", *STRICT, "-o", str(program), str(HERE / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{name}.c does not compile:\n{done.stderr}")
    return program


def build_stoker() -> Path:
    """Make ``dist/stoker.pyz`` up to date."""
    done = subprocess.run([sys.executable, str(ROOT / "zipapp.py")], cwd=ROOT, check=False)
    if done.returncode:
        raise BenchError("zipapp.py could not build dist/stoker.pyz; what it said stands above")
    return ROOT / "dist" / "stoker.pyz"


def install(folder: Path) -> None:
    """Give each of the proxies that come from the package index an environment of its own below ``folder``."""
    for name, requirement in PACKAGES.items():
        environment = folder / name
        if not (environment / "bin" / name).exists():
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            done = subprocess.run([*pip, "install", "--quiet", requirement], check=False)
            if done.returncode:
                raise BenchError(f"pip could not install {requirement} (exit code {done.returncode}); see above")

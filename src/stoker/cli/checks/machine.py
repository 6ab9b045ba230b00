"""The machine: Python, limits, disks, the clock, GPUs."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stoker.cli.checks.finding import FEW_DESCRIPTORS, FULL_BYTES, LOW_BYTES, Finding, What, fail, ok, warn
from stoker.cli.output import duration, size

OLDEST_PYTHON = (3, 11)
CLOCK_SECONDS = 300.0
NVIDIA, DISPLAY = "0x10de", "0x03"  # in sysfs: the vendor, and the beginning of the class of whatever has a screen


def python(version: tuple[int, ...] = sys.version_info[:3], where: str = sys.executable) -> Finding:
    """The interpreter that runs this."""
    said = f"{'.'.join(map(str, version))} ({where})"
    if version[:2] < OLDEST_PYTHON:
        return fail(What.PYTHON, said, f"run Stoker with Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return ok(What.PYTHON, said)


def native(missing: Mapping[str, str] | Iterable[str], pure: str) -> Finding:
    """The modules that make a gateway faster. ``pure`` is what STOKER_PURE_PYTHON says."""
    names = sorted(missing)
    if not names:
        return ok(What.NATIVE, "there")
    if pure:
        return ok(What.NATIVE, f"left alone, as STOKER_PURE_PYTHON={pure} says")
    remedy = "build the file with this Python (python3 zipapp.py), or, in the clone: pip install '.[fast]'"
    return warn(What.NATIVE, f"a gateway is slower without {' and '.join(names)}", remedy)


def descriptors(hard: int | None = None) -> Finding:
    """How many files and connections a process may have open."""
    if hard is None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return ok(What.OPEN_FILES, "no limit")
    if hard < FEW_DESCRIPTORS:
        remedy = f"raise the hard limit to {FEW_DESCRIPTORS} or more (ulimit -Hn): a request takes two"
        return warn(What.OPEN_FILES, f"{hard} at most", remedy)
    return ok(What.OPEN_FILES, f"{hard} at most")


def disk(what: What, folder: Path, remedy: str, *, full: int = FULL_BYTES, low: int = LOW_BYTES) -> Finding:
    """The room on the disk that ``folder`` is, or would be, on."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return warn(
            what, f"how much room there is in {folder} can't be told: {error.strerror}", "see that it is mounted"
        )
    said = f"{size(free)} free in {folder}"
    if free < full:
        return fail(what, said, remedy)
    return warn(what, said, remedy) if free < low else ok(what, said)


def model_cache(environ: Mapping[str, str]) -> Path:
    """Where engines keep the models that they fetch from Hugging Face."""
    if named := environ.get("HF_HUB_CACHE"):
        return Path(named)
    if named := environ.get("HF_HOME"):
        return Path(named) / "hub"
    cache = environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"


def clock(written: Iterable[float], now: float | None = None) -> Finding:
    """Whether the time can be right. ``written`` are times at which something was certainly done already."""
    now = time.time() if now is None else now
    ahead = max(written, default=0.0) - now
    if ahead > CLOCK_SECONDS:
        said = f"it stands {duration(ahead)} before something that was done already"
        return fail(What.CLOCK, said, "set it (timedatectl set-ntp true): keys expire and certificates begin by it")
    return ok(What.CLOCK, time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now)))


def gpus(report: Mapping[str, Any] | None, cards: int) -> Finding:
    """The driver. ``report`` is None where it did not answer in time; ``cards`` is how many of NVIDIA's there are."""
    if report is None:
        return fail(
            What.GPUS, "the driver does not answer", "see what nvidia-smi and dmesg say; a restart may be needed"
        )
    count, reason = len(report["gpus"]), report["reason"]
    said = "; ".join(filter(None, (f"{count} to be had", reason)))
    if report["incomplete"]:
        return fail(What.GPUS, said, "see what nvidia-smi says; nothing is placed on what can't be read")
    if cards and not count:
        return warn(What.GPUS, f"{cards} NVIDIA cards are plugged in; {said}", "install NVIDIA's driver, or mend it")
    return ok(What.GPUS, said)


def strangers(report: Mapping[str, Any] | None) -> Finding | None:
    """Memory of GPUs that is held by processes that are no engines of this gateway; None without GPUs."""
    if report is None or not report["gpus"]:
        return None
    told = [
        f"process {each['pid']} holds {'some' if each['memory_used'] is None else size(each['memory_used'])}"
        f" of GPU {gpu['index']}"
        for gpu in report["gpus"]
        for each in gpu["processes"]
        if each["engine_id"] is None
    ]
    if not told:
        return ok(What.GPU_MEMORY, "nobody but Stoker's engines has any")
    return warn(What.GPU_MEMORY, "; ".join(told), "engines get what is left; end what is not needed (ps -fp PID)")


def plugged_in(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """How many NVIDIA cards the machine has, whether there is a driver or not."""
    count = 0
    for device in devices.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        count += vendor == NVIDIA and kind.startswith(DISPLAY)
    return count

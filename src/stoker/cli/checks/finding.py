"""What is looked at, and what was found there."""

from __future__ import annotations

import enum

import attrs

MIB, GIB = 2**20, 2**30
FEW_DESCRIPTORS = 4096
FULL_BYTES, LOW_BYTES = 256 * MIB, 2 * GIB  # of the disk with the state
LOW_CACHE_BYTES = 20 * GIB  # of the disk that models are fetched to


class Verdict(enum.StrEnum):
    """``fail``: something does not work, or will not. ``warn``: it works, but not as well as it could, or not long."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class What(enum.StrEnum):
    """One thing that is looked at. ``minds`` says what is wrong with it, if anything is."""

    minds: str

    def __new__(cls, name: str, minds: str) -> What:
        """Make a member; its value is its name for people."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.minds = minds
        return member

    PYTHON = "python", "one that is too old"
    NATIVE = "native modules", "that some are missing, so that a gateway is slower than it could be"
    OPEN_FILES = "open files", f"a hard limit below {FEW_DESCRIPTORS}"
    CLOCK = "clock", "one that stands before the time at which Stoker's own files were written"
    FOLDER = "state folder", "that others can look into it, that it is somebody else's, or that it can't be written"
    TOKEN = "admin token", "that others can read it, or that it can't be read"
    STATE = "state file", "that it is damaged"
    DISK = "disk", f"less than {LOW_BYTES // GIB} GiB (fail: {FULL_BYTES // MIB} MiB) for the state"
    MODELS = (
        "model cache",
        f"less than {LOW_CACHE_BYTES // GIB} GiB where engines put the models they fetch (`HF_HOME`)",
    )
    PLUGINS = "plugins", "those that are left out"
    CONFIGURATION = "configuration", "every mistake that `config check` would name"
    ADDRESS = "address", "that somebody else listens there; it names the process"
    RUNTIME = (
        "runtime",
        "an environment that a configured engine needs and that is not whole; an interpreter that does not run",
    )
    GATEWAY = "gateway", "one that does not answer, is of another version, or left plugins out"
    GPUS = "GPUs", "a driver that hangs, GPUs that can't be read, cards without a driver; that there are none is fine"
    GPU_MEMORY = "GPU memory", "what processes hold that are no engines of this gateway"


@attrs.frozen
class Finding:
    """One thing that was looked at. There is a remedy wherever the verdict is not ``ok``."""

    what: str
    verdict: Verdict
    said: str
    remedy: str = ""


def ok(what: What, said: str, *, of: str = "") -> Finding:
    """All is well."""
    return Finding(_named(what, of), Verdict.OK, said)


def warn(what: What, said: str, remedy: str, *, of: str = "") -> Finding:
    """It works, but."""
    return Finding(_named(what, of), Verdict.WARN, said, remedy)


def fail(what: What, said: str, remedy: str, *, of: str = "") -> Finding:
    """It does not work."""
    return Finding(_named(what, of), Verdict.FAIL, said, remedy)


def _named(what: What, of: str) -> str:
    return f"{what} {of}".rstrip()

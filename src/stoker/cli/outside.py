"""What is around a command line: the exit codes, and the environment variables that count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DONE, FAILED, USAGE, NOT_RUNNING, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 130, 141

EXITS: Mapping[int, str] = MappingProxyType(
    {
        DONE: "done",
        FAILED: "failed; the reason and the remedy are on standard error",
        USAGE: "the command line is wrong",
        NOT_RUNNING: "no gateway is running",
        INTERRUPTED: "interrupted (Ctrl-C)",
        READER_GONE: "nobody reads the output any more (a closed pipe)",
    }
)

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "STOKER_HOME": ("the folder of all state; without it `$XDG_STATE_HOME/stoker`, else `~/.local/state/stoker`"),
        "STOKER_URL": (
            "the gateway to talk to; without it the one that runs on `STOKER_HOME`, else `http://127.0.0.1:8000`"
        ),
        "STOKER_API_KEY": (
            "the secret sent to that gateway; without it the admin token of `STOKER_HOME`, to this machine only"
        ),
        "STOKER_PLUGIN_PATH": "places of plugins, separated by colons",
        "STOKER_PURE_PYTHON": "1 leaves native modules alone",
        "STOKER_TRACEBACK": "1 shows where the command of a plugin failed",
        "NO_COLOR": "anything switches colours off; `TERM=dumb` does too, and also whatever moves",
    }
)


def epilogue() -> str:
    """Both in few words, for the help page."""
    exits = ", ".join(f"{code} {_shortly(meaning)}" for code, meaning in EXITS.items())
    variables = "; ".join(f"{name}: {_shortly(meaning)}" for name, meaning in VARIABLES.items())
    return f"Exit codes: {exits}.\n\nEnvironment: {variables}."


def _shortly(meaning: str) -> str:
    return meaning.partition(";")[0]

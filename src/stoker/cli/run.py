"""The one way in and out of a command: arguments become a call, and whatever comes of it an exit code."""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from stoker.cli.invocation import as_typed, program
from stoker.cli.outside import DONE, FAILED, NOT_RUNNING, READER_GONE, USAGE
from stoker.cli.tree import make_app, paths, wants_plugins
from stoker.errors import ConfigError, NotRunningError, StokerError
from stoker.home import Home
from stoker.suggesting import meant, suggestion


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors a user can act on are printed; others are defects, and rise."""
    _make_output_safe()
    app = make_app()
    try:
        code = _call(app, arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(f"{_plain(error)}\nThe command's own page: {_help_of(app, arguments)}", USAGE)
    except NotRunningError as error:
        _fail(str(error), NOT_RUNNING)
        _tell_of_orphans()
        return NOT_RUNNING
    except ConfigError as error:
        return _fail(str(error), USAGE if error.source.startswith("--") else FAILED)
    except StokerError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        _abandon_output()
        return READER_GONE
    except OSError as error:  # a full disk, a folder that can't be written: the system's no, not a defect
        _abandon_output()
        return _fail(f"the system refuses: {_refusal(error)}", FAILED)
    return code if isinstance(code, int) else DONE


def _call(app: App, arguments: Sequence[str]) -> object:
    if not wants_plugins(arguments):
        return app(list(arguments))
    from stoker.cli.extensions import add_commands, failed
    from stoker.cli.plugins import load_plugins

    plugin = add_commands(app, load_plugins(needed=False)).get(arguments[0] if arguments else "")
    try:
        return app(list(arguments))
    except (CycloptsError, StokerError, OSError):
        raise
    except Exception as error:  # the plugin boundary: contained, and the plugin named
        if plugin is None:
            raise
        failed(arguments[0], plugin, error)


def _fail(message: str, code: int) -> int:
    print(f"stoker: {as_typed(message)}", file=sys.stderr)
    return code


def _tell_of_orphans() -> None:
    """A gateway that is gone may have left its engines running."""
    if os.environ.get("STOKER_URL"):
        return  # another gateway is meant, and its engines are elsewhere
    from stoker.cli.orphans import tell_of_orphans

    tell_of_orphans(Home.from_environment(os.environ))


def _refusal(error: OSError) -> str:
    """What the system says, and what to do about it where it is about the home."""
    home = Home.from_environment(os.environ).path
    if error.errno == errno.ENOSPC:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; make room there, or on the disk of {home}, where Stoker keeps its state"
    if error.filename is None:
        return str(error)
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    remedy = ""
    if path is not None and (path.is_relative_to(home) or home.is_relative_to(path)):
        remedy = (
            f"; Stoker keeps its state in {home}: see that you can write there, or set STOKER_HOME to another folder"
        )
    return f"{error.filename}: {error.strerror}{remedy}"


def _make_output_safe() -> None:
    """No character, and no missing output, is a reason to fail."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it is the output until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _abandon_output() -> None:
    """What is still buffered has nowhere to go; without this the interpreter would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _plain(error: CycloptsError) -> str:
    match error:
        case UnknownCommandError(unused_tokens=[word, *_]):
            return f"there is no command {shlex.join((*(error.command_chain or ()), word))!r}; {_hint(error.app, word)}"
        case UnusedCliTokensError(unused_tokens=[*words]):
            return f"unexpected on the command line: {shlex.join(words)}"
        case MissingArgumentError(argument=argument, keyword=None) if argument is not None and not argument.tokens:
            return f"{argument.name} is missing"
    error.verbose = False
    return str(error).strip()


def _hint(group: App | None, word: str) -> str:
    """Which command was probably meant: also one that stands in a group of which it was not said."""
    names = [name for name in group or () if not name.startswith("-")]
    if meant(word, names):
        return suggestion(word, names)
    elsewhere = list(paths())
    if within := [each for each in elsewhere if each.endswith(f" {word}")]:
        return suggestion(word, within)
    return suggestion(word, names)


def _help_of(app: App, arguments: Sequence[str]) -> str:
    words = []
    for word in arguments:
        if word.startswith("-"):
            break
        words.append(word)
    chain, _, _ = app.parse_commands(words)
    return " ".join((program(), *chain, "--help"))

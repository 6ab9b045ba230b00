"""The one way in and out of a command: arguments become a call, and whatever comes of it an exit code.

0 done, 1 failed, 2 the command line is wrong, 3 no gateway is running, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from stoker.cli.invocation import program
from stoker.cli.tree import make_app
from stoker.errors import NotRunningError, StokerError

DONE, FAILED, USAGE, NOT_RUNNING, READER_GONE = 0, 1, 2, 3, 141


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors a user can act on are printed; others are defects, and rise."""
    _make_output_safe()
    try:
        code = make_app()(list(arguments))
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(f"{_plain(error)}\nThe command's own page: {_help_of(arguments)}", USAGE)
    except NotRunningError as error:
        return _fail(str(error), NOT_RUNNING)
    except StokerError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        _abandon_output()
        return READER_GONE
    except OSError as error:  # a full disk, a folder that can't be written: the system's no, not a defect
        _abandon_output()
        return _fail(f"the system refuses: {error}", FAILED)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int) -> int:
    print(f"stoker: {message}", file=sys.stderr)
    return code


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
    error.verbose = False
    return str(error).strip()


def _help_of(arguments: Sequence[str]) -> str:
    words = []
    for word in arguments:
        if word.startswith("-"):
            break
        words.append(word)
    chain, _, _ = make_app().parse_commands(words)
    return " ".join((program(), *chain, "--help"))

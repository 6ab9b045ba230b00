"""The state folder and what is in it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

from stoker.cli.checks.finding import Finding, What, fail, ok
from stoker.home import Home


def folder(home: Home) -> Finding:
    """Whether it is ours alone, and can be written."""
    what, path = What.FOLDER, home.path
    if not path.exists():
        above = next(each for each in path.parents if each.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            return fail(what, f"{path} can't be made", f"see that you may write to {above}, or set STOKER_HOME")
        return ok(what, f"{path} is not there yet; the first start makes it")
    if not path.is_dir():
        return fail(what, f"{path} is no folder", "move it away, or set STOKER_HOME to another place")
    about = path.stat()
    if about.st_uid != os.getuid():
        return fail(
            what, f"{path} belongs to somebody else (user {about.st_uid})", "run as that user, or set STOKER_HOME"
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return fail(what, f"{path} can't be written", f"chmod 700 {path}")
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return fail(what, f"others can look into {path}", f"chmod 700 {path}")
    return ok(what, f"{path} is its owner's alone")


def token(home: Home) -> Finding:
    """The secret that opens the management side."""
    what, path = What.TOKEN, home.admin_token
    try:
        about = path.lstat()
    except FileNotFoundError:
        return ok(what, "not there yet; the first start makes it")
    except OSError as error:
        return fail(what, f"{path} can't be looked at: {error.strerror}", f"chmod 700 {home.path}")
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return fail(
            what,
            f"others may read {path}, or could have",
            f"stop the gateway, rm {path}, and start it again: it makes another one",
        )
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        return fail(what, f"{path} can't be read: {error}", f"see that it is yours: chown $(id -u) {path}")
    if not text:
        return fail(what, f"{path} is empty", f"rm {path} and start the gateway again: it makes another one")
    return ok(what, "its owner's alone")


def state(home: Home) -> Finding:
    """The state file, page by page."""
    what, path = What.STATE, home.state
    if not path.exists():
        return ok(what, f"{path.name} is not there yet")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        return fail(what, f"{path} is damaged: {said}", "the next start sets it aside and begins anew")
    return ok(what, f"{path.name} is whole")


def written(home: Home, ours: Path) -> list[float]:
    """Times at which something was certainly done: when our own files, and the state, were written."""
    times = []
    for path in (ours, home.state, home.gateway):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return times

"""The admin token: made at the first start, kept in a file that only its owner can read, asked of every manager."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

import attrs

from stoker.errors import StokerError

_LONGEST = 4096


@attrs.frozen
class AdminToken:
    """The secret of the management side. Never shown in a repr or a log."""

    secret: str = attrs.field(repr=False)

    def accepts(self, given: str) -> bool:
        """Whether ``given`` is this token. Takes the same time for every wrong one."""
        return hmac.compare_digest(given.encode(errors="replace"), self.secret.encode())


def load_or_make_token(path: Path) -> AdminToken:
    """The token that stands in ``path``; if there is no such file, a new one, written to it. Blocks: call in a thread.

    Raises :class:`StokerError` with the remedy when others can read the file, or it can't be used.
    """
    try:
        return _load(path) or _make(path)
    except FileExistsError:
        raise StokerError(f"the admin token {path} was made by somebody else just now; try again") from None
    except OSError as error:
        raise StokerError(
            f"the admin token {path} can't be used: {error.strerror}; STOKER_HOME may be wrong"
        ) from error


def _load(path: Path) -> AdminToken | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        _check_owner(path, os.fstat(descriptor))
        secret = file.read(_LONGEST).decode(errors="replace").strip()
    if not (secret.isascii() and secret.isprintable() and " " not in secret and len(secret) >= 16):
        raise StokerError(f"the admin token {path} is empty or damaged; delete the file, and the next start makes one")
    return AdminToken(secret)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StokerError(f"the admin token {path} is not an ordinary file; move it away")
    if status.st_uid != os.geteuid():
        raise StokerError(f"the admin token {path} belongs to another user; use another STOKER_HOME")
    if status.st_mode & 0o077:
        raise StokerError(
            f"others can read the admin token {path} (mode {stat.S_IMODE(status.st_mode):04o}); delete the file, and "
            f"the next start makes a new one, or keep the token with: chmod 600 {path}"
        )


def _make(path: Path) -> AdminToken:
    token = AdminToken(secrets.token_urlsafe(32))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
            file.write(token.secret.encode() + b"\n")
    except BaseException:
        path.unlink()  # half a token is worse than none
        raise
    return token

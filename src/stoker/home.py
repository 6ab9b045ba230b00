"""Where Stoker keeps things: every path below ``STOKER_HOME``, named once. Nothing here touches the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import attrs


def _absolute(path: str) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - pathlib's raises where ~ names nobody


@attrs.frozen
class Home:
    """The state folder. ``path`` is absolute."""

    path: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Home:
        """``STOKER_HOME``, or ``stoker`` in the user's state folder (XDG_STATE_HOME, ``~/.local/state``)."""
        if named := environ.get("STOKER_HOME"):
            return cls(_absolute(named))
        if state := environ.get("XDG_STATE_HOME"):
            return cls(_absolute(state) / "stoker")
        return cls(Path(environ.get("HOME") or Path.home()).absolute() / ".local" / "state" / "stoker")

    @property
    def digest(self) -> str:
        """Eight hex digits that tell this home from others; part of the marker in every engine's environment."""
        return hashlib.blake2b(str(self.path).encode(), digest_size=4).hexdigest()

    @property
    def admin_token(self) -> Path:
        """The token of the management side, mode 0600."""
        return self.path / "admin-token"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one supervisor of this home for as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def gateway(self) -> Path:
        """JSON about the running gateway: ``pid``, ``url``, ``started_at``, ``version``."""
        return self.path / "gateway.json"

    @property
    def gateway_log(self) -> Path:
        """What a gateway in the background prints."""
        return self.logs / "gateway.log"

    @property
    def logs(self) -> Path:
        """The folder of log files."""
        return self.path / "logs"

    def engine_log(self, engine_id: str) -> Path:
        """The file that an engine's stdout and stderr are. Engine ids can't hold a path separator."""
        return self.logs / f"engine-{engine_id}.log"

    @property
    def gpu_ledger(self) -> Path:
        """JSON: what engines were measured to use of their GPUs."""
        return self.path / "gpu-ledger.json"

    @property
    def chat_history(self) -> Path:
        """What was typed in chats, a line each, mode 0600."""
        return self.path / "chat-history"

    @property
    def runtimes(self) -> Path:
        """The folder of engine environments."""
        return self.path / "runtimes"

    @property
    def state(self) -> Path:
        """The SQLite file that outlives the process: engines, keys, the audit trail."""
        return self.path / "state.sqlite3"

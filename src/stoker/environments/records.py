"""What is told of an environment: that it is installed, how its installation goes on, what there is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

import attrs

from stoker.model import NOTHING


class State(enum.StrEnum):
    """What is there of an environment. Only an INSTALLED one is ever used."""

    MISSING = "missing"
    INCOMPLETE = "incomplete"  # an installation stopped half-way; the next one goes on from there
    OUTDATED = "outdated"  # complete, but the runtime wants something else by now
    INSTALLED = "installed"


@attrs.frozen
class Progress:
    """One step of an installation. ``fraction`` (0 to 1) is of what ``text`` says, where that is known."""

    step: str
    text: str
    fraction: float | None = None


@attrs.frozen(kw_only=True)
class Installed:
    """A complete environment. ``versions`` are of all its packages; ``installed_at`` is seconds since the epoch."""

    name: str
    folder: Path
    python_version: str
    versions: Mapping[str, str]
    installed_at: float
    size_bytes: int

    @property
    def python(self) -> Path:
        """Its interpreter. A link: resolving it would leave the environment."""
        return self.folder / "bin" / "python"

    @property
    def share(self) -> Path:
        """The folder of the files that the runtime put beside its packages."""
        return self.folder / "share" / "stoker"


@attrs.frozen(kw_only=True)
class EnvironmentState:
    """One line of a listing. ``python``, ``versions`` and ``installed_at`` are of the complete environment there is."""

    name: str
    state: State
    summary: str = ""
    python: Path | None = None
    versions: Mapping[str, str] = NOTHING
    size_bytes: int | None = None
    installed_at: float | None = None

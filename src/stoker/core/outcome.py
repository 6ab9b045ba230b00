"""What a decision about one engine comes to."""

from __future__ import annotations

from stoker.core.commands import Command
from stoker.core.engine import Engine

Commands = tuple[Command, ...]
Outcome = tuple[Engine | None, Commands]
"""The engine as it is from now on (None: forgotten), and what has to be done."""

NO_COMMANDS: Commands = ()

"""Every error Stoker raises on purpose.

::

    StokerError                 something a user can understand and act on
    ├── ConfigError             stoker.toml (or a spec sent over HTTP) is wrong; holds every mistake found
    ├── PluginError             a plugin is broken; names it
    ├── EnvironmentFault       an engine environment is missing, broken, or could not be installed
    ├── LaunchError             an engine can't be started as its spec says
    │   └── PermanentLaunchError    … and trying again can't help until somebody changes something
    ├── ConflictError           the request contradicts what is already there (an id that is taken)
    ├── NotFoundError           no such engine, model, runtime, …
    │   └── NoSessionError      … no such stored conversation, or it is somebody else's
    ├── NotRunningError         the CLI found no gateway to talk to
    └── UpstreamError           an engine did not answer as HTTP wants it
    IllegalTransition           a programming error: an event that the state table does not allow
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


class StokerError(Exception):
    """Something went wrong that a user can act on: the message says what, to which thing, and the remedy."""


@attrs.frozen
class Mistake:
    """One mistake in a configuration: where it is (``engine[0].gpus``) and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(StokerError):
    """A configuration is wrong. ``mistakes`` lists everything that was found, not only the first."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        if len(self.mistakes) == 1 and not self.mistakes[0].path:
            super().__init__(f"{source}: {self.mistakes[0]}")
            return
        lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        count = len(self.mistakes)
        super().__init__(f"{source}: {count} mistake{'s' if count != 1 else ''}{lines}")


class PluginError(StokerError):
    """A plugin could not be loaded, or broke its contract. The message names the plugin."""


class EnvironmentFault(StokerError):  # noqa: N818 - "EnvironmentError" is taken by Python
    """An engine environment is missing, broken, or could not be installed."""


class LaunchError(StokerError):
    """An engine could not be started as its spec says; another try may work."""


class PermanentLaunchError(LaunchError):
    """An engine can't be started until somebody changes something: a missing executable, an unknown runtime."""


class ConflictError(StokerError):
    """The request contradicts what is already there, such as an engine id that is taken."""


class NotFoundError(StokerError):
    """There is no thing of that name. The message lists what there is."""


class NoSessionError(NotFoundError):
    """There is no stored conversation of that id, or none that whoever asks may see."""


class NotRunningError(StokerError):
    """No Stoker gateway answers at the address the command talks to."""


class UpstreamError(StokerError):
    """An engine's side of an HTTP exchange failed: refused, reset, cut short, or not HTTP at all."""


class IllegalTransition(Exception):  # noqa: N818 - the name the design gives it
    """An event that the state table does not allow reached an engine. Always a defect in Stoker itself."""

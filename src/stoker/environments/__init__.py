"""Engine environments: a virtual environment for each runtime, built in its final place, used only when complete.

Everything here blocks: call it from the command line, or in a thread.
"""

from stoker.environments.install import install
from stoker.environments.manage import find, listing, remove
from stoker.environments.records import EnvironmentState, Installed, Progress, State

__all__ = ["EnvironmentState", "Installed", "Progress", "State", "find", "install", "listing", "remove"]

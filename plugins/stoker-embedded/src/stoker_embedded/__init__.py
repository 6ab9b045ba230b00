"""The embedded runtime: llama.cpp's own server from a wheel, with models that come in packages. No compiler, no GPU."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.contracts import EngineRuntime
from stoker.hookspecs import hookimpl
from stoker_embedded.runtime import Embedded

__all__ = ["Embedded", "stoker_register_runtimes"]


@hookimpl
def stoker_register_runtimes() -> Sequence[EngineRuntime]:
    """One runtime, ``embedded``. It holds no state."""
    return [Embedded()]

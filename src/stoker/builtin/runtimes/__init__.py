"""The runtimes that come with Stoker: vllm, llama-cpp, command, remote."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.builtin.runtimes.command import Command
from stoker.builtin.runtimes.llama_cpp import LlamaCpp
from stoker.builtin.runtimes.remote import Remote
from stoker.builtin.runtimes.vllm import Vllm
from stoker.contracts import EngineRuntime
from stoker.hookspecs import hookimpl

__all__ = ["Command", "LlamaCpp", "Remote", "Vllm", "stoker_register_runtimes"]


@hookimpl
def stoker_register_runtimes() -> Sequence[EngineRuntime]:
    """All four hold no state."""
    return [Vllm(), LlamaCpp(), Command(), Remote()]

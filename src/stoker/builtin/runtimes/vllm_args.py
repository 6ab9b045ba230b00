"""What a user's own arguments and variables tell vLLM: sizes, names, adapters, memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from types import MappingProxyType

import attrs

from stoker.builtin.runtimes.common import flags_in, switched_on, values_of
from stoker.model import EngineSpec, Gpu

NAMES, ADAPTERS = "--served-model-name", "--lora-modules"
TENSOR, PIPELINE, DATA = "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size"
SHORT = MappingProxyType({TENSOR: "-tp", PIPELINE: "-pp", DATA: "-dp"})
DATA_HERE = ("--data-parallel-size-local", "-dpl")
MEMORY_SHARE, CACHE_BYTES = "--gpu-memory-utilization", "--kv-cache-memory-bytes"
DEFAULT_SHARE = 0.92  # of vLLM 0.32; it was 0.9 before
DEV_MODE, CHANGE_ADAPTERS = "VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
# With these, the sizes are of several machines, whose GPUs are not ours to count.
ELSEWHERE = frozenset({"--nnodes", "-n", "--data-parallel-address", "-dpa"})
EXECUTORS = ("--distributed-executor-backend", "--data-parallel-backend", "-dpb")


@attrs.frozen
class Sizes:
    """How a model is spread: ``tensor`` times ``pipeline`` GPUs for each of ``data`` copies on this machine."""

    tensor: int
    pipeline: int
    data: int

    @property
    def gpus(self) -> int:
        """How many GPUs that takes."""
        return self.tensor * self.pipeline * self.data


def sizes(spec: EngineSpec) -> Sizes:
    """As the arguments say, then the spec. GPUs of whose use nobody says a word are for tensor parallelism."""
    data = _number(spec, *DATA_HERE) or _number(spec, DATA, SHORT[DATA]) or 1
    pipeline = _number(spec, PIPELINE, SHORT[PIPELINE]) or spec.pipeline_parallel_size or 1
    tensor = _number(spec, TENSOR, SHORT[TENSOR]) or spec.tensor_parallel_size
    return Sizes(tensor or max(1, spec.gpus // (pipeline * data)), pipeline, data)


def check_sizes(spec: EngineSpec) -> Sequence[str]:
    """Mistakes in the sizes, or in the count of GPUs that they need."""
    fields = {"tensor_parallel_size": spec.tensor_parallel_size, "pipeline_parallel_size": spec.pipeline_parallel_size}
    mistakes = [f"{name} must be at least 1" for name, size in fields.items() if size is not None and size < 1]
    elsewhere = flags_in(spec.args) & ELSEWHERE or "ray" in values_of(spec.args, EXECUTORS)
    if mistakes or spec.gpus <= 0 or elsewhere:
        return mistakes
    spread = sizes(spec)
    if spec.gpus >= spread.gpus:
        return []
    factors = f"tensor_parallel_size {spread.tensor} times pipeline_parallel_size {spread.pipeline}"
    copies = f" times data_parallel_size {spread.data}" if spread.data > 1 else ""
    return [f"{factors}{copies} needs {spread.gpus} GPUs, but gpus = {spec.gpus}"]


def adapters(spec: EngineSpec) -> tuple[str, ...]:
    """The names of the LoRA adapters that the arguments have vLLM load: ``name=path``, or JSON."""
    names: list[str] = []
    for word in values_of(spec.args, {ADAPTERS}):
        names.extend(_adapter_names(word))
    return tuple(dict.fromkeys(names))


def check_adapters(spec: EngineSpec) -> Sequence[str]:
    """A mistake for every adapter that no client could ask for."""
    return [
        f"args load the adapter {name!r}, but no client could ask for it: put {name!r} into names as well"
        for name in adapters(spec)
        if name not in spec.all_names
    ]


def served_names(spec: EngineSpec) -> tuple[str, ...]:
    """What vLLM itself is to call the model: as the arguments say, else all names but those of adapters."""
    loaded = adapters(spec)
    own = values_of(spec.args, {NAMES})
    return own or tuple(name for name in spec.all_names if name not in loaded) or spec.all_names


def names_known(spec: EngineSpec) -> tuple[str, ...] | None:
    """Every name that vLLM will know, the model's proper one first; None where these are just the spec's."""
    known = (*served_names(spec), *adapters(spec))
    return None if set(known) >= set(spec.all_names) and known[0] == spec.model else known


def memory(spec: EngineSpec, gpu: Gpu) -> int | None:
    """The share of a GPU's memory that vLLM takes for itself, whatever the model; None where it is told otherwise."""
    if values_of(spec.args, {CACHE_BYTES}):
        return None
    written = values_of(spec.args, {MEMORY_SHARE})
    try:
        share = float(written[0]) if written else DEFAULT_SHARE
    except ValueError:
        return None
    return math.ceil(share * gpu.memory_total) if 0 < share <= 1 else None


def in_dev_mode(spec: EngineSpec) -> bool:
    """Whether vLLM opens its endpoints for development, which are also those for sleep."""
    said = spec.env.get(DEV_MODE)
    return switched_on(said) if said is not None else "--enable-sleep-mode" in flags_in(spec.args)


def changes_adapters(spec: EngineSpec) -> bool:
    """Whether vLLM lets adapters be loaded while it runs."""
    return "--enable-lora" in flags_in(spec.args) and switched_on(spec.env.get(CHANGE_ADAPTERS))


def _number(spec: EngineSpec, *flags: str) -> int | None:
    for word in values_of(spec.args, flags)[:1]:
        if word.isascii() and word.isdigit():
            return int(word)
    return None


def _adapter_names(word: str) -> Iterator[str]:
    if not word.lstrip().startswith(("{", "[")):
        yield word.partition("=")[0]
        return
    try:
        said = json.loads(word)
    except (ValueError, RecursionError):
        return  # vLLM will say so
    for each in said if isinstance(said, list) else [said]:
        name = each.get("name") if isinstance(each, dict) else None
        if isinstance(name, str) and name:
            yield name

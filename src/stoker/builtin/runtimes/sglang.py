"""SGLang, through its ``launch_server`` module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stoker.builtin.runtimes import metrics, progress, serving
from stoker.builtin.runtimes.common import (
    address,
    check_address,
    check_common,
    check_kind,
    check_unwanted,
    engine_environment,
    existing,
    flags_in,
    looks_like_file,
    values_of,
)
from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, EnvironmentSpec, Gpu, LaunchPlan, Placement, StartProgress

POOLS = frozenset({serving.EMBEDDINGS}) | serving.TOKENS
RANKS = frozenset({serving.RERANK, serving.SCORE}) | serving.TOKENS
PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "llm": serving.GENERATE,
        "embedding": POOLS,
        "rerank": RANKS,
        "score": RANKS,
        "audio": frozenset({serving.TRANSCRIPTIONS}) | serving.TOKENS,
    }
)
POOLING_KINDS = frozenset({"embedding", "rerank"})
MODEL, NAME = ("--model-path", "--model"), "--served-model-name"
TENSOR = ("--tp-size", "--tp", "--tensor-parallel-size")
PIPELINE = ("--pp-size", "--pp", "--pipeline-parallel-size")
DATA = ("--dp-size", "--dp", "--data-parallel-size")
# What a user may write for the flags that Stoker gives.
SYNONYMS: Mapping[str, Sequence[str]] = MappingProxyType({MODEL[0]: MODEL, TENSOR[0]: TENSOR, PIPELINE[0]: PIPELINE})
MEMORY_SHARE = "--mem-fraction-static"
WORKING_SHARE = 0.1  # of a GPU, for activations and graphs: what SGLang's own defaults leave for them


class Sglang:
    """Starts ``sglang.launch_server`` with an environment's own Python.

    Its ``/health`` computes a token while nothing else does, so that it says more than that somebody listens.
    """

    name = "sglang"
    environment = EnvironmentSpec(requirements=("sglang",), summary="SGLang for CUDA GPUs; several gigabytes")

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Kinds SGLang can't serve, fields it can't use, names it refuses, sizes that don't fit the GPUs."""
        python = "name SGLang's interpreter with [runtime.sglang] python = …, and give flags in args"
        url = 'take runtime = "remote" for an engine that runs already'
        return [
            *check_common(spec),
            *check_kind(spec, PATHS),
            *check_unwanted(spec, {"command": python, "url": url}),
            *check_address(spec),
            *_check_sizes(spec),
        ]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The server's command. Raises :class:`PermanentLaunchError` without an environment to run it in."""
        if placement.python is None:
            raise PermanentLaunchError(
                "SGLang is not installed; run: stoker runtime install sglang, "
                "or name an interpreter that has it: [runtime.sglang] python = …"
            )
        model = str(existing(spec)) if looks_like_file(spec.model) else spec.model
        served = _served_name(spec)
        module = ("-m", "sglang.launch_server")
        return LaunchPlan(
            argv=(str(placement.python), *module, *_flags(spec, model, placement.host, port), *spec.args),
            env=engine_environment(spec, placement),
            cwd=spec.cwd,
            base_url=address(placement.host, port),
            health_path=spec.health_path or "/health",
            metrics_path="/metrics",
            token_probe=serving.token_probe(spec, (served,)),
            # A name with a colon asks for an adapter: qwen:sql.
            names=(served, *(name for name in spec.all_names if name.startswith(f"{served}:"))),
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """SGLang serves either generation or embeddings; rerank and score depend on the model."""
        return PATHS.get(spec.kind, frozenset())

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """The share for weights and cache that the arguments give it, and a tenth of the GPU to work in.

        Without that argument SGLang takes what is there.
        """
        written = values_of(spec.args, {MEMORY_SHARE})
        try:
            share = float(written[0]) if written else 0.0
        except ValueError:
            return None
        return math.ceil(min(1.0, share + WORKING_SHARE) * gpu.memory_total) if 0 < share < 1 else None

    def scrape(self, text: str) -> EngineLoad:
        """The ``sglang:`` metrics."""
        return metrics.SGLANG.read(text)

    def start_progress(self, line: str) -> StartProgress | None:
        """Bars of weights, of CUDA graphs and of downloads."""
        return progress.SGLANG.read(line)


def _served_name(spec: EngineSpec) -> str:
    """The one name that SGLang knows its model by; it takes none with a colon."""
    own = values_of(spec.args, {NAME})
    return own[0] if own else spec.model.replace(":", "-")


def _flags(spec: EngineSpec, model: str, host: str, port: int) -> Sequence[str]:
    """Every flag that Stoker decides and the user did not."""
    wanted: dict[str, Sequence[str]] = {
        MODEL[0]: (model,),
        NAME: (_served_name(spec),),
        "--host": (host,),
        "--port": (str(port),),
        "--enable-metrics": (),
    }
    tensor, pipeline, _ = _sizes(spec)
    for flags, size in ((TENSOR, tensor), (PIPELINE, pipeline)):
        if size > 1:
            wanted[flags[0]] = (str(size),)
    if spec.kind in POOLING_KINDS:
        wanted["--is-embedding"] = ()
    given = flags_in(spec.args)
    mine = {flag: values for flag, values in wanted.items() if not given & {*SYNONYMS.get(flag, (flag,))}}
    return [word for flag, values in mine.items() for word in (flag, *values)]


def _sizes(spec: EngineSpec) -> tuple[int, int, int]:
    """Tensor, pipeline and data parallel size: as the arguments say, then the spec, then for tensors all GPUs."""
    pipeline = _number(spec, PIPELINE) or spec.pipeline_parallel_size or 1
    # With attention in data parallel, the copies share the GPUs of the tensors.
    data = 1 if "--enable-dp-attention" in flags_in(spec.args) else _number(spec, DATA) or 1
    tensor = _number(spec, TENSOR) or spec.tensor_parallel_size or max(1, spec.gpus // (pipeline * data))
    return tensor, pipeline, data


def _check_sizes(spec: EngineSpec) -> Sequence[str]:
    fields = {"tensor_parallel_size": spec.tensor_parallel_size, "pipeline_parallel_size": spec.pipeline_parallel_size}
    mistakes = [f"{name} must be at least 1" for name, size in fields.items() if size is not None and size < 1]
    if mistakes or spec.gpus <= 0 or "--nnodes" in flags_in(spec.args):  # several machines: not ours to count
        return mistakes
    needed = math.prod(_sizes(spec))
    if spec.gpus >= needed:
        return []
    tensor, pipeline, data = _sizes(spec)
    return [f"tensor {tensor} times pipeline {pipeline} times data {data} needs {needed} GPUs, but gpus = {spec.gpus}"]


def _number(spec: EngineSpec, flags: Sequence[str]) -> int | None:
    for word in values_of(spec.args, flags)[:1]:
        if word.isascii() and word.isdigit():
            return int(word)
    return None

"""vLLM, through its OpenAI-compatible server module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stoker.builtin.runtimes import metrics, serving
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
from stoker.model import EngineLoad, EngineSpec, EnvironmentSpec, Gpu, LaunchPlan, Placement

POOLING = frozenset({serving.POOLING}) | serving.TOKENS
PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "llm": serving.GENERATE,
        "embedding": frozenset({serving.EMBEDDINGS, serving.RERANK, serving.SCORE}) | POOLING,
        "rerank": frozenset({serving.RERANK, serving.SCORE}) | POOLING,
        "score": frozenset({serving.RERANK, serving.SCORE}) | POOLING,
        "classify": frozenset({serving.CLASSIFY}) | POOLING,
        "audio": frozenset({serving.TRANSCRIPTIONS, serving.TRANSLATIONS}) | serving.TOKENS,
    }
)
POOLING_KINDS = frozenset({"embedding", "rerank", "score", "classify"})
NAMES = "--served-model-name"
TENSOR, PIPELINE, DATA = "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size"
SHORT = MappingProxyType({TENSOR: "-tp", PIPELINE: "-pp", DATA: "-dp"})
NO_REPORTING = MappingProxyType({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})


class Vllm:
    """Starts ``vllm.entrypoints.openai.api_server`` with an environment's own Python."""

    name = "vllm"
    environment = EnvironmentSpec(requirements=("vllm",), summary="vLLM for CUDA GPUs; several gigabytes")

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Kinds vLLM can't serve, fields it can't use, and parallel sizes that don't fit the GPUs."""
        python = "name vLLM's interpreter with [runtime.vllm] python = …, and give flags in args"
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
                "vLLM is not installed; run: stoker runtime install vllm, "
                "or name an interpreter that has it: [runtime.vllm] python = …"
            )
        own_names = values_of(spec.args, {NAMES})
        model = str(existing(spec)) if looks_like_file(spec.model) else spec.model
        module = ("-m", "vllm.entrypoints.openai.api_server")
        return LaunchPlan(
            argv=(str(placement.python), *module, *_flags(spec, model, placement.host, port), *spec.args),
            env=engine_environment(spec, placement, NO_REPORTING),
            cwd=spec.cwd,
            base_url=address(placement.host, port),
            health_path=spec.health_path or "/health",
            metrics_path="/metrics",
            token_probe=serving.token_probe(spec, own_names),
            names=own_names or None,
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """vLLM serves either generation or pooling."""
        return PATHS.get(spec.kind, frozenset())

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Not from the name of a model."""
        return None

    def scrape(self, text: str) -> EngineLoad:
        """The ``vllm:`` metrics, under their names of today and of before."""
        return metrics.VLLM.read(text)


def _flags(spec: EngineSpec, model: str, host: str, port: int) -> Sequence[str]:
    """Every flag that Stoker decides and the user did not."""
    wanted: dict[str, Sequence[str]] = {
        "--model": (model,),
        NAMES: spec.all_names,
        "--host": (host,),
        "--port": (str(port),),
    }
    for flag, size in zip((TENSOR, PIPELINE), _sizes(spec), strict=True):
        if size > 1:
            wanted[flag] = (str(size),)
    if spec.kind in POOLING_KINDS and "--task" not in flags_in(spec.args):
        wanted["--runner"] = ("pooling",)
    given = flags_in(spec.args)
    mine = {flag: values for flag, values in wanted.items() if not {flag, SHORT.get(flag)} & given}
    return [word for flag, values in mine.items() for word in (flag, *values)]


def _sizes(spec: EngineSpec) -> tuple[int, int]:
    """Tensor and pipeline parallel size. Several GPUs without a word on their use are for tensor parallelism."""
    pipeline = spec.pipeline_parallel_size or 1
    if spec.tensor_parallel_size is not None:
        return spec.tensor_parallel_size, pipeline
    says = flags_in(spec.args) & {TENSOR, PIPELINE, DATA, *SHORT.values()}
    return (1 if says else max(1, spec.gpus // pipeline)), pipeline


def _check_sizes(spec: EngineSpec) -> Sequence[str]:
    sizes = {"tensor_parallel_size": spec.tensor_parallel_size, "pipeline_parallel_size": spec.pipeline_parallel_size}
    mistakes = [f"{name} must be at least 1" for name, size in sizes.items() if size is not None and size < 1]
    if mistakes:
        return mistakes
    tensor, pipeline = _sizes(spec)
    if 0 < spec.gpus < tensor * pipeline:
        mistakes.append(
            f"tensor_parallel_size {tensor} times pipeline_parallel_size {pipeline} needs {tensor * pipeline} GPUs, "
            f"but gpus = {spec.gpus}"
        )
    return mistakes

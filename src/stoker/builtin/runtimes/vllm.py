"""vLLM, through its OpenAI-compatible server module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stoker.builtin.runtimes import metrics, progress, serving
from stoker.builtin.runtimes import vllm_args as told
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
)
from stoker.errors import PermanentLaunchError
from stoker.model import (
    AdapterPaths,
    EngineLoad,
    EngineSpec,
    EnvironmentSpec,
    Gpu,
    LaunchPlan,
    Placement,
    SleepPaths,
    StartProgress,
)

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
NO_REPORTING: Mapping[str, str] = MappingProxyType({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})
SLEEPING = SleepPaths(sleep="/sleep?level=1", wake="/wake_up", asleep="/is_sleeping")
CHANGING_ADAPTERS = AdapterPaths(load="/v1/load_lora_adapter", unload="/v1/unload_lora_adapter")


class Vllm:
    """Starts ``vllm.entrypoints.openai.api_server`` with an environment's own Python."""

    name = "vllm"
    environment = EnvironmentSpec(requirements=("vllm",), summary="vLLM for CUDA GPUs; several gigabytes")
    variables = NO_REPORTING

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Kinds vLLM can't serve, fields it can't use, sizes that don't fit the GPUs, adapters nobody could ask for."""
        python = f"name vLLM's interpreter with [runtime.{self.name}] python = …, and give flags in args"
        url = 'take runtime = "remote" for an engine that runs already'
        return [
            *check_common(spec),
            *check_kind(spec, PATHS),
            *check_unwanted(spec, {"command": python, "url": url}),
            *check_address(spec),
            *told.check_sizes(spec),
            *told.check_adapters(spec),
        ]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The server's command. Raises :class:`PermanentLaunchError` without an environment to run it in."""
        if placement.python is None:
            raise PermanentLaunchError(
                f"vLLM is not installed; run: stoker runtime install {self.name}, "
                f"or name an interpreter that has it: [runtime.{self.name}] python = …"
            )
        model = str(existing(spec)) if looks_like_file(spec.model) else spec.model
        module = ("-m", "vllm.entrypoints.openai.api_server")
        sleeps = told.in_dev_mode(spec)
        # Without it vLLM would have the memory for sleep, but no endpoint to be told to.
        variables = {**self.variables, told.DEV_MODE: "1"} if sleeps else self.variables
        return LaunchPlan(
            argv=(str(placement.python), *module, *_flags(spec, model, placement.host, port), *spec.args),
            env=engine_environment(spec, placement, variables),
            cwd=spec.cwd,
            base_url=address(placement.host, port),
            health_path=spec.health_path or "/health",
            metrics_path="/metrics",
            token_probe=serving.token_probe(spec, told.served_names(spec)),
            names=told.names_known(spec),
            sleeping=SLEEPING if sleeps else None,
            adapters=CHANGING_ADAPTERS if told.changes_adapters(spec) else None,
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """vLLM serves either generation or pooling."""
        return PATHS.get(spec.kind, frozenset())

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """vLLM takes a share of the GPU, and fills with cache what its model leaves of it."""
        return told.memory(spec, gpu)

    def scrape(self, text: str) -> EngineLoad:
        """The ``vllm:`` metrics, under their names of today and of before."""
        return metrics.VLLM.read(text)

    def start_progress(self, line: str) -> StartProgress | None:
        """Bars of weights, of CUDA graphs and of downloads, and what vLLM says before and after them."""
        return progress.VLLM.read(line)


def _flags(spec: EngineSpec, model: str, host: str, port: int) -> Sequence[str]:
    """Every flag that Stoker decides and the user did not."""
    wanted: dict[str, Sequence[str]] = {
        "--model": (model,),
        told.NAMES: told.served_names(spec),
        "--host": (host,),
        "--port": (str(port),),
    }
    spread = told.sizes(spec)
    for flag, size in {told.TENSOR: spread.tensor, told.PIPELINE: spread.pipeline}.items():
        if size > 1:
            wanted[flag] = (str(size),)
    if spec.kind in POOLING_KINDS and "--task" not in flags_in(spec.args):
        wanted["--runner"] = ("pooling",)
    given = flags_in(spec.args)
    mine = {flag: values for flag, values in wanted.items() if not {flag, told.SHORT.get(flag)} & given}
    return [word for flag, values in mine.items() for word in (flag, *values)]

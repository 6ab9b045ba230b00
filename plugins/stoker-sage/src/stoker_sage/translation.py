"""What was typed to SAGE, as what is typed to Stoker: words in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stoker.errors import StokerError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
RUNTIME_VARIABLE = "SAGE_RUNTIME"
EMBEDDED = "embedded"

# What the embedded runtime has in its package, for each kind of engine.
STAND_INS: Mapping[str, str] = MappingProxyType({"llm": "smollm2", "embedding": "all-minilm-l6-v2"})


def address(host: str | None, port: int | None) -> list[str]:
    """Where a gateway is to listen, as Stoker's option; nothing where neither was said."""
    if host is None and port is None:
        return []
    shown = host or DEFAULT_HOST
    return ["--listen", f"[{shown}]:{port or DEFAULT_PORT}" if ":" in shown else f"{shown}:{port or DEFAULT_PORT}"]


def engine_start(
    model: str,
    *,
    kind: str = "llm",
    runtime: str | None = None,
    label: str | None = None,
    port: int | None = None,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    max_concurrent: int | None = None,
    use_gpu: bool | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The arguments of ``stoker engine start`` for an engine as SAGE's options describe it.

    An LLM gets as many GPUs as its two sizes multiply to, an embedding engine none, unless ``use_gpu`` says otherwise.
    With the runtime ``embedded`` a small model that is installed with it answers under the name ``model``.

    Raises :class:`StokerError` for a kind that has no such model.
    """
    options = ["--kind", kind]
    for flag, value in (("--label", label), ("--port", port), ("--max-concurrency", max_concurrent)):
        if value is not None:
            options += [flag, str(value)]
    if runtime == EMBEDDED:
        return [_stand_in(model, kind), "--runtime", EMBEDDED, "--name", model, *options, *_rest(arguments)]
    if runtime is not None:
        options += ["--runtime", runtime]
    if use_gpu or (use_gpu is None and kind == "llm"):
        options += ["--gpus", str(tensor_parallel * pipeline_parallel)]
    sizes: list[str] = []
    if tensor_parallel > 1:
        sizes += ["--tensor-parallel-size", str(tensor_parallel)]
    if pipeline_parallel > 1:
        sizes += ["--pipeline-parallel-size", str(pipeline_parallel)]
    return [model, *options, *_rest([*sizes, *arguments])]


def _stand_in(model: str, kind: str) -> str:
    if kind not in STAND_INS:
        kinds = " and ".join(STAND_INS)
        raise StokerError(
            f"the embedded runtime has no model that could stand in for {model!r}, an engine of kind {kind!r}; "
            f"it has some for {kinds}. Unset {RUNTIME_VARIABLE} to have vLLM load it"
        )
    return STAND_INS[kind]


def _rest(arguments: Sequence[str]) -> list[str]:
    return ["--", *arguments] if arguments else []

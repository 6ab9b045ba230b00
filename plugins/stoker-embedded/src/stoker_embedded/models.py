"""What the embedded engine can load: two models that come in packages, and any GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from stoker.model import EngineSpec

# llama.cpp's server also answers /completion, /embedding and others of its own; these are the ones with known names.
TOKENS = frozenset({"/tokenize", "/detokenize"})
PATHS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "llm": frozenset(
            {
                "/v1/chat/completions",
                "/v1/completions",
                "/v1/responses",
                "/v1/messages",
                "/v1/messages/count_tokens",
            }
        )
        | TOKENS,
        "embedding": frozenset({"/v1/embeddings"}) | TOKENS,
    }
)


@attrs.frozen
class Packaged:
    """A model that is installed with the environment. ``key`` is what the serve script calls it."""

    key: str
    name: str
    short_name: str
    kind: str


PACKAGED = (
    Packaged("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2", "llm"),
    Packaged("minilm", "sentence-transformers/all-MiniLM-L6-v2", "all-minilm-l6-v2", "embedding"),
)


def packaged(model: str) -> Packaged | None:
    """The packaged model of that name, whatever its case."""
    wanted = model.casefold()
    return next((one for one in PACKAGED if wanted in {one.name.casefold(), one.short_name}), None)


def gguf_file(spec: EngineSpec) -> Path | None:
    """The file that ``spec.model`` names, seen from the engine's folder; None where it names no GGUF file."""
    if not spec.model.endswith(".gguf"):
        return None
    return (Path(_at_home(spec.cwd or ".")) / _at_home(spec.model)).absolute()


def _at_home(path: str) -> str:
    # Unlike pathlib's this one leaves the home of nobody as it is.
    return os.path.expanduser(path)  # noqa: PTH111


def mistakes(spec: EngineSpec) -> list[str]:
    """What is wrong with ``spec``'s model and kind, and what to write instead."""
    if spec.kind not in PATHS:
        return [f"kind {spec.kind!r} is none that the embedded engine serves; it serves: {', '.join(PATHS)}"]
    if (model := packaged(spec.model)) is not None:
        return [] if model.kind == spec.kind else [_misfit(model, spec.kind)]
    if gguf_file(spec) is None:
        there_are = ", ".join(f'"{one.name}" (or "{one.short_name}"; kind = "{one.kind}")' for one in PACKAGED)
        return [
            f"there is no model {spec.model!r} in the embedded engine; there are: {there_are}, or a path to a .gguf"
        ]
    return []


def missing_file(spec: EngineSpec) -> str | None:
    """What to say if ``spec`` names a file that is not there. Looks at the disk."""
    file = None if packaged(spec.model) else gguf_file(spec)
    if file is None or os.path.isfile(file):  # noqa: PTH113 - pathlib's raises for a name that is too long
        return None
    return f"model {spec.model!r}: there is no file {file}; correct the path, or put the file there"


def _misfit(model: Packaged, kind: str) -> str:
    other = next(one for one in PACKAGED if one.kind == kind)
    return (
        f"model {model.name!r} is of kind {model.kind!r}, not {kind!r}: "
        f'set kind = "{model.kind}", or take model = "{other.name}"'
    )

"""What the runtimes share: reading a user's flags, checking a spec, and the environment of an engine."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import attrs

from stoker.errors import PermanentLaunchError
from stoker.model import NOTHING, EngineSpec, Placement

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


def flags_in(args: Sequence[str]) -> frozenset[str]:
    """The flags that ``args`` hold, as ``--long-name`` or ``-x``: without values, underscores as hyphens."""
    return frozenset(_flag(word) for word in args if word.startswith("-"))


def values_of(args: Sequence[str], flags: Collection[str]) -> tuple[str, ...]:
    """What ``args`` give one of ``flags``, as ``--flag value more`` or ``--flag=value``; the last one counts."""
    values: tuple[str, ...] = ()
    for place, word in enumerate(args):
        if word.startswith("-") and _flag(word) in flags:
            _, written, value = word.partition("=")
            values = (value,) if written else tuple(takewhile(_is_no_flag, args[place + 1 :]))
    return tuple(filter(None, values))


def _is_no_flag(word: str) -> bool:
    return not word.startswith("-")


def _flag(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def switched_on(value: str | None) -> bool:
    """Whether an environment variable of this value counts as set: to a number other than 0, or to true."""
    return value is not None and value.strip().lower() not in {"", "0", "false"}


def check_common(spec: EngineSpec) -> list[str]:
    """The mistakes that no runtime can work with."""
    mistakes = []
    if not all(name.strip() for name in spec.all_names):
        mistakes.append("model and names must not be empty")
    if spec.replicas < 1:
        mistakes.append("replicas must be at least 1")
    if spec.replicas > 1 and spec.port is not None:
        mistakes.append(f"{spec.replicas} replicas can't share port {spec.port}; leave port out to get one for each")
    if spec.gpus < 0:
        mistakes.append("gpus must not be negative")
    if spec.gpus and GPU_VARIABLE in spec.env:
        mistakes.append(f"env sets {GPU_VARIABLE}, but with gpus = {spec.gpus} the scheduler does; keep one of them")
    if spec.health_path is not None and not spec.health_path.startswith("/"):
        mistakes.append(f"health_path {spec.health_path!r} must begin with /")
    return mistakes


def check_kind(spec: EngineSpec, kinds: Collection[str]) -> list[str]:
    """A mistake where ``spec.kind`` is none of ``kinds``."""
    if spec.kind in kinds:
        return []
    return [f"runtime {spec.runtime!r} knows no kind {spec.kind!r}; it knows: {', '.join(sorted(kinds))}"]


def check_unwanted(spec: EngineSpec, remedies: Mapping[str, str]) -> list[str]:
    """A mistake for every field named in ``remedies`` that ``spec`` sets, with what to do instead."""
    fields = attrs.fields_dict(EngineSpec)
    return [
        f"{name} means nothing to runtime {spec.runtime!r}; {remedy}"
        for name, remedy in remedies.items()
        if getattr(spec, name) != fields[name].default
    ]


def check_address(spec: EngineSpec) -> list[str]:
    """A mistake where the user's own flags say where to listen: Stoker must know."""
    taken = flags_in(spec.args) & {"--host", "--port"}
    return [
        f"args give {flag}: Stoker decides where engines listen; for a fixed port set port = N, and leave {flag} out"
        for flag in sorted(taken)
    ]


def engine_environment(
    spec: EngineSpec, placement: Placement, defaults: Mapping[str, str] = NOTHING
) -> Mapping[str, str]:
    """``defaults``, what the user sets over them, and the GPUs that the scheduler gave."""
    gpus = {GPU_VARIABLE: ",".join(placement.gpus)} if placement.gpus else {}
    return {**defaults, **spec.env, **gpus}


def address(host: str, port: int) -> str:
    """The URL of an engine on this machine."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def looks_like_file(model: str) -> bool:
    """Whether ``model`` can only be meant as a path on this machine."""
    return model.startswith(("/", "./", "../", "~")) or model.endswith(".gguf")


def existing(spec: EngineSpec) -> Path:
    """The path ``spec.model`` names, seen from the engine's folder. Looks at the disk.

    Raises :class:`PermanentLaunchError` when nothing is there.
    """
    path = Path(os.path.expanduser(spec.cwd or "."), os.path.expanduser(spec.model))  # noqa: PTH111 - leaves ~nobody as it is
    if not path.exists():
        raise PermanentLaunchError(
            f"model {spec.model!r}: there is no {path.absolute()}; correct the path, or put the file there"
        )
    return path.absolute()

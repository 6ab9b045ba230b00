"""How an engine is started, where, and what has to be installed for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.model.nothing import NOTHING


@attrs.frozen(kw_only=True)
class Placement:
    """Where an engine will run: which GPUs (by UUID) a scheduler gave it, and which environment's Python."""

    gpus: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    python: Path | None = None


@attrs.frozen(kw_only=True)
class TokenProbe:
    """The smallest real request of an engine family: proves that it still computes, not only that it listens."""

    path: str
    body: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class SleepPaths:
    """Where an engine family puts an engine to sleep (its memory is given back, its process stays) and wakes it.

    ``sleep`` and ``wake`` are POSTed to; ``asleep`` is asked by GET and answers a JSON object whose one boolean member
    says whether the engine sleeps.
    """

    sleep: str
    wake: str
    asleep: str


@attrs.frozen(kw_only=True)
class AdapterPaths:
    """Where an engine family loads and unloads LoRA adapters as it runs: POST, with ``lora_name`` and ``lora_path``."""

    load: str
    unload: str


@attrs.frozen(kw_only=True)
class LaunchPlan:
    """How to start one engine and how to know that it lives.

    ``argv`` is empty for an engine that is only a URL. ``env`` is laid over Stoker's own environment. ``health_path``
    answers 200 when, and only when, the engine can take requests. ``metrics_path`` is given where the runtime's
    ``scrape`` can read what stands there.

    ``names`` are those under which the engine itself knows the model, its proper one first; None where it knows all of
    the spec's. A request that asks for another is rewritten to ask for the first.

    ``sleeping`` and ``adapters`` are given where this engine, started like this, can sleep and change its adapters.
    """

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = NOTHING
    cwd: str | None = None
    base_url: str
    health_path: str = "/health"
    metrics_path: str | None = None
    token_probe: TokenProbe | None = None
    names: tuple[str, ...] | None = None
    sleeping: SleepPaths | None = None
    adapters: AdapterPaths | None = None


@attrs.frozen(kw_only=True)
class EnvironmentSpec:
    """What a runtime needs installed beside it, in a virtual environment of its own.

    ``requirements`` are pip requirements with their dependencies, ``bare_requirements`` without (``--no-deps``, for
    packages that only carry weights), ``remove`` are packages to take out again afterwards. ``env`` are variables
    set for the installing pip where the user has not set them. ``files`` are written into the environment's
    ``share/stoker`` folder; ``prepare`` is a command run last, in which ``{python}`` and ``{share}`` are replaced.
    """

    requirements: tuple[str, ...]
    bare_requirements: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    env: Mapping[str, str] = NOTHING
    files: Mapping[str, str] = NOTHING
    prepare: tuple[str, ...] = ()
    summary: str = ""

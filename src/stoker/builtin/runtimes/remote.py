"""An engine that somebody else runs: only a URL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from stoker.builtin.runtimes import metrics, serving
from stoker.builtin.runtimes.common import check_common, check_unwanted
from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, Gpu, LaunchPlan, Placement

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Remote:
    """Routes to ``spec.url``. Starts nothing, stops nothing.

    Health is asked of ``/v1/models``, which every OpenAI-compatible service has. Its metrics, where it has any, speak
    of other people's requests too, so they are not read.
    """

    name = "remote"
    environment = None

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """A URL that can't be used, and everything that only a process of our own could have."""
        foreign = "Stoker does not start this engine; leave it out"
        names = ("command", "args", "env", "cwd", "port", "gpus", "tensor_parallel_size", "pipeline_parallel_size")
        unwanted = {**dict.fromkeys(names, foreign), "replicas": "give each URL an [[engine]] of its own"}
        return [*check_common(spec), *check_unwanted(spec, unwanted), *_check_url(spec.url), *_check_key(spec)]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """No command, only where the engine is. Raises :class:`PermanentLaunchError` for a URL that can't be used."""
        if wrong := _check_url(spec.url):
            raise PermanentLaunchError("; ".join(wrong))
        assert spec.url is not None
        return LaunchPlan(
            base_url=base_url(spec.url),
            health_path=spec.health_path or "/v1/models",
            token_probe=serving.token_probe(spec),
            names=(spec.model,),
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """What engines of this kind serve; the engine itself answers 404 for what it doesn't."""
        return serving.paths_of_any(spec.kind)

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """None of ours."""
        return None

    def scrape(self, text: str) -> EngineLoad:
        """The metrics of any engine family Stoker knows."""
        return metrics.ANY.read(text)


def base_url(url: str) -> str:
    """``url`` without a slash or ``/v1`` at its end: request paths bring their own."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _check_url(url: str | None) -> Sequence[str]:
    if not url:
        by_hand = "by hand: stoker engine register URL --model MODEL"
        return [f'there is no url; give one: url = "http://127.0.0.1:9001" ({by_hand})']
    try:
        parts = urlsplit(url)
        port_is_wrong = parts.port == 0
    except ValueError as error:
        return [f"url can't be read: {error}"]
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return [f'url {_shown(parts)!r} must be like "http://host:port" or "https://host"']
    mistakes = []
    if parts.username is not None or parts.password is not None:
        mistakes.append("url holds credentials; put the key into an environment variable and name it in api_key_env")
    if parts.query or parts.fragment:
        mistakes.append(f"url {_shown(parts)!r} has a query or fragment; leave it out")
    if any(character.isspace() or not character.isprintable() for character in url):
        mistakes.append(f"url {_shown(parts)!r} holds white space; remove it")
    if port_is_wrong:
        mistakes.append(f"url {_shown(parts)!r} has port 0; give the port the engine listens on")
    return mistakes


def _shown(parts: SplitResult) -> str:
    """The URL without what may be a secret in it."""
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _check_key(spec: EngineSpec) -> Sequence[str]:
    if spec.api_key_env is None or VARIABLE.fullmatch(spec.api_key_env):
        return []
    return ["api_key_env must be the name of an environment variable that holds the key, not the key itself"]

"""Asks a runtime how an engine is started, and looks through what it says before anything is done with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import attrs
import httpx2

from stoker.containing import contained, described, is_text
from stoker.contracts import EngineRuntime
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import AdapterPaths, EngineSpec, LaunchPlan, Placement, SleepPaths, TokenProbe


def make_plan(runtime: EngineRuntime, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
    """The runtime's plan for ``spec``. Blocks; use a thread.

    Raises :class:`LaunchError` that names the runtime where it breaks, or where nothing can be started and watched by
    what it says.
    """
    with contained(f"runtime {spec.runtime!r} could not plan it", PermanentLaunchError, passing=LaunchError):
        plan = runtime.plan(spec, placement, port)
        if wrong := next(_mistakes(plan, placement), None):
            raise TypeError(wrong)
    return attrs.evolve(plan, base_url=plan.base_url.rstrip("/")) if plan.base_url.endswith("/") else plan


def _mistakes(plan: object, placement: Placement) -> Iterator[str]:
    """What is wrong with a plan. A plugin may have been written without a type checker."""
    if not isinstance(plan, LaunchPlan):
        yield f"it gave {described(plan)}, which is no LaunchPlan"
        return
    yield from _mistakes_of_command(plan, placement)
    yield from _mistakes_of_environment(plan.env)
    yield from _mistakes_of_base(plan.base_url)
    yield from _mistakes_of_urls(plan)
    if plan.names is not None and not (_is_texts(plan.names) and plan.names):
        yield f"its names are {described(plan.names)}, and must be texts, at least one, or None"
    if plan.token_probe is not None:
        yield from _mistakes_of_probe(plan.token_probe)


def _mistakes_of_command(plan: LaunchPlan, placement: Placement) -> Iterator[str]:
    if is_text(plan.argv):
        yield f"its argv is a text, {plan.argv!r}, and must be a tuple of texts, one for each word"
    elif not _is_texts(plan.argv):
        yield f"its argv is made of texts, not of {described(plan.argv)}"
    elif any("\0" in word for word in plan.argv):
        yield "its argv has a NUL character, which no command can be given"
    elif plan.argv and not plan.argv[0].strip():
        yield f"its argv begins with {plan.argv[0]!r}, and must begin with the program"
    elif not plan.argv and placement.gpus:
        gpus = ", ".join(placement.gpus)
        yield f"its argv is empty, as for an engine that runs elsewhere, but it has GPUs here: {gpus}"
    if plan.cwd is not None and not is_text(plan.cwd):
        yield f"its cwd is {described(plan.cwd)}, and must be a text or None"


def _mistakes_of_environment(env: object) -> Iterator[str]:
    if not isinstance(env, Mapping):
        yield f"its env is {described(env)}, and must be a mapping of texts"
        return
    words = (*env.keys(), *env.values())
    if not _is_texts(words):
        yield f"its env is made of texts, not of {described(words)}"
        return
    if any("\0" in word for word in words):
        yield "its env has a NUL character, which no command can be given"
    for name in env:
        if not name or "=" in name:
            yield f"its env has {name!r}, which can't be the name of a variable"


def _mistakes_of_base(url: object) -> Iterator[str]:
    """An address that nobody could reach would only be found out when the time to start is over."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        yield f"its base_url is {described(url)}, and must begin with http:// or https://"
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        yield f"its base_url {url!r} makes no URL: {error}"
        return
    if not host or port == 0:
        yield f"its base_url is {url!r}, which has no {'port' if host else 'host'} that could be reached"
    if parts.query or parts.fragment or "@" in parts.netloc:
        yield f"its base_url is {url!r}, and must be http://host:port, with a path at most"


def _mistakes_of_urls(plan: LaunchPlan) -> Iterator[str]:
    paths: dict[str, object] = {"health_path": plan.health_path}
    if plan.metrics_path is not None:
        paths["metrics_path"] = plan.metrics_path
    for kind, what in ((SleepPaths, plan.sleeping), (AdapterPaths, plan.adapters)):
        if what is not None:
            if not isinstance(what, kind):
                yield f"{described(what)} is no {kind.__name__}"
                return
            paths |= {f"{kind.__name__}.{name}": getattr(what, name) for name in kind.__annotations__}
    if isinstance(plan.token_probe, TokenProbe):
        paths["token_probe.path"] = plan.token_probe.path
    for name, path in paths.items():
        if not isinstance(path, str) or not path.startswith("/"):
            yield f"its {name} is {described(path)}, and must be a text that begins with /"
        elif complaint := _not_a_url(plan.base_url + path):
            yield f"its {name} {path!r} makes no URL: {complaint}"


def _mistakes_of_probe(probe: object) -> Iterator[str]:
    if not isinstance(probe, TokenProbe):
        yield f"its token_probe is {described(probe)}, which is no TokenProbe"
        return
    try:
        json.dumps(dict(probe.body))
    except (TypeError, ValueError, RecursionError) as error:
        yield f"the body of its token_probe is no JSON: {error}"


def _not_a_url(text: str) -> str:
    try:
        httpx2.URL(text)
    except (httpx2.InvalidURL, UnicodeError) as error:
        return str(error)
    return ""


def _is_texts(values: object) -> bool:
    return isinstance(values, tuple | list) and all(map(is_text, values))

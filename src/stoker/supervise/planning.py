"""Asks a runtime how an engine is started, and looks through what it says before anything is done with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2

from stoker.containing import contained, is_text
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
        if wrong := next(_mistakes(plan), None):
            raise TypeError(wrong)
    return plan


def _mistakes(plan: object) -> Iterator[str]:
    """What is wrong with a plan. A plugin may have been written without a type checker."""
    if not isinstance(plan, LaunchPlan):
        yield f"it gave {plan!r}, which is no LaunchPlan"
        return
    yield from _mistakes_of_command(plan)
    yield from _mistakes_of_urls(plan)
    if plan.names is not None and not (_is_texts(plan.names) and plan.names):
        yield f"its names are {plan.names!r}, and must be texts, at least one, or None"
    if plan.token_probe is not None:
        yield from _mistakes_of_probe(plan.token_probe)


def _mistakes_of_command(plan: LaunchPlan) -> Iterator[str]:
    for what, words in (("argv", plan.argv), ("env", (*plan.env.keys(), *plan.env.values()))):
        if not _is_texts(words):
            yield f"its {what} is made of texts, not of {words!r}"
        elif any("\0" in word for word in words):
            yield f"its {what} has a NUL character, which no command can be given"
    if plan.cwd is not None and not is_text(plan.cwd):
        yield f"its cwd is {plan.cwd!r}, and must be a text or None"


def _mistakes_of_urls(plan: LaunchPlan) -> Iterator[str]:
    if not is_text(plan.base_url) or not plan.base_url.startswith(("http://", "https://")):
        yield f"its base_url is {plan.base_url!r}, and must begin with http:// or https://"
        return
    paths: dict[str, object] = {"health_path": plan.health_path}
    if plan.metrics_path is not None:
        paths["metrics_path"] = plan.metrics_path
    for kind, what in ((SleepPaths, plan.sleeping), (AdapterPaths, plan.adapters)):
        if what is not None:
            if not isinstance(what, kind):
                yield f"{what!r} is no {kind.__name__}"
                return
            paths |= {f"{kind.__name__}.{name}": getattr(what, name) for name in kind.__annotations__}
    if isinstance(plan.token_probe, TokenProbe):
        paths["token_probe.path"] = plan.token_probe.path
    for name, path in paths.items():
        if not isinstance(path, str) or not path.startswith("/"):
            yield f"its {name} is {path!r}, and must be a text that begins with /"
        elif complaint := _not_a_url(plan.base_url + path):
            yield f"its {name} {path!r} makes no URL: {complaint}"


def _mistakes_of_probe(probe: object) -> Iterator[str]:
    if not isinstance(probe, TokenProbe):
        yield f"its token_probe is {probe!r}, which is no TokenProbe"
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

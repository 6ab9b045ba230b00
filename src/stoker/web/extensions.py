"""The HTTP endpoints of plugins: held against what is there, and then added to the app."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from quart import Blueprint, Quart

from stoker.errors import PluginError
from stoker.gateway.paths import EXACT

_PART = re.compile(r"<[^>]*>")
_OF_THE_WHOLE_APP = (
    "before_request_funcs",
    "before_websocket_funcs",
    "after_request_funcs",
    "after_websocket_funcs",
    "teardown_request_funcs",
    "url_value_preprocessors",
    "error_handler_spec",
)


class Hook(Protocol):
    """A plugin's implementation of ``stoker_register_routes``."""

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        ...

    def __call__(self, **arguments: object) -> Any:
        """The blueprints. Raises whatever the plugin raises."""
        ...


def add_routes(app: Quart, hook: Hook) -> Sequence[str]:
    """Add the endpoints of one plugin to ``app``; returns the names of its blueprints.

    Raises :class:`PluginError` that names the plugin and what is wrong, and then adds nothing.
    """
    try:
        blueprints = _blueprints(hook(app=app))
        _check(app, blueprints)
    except PluginError as error:
        raise PluginError(f"the routes of plugin {hook.plugin!r} are left out: {error}") from error
    except Exception as error:  # the plugin boundary: contained, and the plugin named
        what = f"{type(error).__name__}: {error}"
        raise PluginError(f"the routes of plugin {hook.plugin!r} are left out: it failed with {what}") from error
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return [blueprint.name for blueprint in blueprints]


def _blueprints(answer: object) -> Sequence[Blueprint]:
    if not isinstance(answer, Iterable):
        raise PluginError(f"stoker_register_routes returned a {type(answer).__name__}; it must return a list")
    blueprints = []
    for each in answer:
        if not isinstance(each, Blueprint):
            raise PluginError(f"{each!r} is no Blueprint of Quart")
        blueprints.append(each)
    return blueprints


def _check(app: Quart, blueprints: Sequence[Blueprint]) -> None:
    """Have them registered with an app of their own first, and look at what that has then."""
    trial = Quart("trial", static_folder=None)
    trial.url_map.converters.update(app.url_map.converters)
    taken = set(_endpoints(app)) | {("POST", path) for path in EXACT}
    for blueprint in blueprints:
        if blueprint.name in app.blueprints:
            raise PluginError(f"there is a blueprint {blueprint.name!r} already; give it another name")
        trial.register_blueprint(blueprint)
    for method, path in _endpoints(trial):
        if (method, path) in taken:
            raise PluginError(f"{method} {path} is taken")
    for name, view in trial.view_functions.items():
        if not inspect.iscoroutinefunction(inspect.unwrap(view)):
            raise PluginError(f"the handler {name!r} is not async")
    for place in _OF_THE_WHOLE_APP:
        if _any(getattr(trial, place).get(None)):
            raise PluginError(f"it would act on all of Stoker's requests ({place}); keep that to the blueprint")


def _any(functions: Collection[object] | None) -> bool:
    """Whether there is any function, also in the dictionaries of dictionaries of error handlers."""
    if isinstance(functions, dict):
        return any(map(_any, functions.values()))
    return bool(functions)


def _endpoints(app: Quart) -> Iterator[tuple[str, str]]:
    """Every method and path. What a part of a path is called makes no difference."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, _PART.sub("<>", rule.rule)

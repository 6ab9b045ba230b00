"""The HTTP endpoints of plugins: held against what is there, and then added to the app."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from typing import Any, Protocol

from quart import Blueprint, Quart
from quart.routing import QuartMap, QuartRule
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from stoker.containing import aside, contained, words
from stoker.errors import PluginError
from stoker.gateway.paths import is_proxied

_PART = re.compile(r"<[^>]*>")
_OF_THE_WHOLE_APP = (
    "before_request_funcs",
    "before_websocket_funcs",
    "after_request_funcs",
    "after_websocket_funcs",
    "teardown_request_funcs",
    "teardown_websocket_funcs",
    "teardown_appcontext_funcs",
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

    Raises :class:`PluginError` that names the plugin and what is wrong, and then adds nothing: whatever the plugin did
    to ``app`` is undone. It gets no other app to be tried with first, in which it could do something else.
    """
    before = _Before(app)
    try:
        with aside(), contained("it failed"):
            _register(app, hook(app=app))
            blueprints = sorted(app.blueprints.keys() - before.blueprints)
            _check(app, before, blueprints)
    except PluginError as error:
        before.restore()
        raise PluginError(f"the routes of plugin {hook.plugin!r} are left out: {words(error)}") from error
    return blueprints


class _Before:
    """What ``app`` was before a plugin got hold of it."""

    def __init__(self, app: Quart) -> None:
        self._app = app
        self._state: dict[str, Any] = _copied(vars(app))
        self._state["url_map"] = self.url_map = _same_map(app.url_map)
        self.blueprints = frozenset(app.blueprints)
        self.view_functions = dict(app.view_functions)
        self._rules = list(app.url_map.iter_rules())

    def restore(self) -> None:
        """Make it that again."""
        vars(self._app).clear()
        vars(self._app).update(self._state)

    def new_rules(self) -> Iterator[Rule]:
        """Those that were added since. (Rules of one path are equal, wherever they lead.)"""
        known = set(map(id, self._rules))
        return (rule for rule in self._app.url_map.iter_rules() if id(rule) not in known)

    def functions(self, place: str) -> object:
        """The functions that it had in ``place``."""
        return self._state[place]


def _copied(value: Any) -> Any:
    """A copy of ``value`` down to what is no container."""
    if isinstance(value, dict):
        copied = copy(value)
        copied.update({key: _copied(each) for key, each in value.items()})
        return copied
    if isinstance(value, list | set):
        return copy(value)
    return value


def _same_map(known: Map) -> QuartMap:
    """A map with the same rules: one that has rules can't lose them again."""
    same = QuartMap(
        default_subdomain=known.default_subdomain,
        strict_slashes=known.strict_slashes,
        merge_slashes=known.merge_slashes,
        redirect_defaults=known.redirect_defaults,
        converters=known.converters,
        host_matching=known.host_matching,
    )
    for rule in known.iter_rules():
        same.add(_same_rule(rule))
    return same


def _same_rule(rule: Rule) -> QuartRule:
    return QuartRule(
        rule.rule,
        defaults=dict(rule.defaults or {}) or None,
        subdomain=rule.subdomain,
        methods=rule.methods,
        endpoint=rule.endpoint,
        strict_slashes=rule.strict_slashes,
        merge_slashes=rule.merge_slashes,
        host=rule.host,
        websocket=rule.websocket,
        provide_automatic_options=getattr(rule, "provide_automatic_options", False),
    )


def _register(app: Quart, answer: object) -> None:
    if not isinstance(answer, Iterable):
        raise PluginError(f"stoker_register_routes returned a {type(answer).__name__}; it must return a list")
    for each in answer:
        if not isinstance(each, Blueprint):
            raise PluginError(f"{each!r} is no Blueprint of Quart")
        if each.name in app.blueprints:
            raise PluginError(f"there is a blueprint {each.name!r} already; give it another name")
        app.register_blueprint(each)


def _check(app: Quart, before: _Before, blueprints: Collection[str]) -> None:
    """Complain of what is new in ``app`` and is not the plugin's to have."""
    for rule in before.new_rules():
        _check_rule(rule, before.url_map, blueprints)
    for name, view in app.view_functions.items():
        if name not in before.view_functions:
            if not inspect.iscoroutinefunction(inspect.unwrap(view)):
                raise PluginError(f"the handler {name!r} is not async")
        elif view is not before.view_functions[name]:
            raise PluginError(f"it replaced the handler {name!r}")
    for place in _OF_THE_WHOLE_APP:
        if _of_others(before.functions(place), blueprints) != _of_others(getattr(app, place), blueprints):
            raise PluginError(f"it would act on all of Stoker's requests ({place}); keep that to the blueprint")


def _check_rule(rule: Rule, known: QuartMap, blueprints: Collection[str]) -> None:
    if str(rule.endpoint).rpartition(".")[0] not in blueprints:
        raise PluginError(f"{rule.rule} is not of a blueprint; add it to one")
    if _is_open(rule.rule):
        raise PluginError(f"{rule.rule} would answer whatever nobody else does; begin it with a word of its own")
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        if _is_taken(known, method, rule.rule):
            raise PluginError(f"{method} {_PART.sub('<>', rule.rule)} is taken")


def _is_open(path: str) -> bool:
    """Whether what varies in ``path`` begins where Stoker's own paths do, so that it would answer for unknown ones."""
    first, *others = path.strip("/").split("/")
    own = others[0] if first == "v1" and others else first
    return _PART.search(own) is not None


def _is_taken(known: QuartMap, method: str, path: str) -> bool:
    """Whether there is an endpoint in ``known`` that answers to ``path``, or the gateway does before any is asked.

    A part of the path that varies is tried as a digit, which any kind of part takes.
    """
    tried = _PART.sub("1", path)
    if is_proxied(tried):  # whatever the method
        return True
    try:
        known.bind("localhost").match(tried, method)
    except (NotFound, MethodNotAllowed):
        return False
    return True


def _of_others(functions: object, blueprints: Collection[str]) -> object:
    """The functions in a table of the app that don't belong to ``blueprints``, without empty tables in it."""
    if not isinstance(functions, dict):
        return functions
    kept = ((key, _of_others(each, ())) for key, each in functions.items() if key not in blueprints)
    return {key: each for key, each in kept if each}

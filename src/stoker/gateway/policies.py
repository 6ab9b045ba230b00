"""The policies of a gateway, each behind its boundary: by which of them a model goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stoker.contracts import RoutingPolicy
from stoker.gateway.choosing import Chooser, Guarded, Trusted
from stoker.model import Backend

_NONE: Mapping[str, RoutingPolicy] = MappingProxyType({})
_NOBODY: Mapping[str, str] = MappingProxyType({})


class Policies:
    """``default`` for models that name none, ``fallback`` for where others fail, ``named`` for those that do.

    ``plugins`` tells which plugin a policy came from, by its name. There is one object for each policy, whichever
    models go by it; a policy that is ``fallback`` itself is trusted as such.
    """

    def __init__(
        self,
        default: RoutingPolicy,
        fallback: RoutingPolicy,
        named: Mapping[str, RoutingPolicy] = _NONE,
        plugins: Mapping[str, str] = _NOBODY,
    ) -> None:
        self._named = named
        self._plugins = plugins
        self.fallback = Trusted(fallback, fallback.name, self._plugin_of(fallback.name))
        self._choosers: dict[str, Chooser] = {}
        self.default = self._chooser(default.name, default)

    def of_model(self, backends: Sequence[Backend]) -> Chooser:
        """The policy that the engines of a model name, those first that take requests; else the default."""
        for backend in sorted(backends, key=lambda backend: not backend.accepting):
            if backend.policy is not None:
                policy = self._named.get(backend.policy)
                return self.default if policy is None else self._chooser(backend.policy, policy)
        return self.default

    def used(self) -> Sequence[Chooser]:
        """Those that chose, or might have: the default first."""
        return tuple(self._choosers.values())

    def _chooser(self, name: str, policy: RoutingPolicy) -> Chooser:
        chooser = self._choosers.get(name)
        if chooser is None:
            if policy is self.fallback.policy:
                chooser = self.fallback
            else:
                chooser = Guarded(policy, name, self._plugin_of(name), self.fallback)
            self._choosers[name] = chooser
        return chooser

    def _plugin_of(self, name: str) -> str:
        return self._plugins.get(name, "unknown")

"""Hands the tables ``[policy.NAME]`` to the policies they are meant for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stoker.config.values import join, suggested
from stoker.contracts import Configurable, RoutingPolicy
from stoker.errors import Mistake

Policies = Mapping[str, RoutingPolicy]


def configured(options: Mapping[str, Mapping[str, Any]], policies: Policies) -> tuple[Policies, tuple[Mistake, ...]]:
    """All ``policies``, those with options as these want them; and what is wrong with the options."""
    there = dict(policies)
    mistakes = []
    for name, table in options.items():
        path = join("policy", name)
        if name not in policies:
            mistakes.append(Mistake(path, f"there is no policy {name!r}; {suggested(name, policies)}"))
            continue
        try:
            there[name] = _with_options(policies[name], table)
        except ValueError as error:
            mistakes.append(Mistake(path, str(error)))
        except Exception as error:  # noqa: BLE001 - the plugin boundary: a policy that breaks is named, the rest checked
            mistakes.append(Mistake(path, f"the policy broke when it was given these options: {error!r}"))
    return MappingProxyType(there), tuple(mistakes)


def _with_options(policy: RoutingPolicy, options: Mapping[str, Any]) -> RoutingPolicy:
    if not options:
        return policy
    if not isinstance(policy, Configurable):
        raise ValueError(f"the policy takes no options; leave out {', '.join(options)}")  # noqa: TRY004 - a user's mistake
    new = policy.configured(options)
    if not isinstance(new, RoutingPolicy):
        raise TypeError(f"configured() gave a {type(new).__name__}, which is no policy")
    frozenset(new.needs)  # as the gateway will
    if new.name != policy.name:
        raise TypeError(f"configured() gave a policy of another name, {new.name!r}")
    return new

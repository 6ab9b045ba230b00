"""Hands the tables ``[policy.NAME]`` to the policies they are meant for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stoker.config.values import join, suggested
from stoker.containing import aside, contained, words
from stoker.contracts import Configurable, RoutingPolicy
from stoker.errors import Mistake, PluginError
from stoker.vetting import check_contract

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
            with aside(), contained("the policy broke when it was given these options"):
                there[name] = _with_options(policies[name], table)
        except PluginError as error:
            mistakes.append(Mistake(path, words(error)))
    return MappingProxyType(there), tuple(mistakes)


def _with_options(policy: RoutingPolicy, options: Mapping[str, Any]) -> RoutingPolicy:
    if not options:
        return policy
    if not isinstance(policy, Configurable):
        raise PluginError(f"the policy takes no options; leave out {', '.join(options)}")
    try:
        new = policy.configured(options)
    except ValueError as error:  # what the contract asks it to raise for a user's mistake
        raise PluginError(words(error)) from error
    try:
        check_contract(new, RoutingPolicy)
    except PluginError as error:
        raise PluginError(f"what configured() gave can't be used: {words(error)}") from error
    if new.name != policy.name:
        raise PluginError(f"configured() gave a policy of another name, {new.name!r}")
    return new

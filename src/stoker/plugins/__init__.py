"""Finds plugins, checks them, and collects what they provide. The only part besides ``app`` that sees the built-ins."""

from stoker.plugins.finding import Source, beside, installed, places
from stoker.plugins.loading import BUILTINS, build_registry, builtin
from stoker.plugins.registry import Implementation, PluginRecord, Registry
from stoker.plugins.trusting import untrusted

__all__ = [
    "BUILTINS",
    "Implementation",
    "PluginRecord",
    "Registry",
    "Source",
    "beside",
    "build_registry",
    "builtin",
    "installed",
    "places",
    "untrusted",
]

"""Settings written as TOML again: what ``stoker config show`` prints. Reading it back gives the same settings."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.config.values import quoted
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings


def to_toml(settings: Settings) -> str:
    """The whole of ``settings`` as TOML, with every default that is not empty spelled out."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Settings) -> Iterator[str]:
    for field in attrs.fields(Settings):
        if field.name not in ("gateway", "sessions", "engines", "runtimes", "policies"):
            yield f"{field.name} = {inline(getattr(settings, field.name))}"
    yield from ("", "[gateway]", *_table(settings.gateway))
    yield from ("", "[sessions]", *_table(settings.sessions))
    for name, runtime in settings.runtimes.items():
        yield from ("", f"[runtime.{_key(name)}]", *_table(runtime))
    for name, options in settings.policies.items():
        yield from ("", f"[policy.{_key(name)}]", *(f"{_key(key)} = {inline(value)}" for key, value in options.items()))
    for spec in settings.engines:
        yield from ("", "[[engine]]", *_table(spec))


def _table(record: GatewaySettings | SessionSettings | RuntimeSettings | EngineSpec) -> Iterator[str]:
    for field in attrs.fields(type(record)):
        value = getattr(record, field.name)
        if value is not None and (value not in ((), {}) or value != field.default):
            yield f"{field.name} = {inline(value)}"


def inline(value: Any) -> str:
    """One value as TOML, a table too. Raises TypeError for what TOML can't say, such as None."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str() | Path():
            return _text(str(value))
        case dt.date():
            return value.isoformat()
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {inline(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return f"[{', '.join(map(inline, value))}]"
    raise TypeError(f"{type(value).__name__} has no place in stoker.toml")


def _text(text: str) -> str:
    # JSON's escapes are TOML's, except that JSON lets DEL stand as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if quoted(key) == key else _text(key)

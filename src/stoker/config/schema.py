"""What ``stoker.toml`` may hold, made from the records and their rules: a JSON Schema, and the tables of the manual."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.config.rules import OLDER, RULES, Rule
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings

_PLAIN: Mapping[Any, Mapping[str, Any]] = types.MappingProxyType(
    {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": "number"},
        Path: {"type": "string"},
        Any: {},
    }
)

_IN_FILE: Mapping[str, str] = types.MappingProxyType(
    {
        "gateway": "[gateway]",
        "sessions": "[sessions]",
        "engines": "[[engine]]",
        "runtimes": "[runtime.NAME]",
        "policies": "[policy.NAME]",
    }
)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``stoker.toml``, for editors and programs that write one."""
    top = _table(Settings)
    properties = top["properties"]
    properties["gateway"] = {"$ref": "#/$defs/gateway"}
    properties["sessions"] = {"$ref": "#/$defs/sessions"}
    properties["engine"] = _described(
        RULES[Settings]["engines"], {"type": "array", "items": {"$ref": "#/$defs/engine"}}
    )
    properties["runtime"] = _described(
        RULES[Settings]["runtimes"], {"type": "object", "additionalProperties": {"$ref": "#/$defs/runtime"}}
    )
    properties["policy"] = properties.pop("policies")
    del properties["engines"], properties["runtimes"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stoker.toml",
        **top,
        "$defs": {
            "engine": _engine(),
            "gateway": _table(GatewaySettings),
            "runtime": _table(RuntimeSettings),
            "sessions": _table(SessionSettings),
        },
    }


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of a spec that is sent as JSON: today's names and the older ones, and null for "not given"."""
    engine = _engine()
    properties = {name: _or_null(setting) for name, setting in engine["properties"].items()}
    for old, new in OLDER.items():
        properties[old] = {**properties[new], "description": f"An older name of `{new}`.", "deprecated": True}
    properties["extra_args"]["type"] = ["array", "string", "null"]
    properties["use_gpu"] = {
        "description": "Whether it is given GPUs, as many as it has parts.",
        "type": ["boolean", "null"],
        "deprecated": True,
    }
    del engine["required"]
    either = [{"required": ["model"]}, {"required": ["model_id"]}]
    no_more = {"type": "null"}  # what older clients leave empty may be something that there is no more
    return {**engine, "properties": properties, "additionalProperties": no_more, "anyOf": either}


def _or_null(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {**setting, "type": [setting["type"], "null"]} if "type" in setting else dict(setting)


def _engine() -> dict[str, Any]:
    engine = _table(EngineSpec)
    engine["properties"]["required_memory_gb"] = {
        "description": "GPU memory the engine needs, in GiB.",
        "type": "number",
        "minimum": 0,
    }
    return engine


def _table(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    required, properties = [], {}
    for field in attrs.fields(cls):
        rule = RULES[cls][field.name]
        setting = _described(rule, _type(hints[field.name]))
        if rule.minimum is not None:
            setting["minimum"] = rule.minimum
        if rule.maximum is not None:
            setting["maximum"] = rule.maximum
        if rule.not_empty and setting.get("type") == "string":
            setting["minLength"] = 1
        if field.default is attrs.NOTHING:
            required.append(field.name)
        elif isinstance(field.default, str | int | float):
            setting["default"] = field.default
        properties[field.name] = setting
    table: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _described(rule: Rule, setting: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": rule.meaning, **setting}


def _type(hint: Any) -> Mapping[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # X | None; TOML has no null, so it is X or not there
        return _type(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if origin is collections.abc.Mapping:
        return {"type": "object", "additionalProperties": _type(arguments[1]) or True}
    return {"type": "object"} if attrs.has(hint) else _PLAIN[hint]


def name_in_file(cls: type, field: str) -> str:
    """What a field is called in ``stoker.toml``."""
    if cls is Settings:
        return _IN_FILE.get(field, field)
    return field


def reference(cls: type) -> str:
    """The settings of one table as a Markdown table, as it stands in ``docs/reference/configuration.md``."""
    rows = ["| setting | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
    hints = typing.get_type_hints(cls)
    for field in attrs.fields(cls):
        rule = RULES[cls][field.name]
        name = name_in_file(cls, field.name)
        cells = (f"`{name}`", _kind(_type(hints[field.name])), _default(field), _range(rule), rule.meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _kind(setting: Mapping[str, Any]) -> str:
    match setting:
        case {"type": "array", "items": items}:
            return f"list of {_kind(items)}s"
        case {"type": "object"}:
            return "table"
        case {"type": "string"}:
            return "text"
        case {"type": "integer"}:
            return "whole number"
        case {"type": "boolean"}:
            return "true or false"
    return str(setting.get("type", "anything"))


def _default(field: attrs.Attribute[Any]) -> str:
    match field.default:
        case attrs.NOTHING:
            return "required"
        case str():
            return f'`"{field.default}"`'
        case bool():
            return "true" if field.default else "false"
        case int() | float():
            return _spaced(field.default)
        case (str(), *_):
            return ", ".join(f"`{each}`" for each in field.default)
        case None:
            return "none"
    return "empty"  # a tuple, a mapping, a record of defaults


def _range(rule: Rule) -> str:
    if rule.minimum is None or rule.maximum is None:
        return ""
    return f"{_spaced(rule.minimum)} to {_spaced(rule.maximum)}"


def _spaced(number: float) -> str:
    return f"{number:,}".replace(",", " ").removesuffix(".0")

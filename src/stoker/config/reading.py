"""The way in: a file, a text or a JSON object becomes records, or a ConfigError with every mistake."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.config.listen import parse_listen
from stoker.config.rules import TOP
from stoker.config.spelling import Spelling
from stoker.config.values import Reader, describe, join, suggested, unknown_key
from stoker.config.whole import contradictions, within
from stoker.errors import ConfigError, Mistake
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings

_POSITION = re.compile(r"(?P<what>.*) \(at (?P<where>line \d+, column \d+|end of document)\)", re.DOTALL)
_TABLES = {"gateway", "sessions", "engine", "runtime", "policy"}
_IN_FILE = _TABLES | (TOP.keys() - {"engines", "runtimes", "policies"})


def load(path: Path) -> Settings:
    """The settings in the file ``path``. Relative paths in it start at its folder.

    Raises ConfigError, also for a file that can't be read. Blocks on the disk.
    """
    source = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(source, [Mistake("", "there is no such file; name another with -c, or write it")]) from None
    except OSError as error:
        raise ConfigError(source, [Mistake("", f"can't be read: {error.strerror or error}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(source, [Mistake("", f"is not UTF-8 text (byte {error.start}); save it as UTF-8")]) from None
    return parse(text, source, folder=path.absolute().parent)


def parse(text: str, source: str, *, folder: Path | None = None) -> Settings:
    """The settings in ``text``. ``source`` is what errors call it; ``folder`` is where its relative paths start.

    Raises ConfigError.
    """
    document = _toml(text, source)
    reader = Reader()
    gateway = reader.record(GatewaySettings, document.get("gateway", {}), "gateway")
    gateway = None if gateway is None else _anchored_gateway(reader, gateway, folder)
    sessions = reader.record(SessionSettings, document.get("sessions", {}), "sessions")
    engines = _engines(reader, document.get("engine", []), folder)
    runtimes = _runtimes(reader, document.get("runtime", {}), folder)
    policies = _policies(reader, document.get("policy", {}))
    plain = {key: reader.value(Settings, key, document[key]) for key in document.keys() & TOP.keys() - _TABLES}
    reader.mistakes += [unknown_key(key, "", _IN_FILE) for key in sorted(document.keys() - _IN_FILE)]
    reader.mistakes += contradictions(engines, gateway)
    if reader.mistakes:
        raise ConfigError(source, reader.mistakes)
    assert gateway is not None
    assert sessions is not None
    specs = tuple(spec for _, spec in engines)
    return Settings(gateway=gateway, sessions=sessions, engines=specs, runtimes=runtimes, policies=policies, **plain)


def spec_from_json(mapping: object, source: str, *, policies: Collection[str] | None = None) -> EngineSpec:
    """One engine's spec as sent over HTTP, in today's spelling or an older one. null means "not given".

    ``policies`` are those that it may name; None: any. Raises ConfigError; its paths name the keys as they were sent.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(source, [Mistake("", f"must be a JSON object, not {describe(mapping)}")])
    given = {str(key): value for key, value in mapping.items() if value is not None}
    spelling = Spelling("", given)
    spelling.memory()
    spelling.older()
    reader = Reader()
    spec = _spec(reader, spelling)
    if spec is not None:
        reader.mistakes += within("", spec)
        if spec.cwd is not None and not Path(spec.cwd).is_absolute():
            reader.mistakes.append(Mistake("cwd", f"must be an absolute path over HTTP, not {spec.cwd!r}"))
        if spec.policy is not None and policies is not None and spec.policy not in policies:
            what = f"there is no policy {spec.policy!r}; {suggested(spec.policy, policies)}"
            reader.mistakes.append(Mistake("policy", what))
    if reader.mistakes or spec is None:
        raise ConfigError(source, reader.mistakes)
    return spec


def with_certificate(settings: Settings, certfile: Path | None, keyfile: Path | None) -> Settings:
    """``settings`` with another certificate, if there is one. Raises ConfigError."""
    if keyfile is not None and certfile is None:
        raise ConfigError("--keyfile", [Mistake("", "is the key of --certfile, which is missing")])
    if certfile is None:
        return settings
    gateway = attrs.evolve(settings.gateway, certfile=certfile.absolute(), keyfile=keyfile and keyfile.absolute())
    return attrs.evolve(settings, gateway=gateway)


def with_log_format(settings: Settings, log_format: str | None) -> Settings:
    """``settings`` with another format of the log, if there is one."""
    if log_format is None:
        return settings
    return attrs.evolve(settings, gateway=attrs.evolve(settings.gateway, log_format=log_format))


def with_listen(settings: Settings, listen: str, source: str = "--listen") -> Settings:
    """``settings`` with another address to listen on. Raises ConfigError."""
    try:
        parse_listen(listen)
    except ValueError as error:
        raise ConfigError(source, [Mistake("", str(error))]) from None
    return attrs.evolve(settings, gateway=attrs.evolve(settings.gateway, listen=listen))


# The parts of a file


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.fullmatch(str(error))
        mistake = Mistake(match["where"], match["what"]) if match else Mistake("", str(error))
    except ValueError as error:  # a number with thousands of digits
        mistake = Mistake("", f"is not TOML: {error}")
    except RecursionError:
        mistake = Mistake("", "is nested too deeply to be a configuration")
    raise ConfigError(source, [mistake])


def _engines(reader: Reader, tables: object, folder: Path | None) -> list[tuple[str, EngineSpec]]:
    if not isinstance(tables, list):
        reader.mistakes.append(Mistake("engine", f"must be [[engine]] tables (two brackets), not {describe(tables)}"))
        return []
    engines = []
    for index, table in enumerate(tables):
        path = f"engine[{index}]"
        spec = _engine(reader, table, path)
        if spec is not None:
            engines.append((path, _anchored(reader, path, spec, folder)))
    return engines


def _engine(reader: Reader, table: object, path: str) -> EngineSpec | None:
    if not isinstance(table, Mapping):
        return reader.record(EngineSpec, table, path)
    spelling = Spelling(path, dict(table))
    spelling.memory()
    return _spec(reader, spelling)


def _spec(reader: Reader, spelling: Spelling) -> EngineSpec | None:
    reader.mistakes += spelling.mistakes
    return reader.record(EngineSpec, spelling.values, spelling.path, spelling.spelled)


def _runtimes(reader: Reader, tables: object, folder: Path | None) -> dict[str, RuntimeSettings]:
    if not isinstance(tables, Mapping):
        reader.mistakes.append(Mistake("runtime", f"must be [runtime.NAME] tables, not {describe(tables)}"))
        return {}
    runtimes = {}
    for name, table in tables.items():
        path = join("runtime", name)
        settings = reader.record(RuntimeSettings, table, path)
        if settings is not None and settings.python is not None:
            python = _anchor(reader, f"{path}.python", str(settings.python), folder)
            settings = attrs.evolve(settings, python=Path(python))
        if settings is not None:
            runtimes[name] = settings
    return runtimes


def _policies(reader: Reader, tables: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(tables, Mapping):
        reader.mistakes.append(Mistake("policy", f"must be [policy.NAME] tables, not {describe(tables)}"))
        return {}
    return {name: reader.options(table, join("policy", name)) for name, table in tables.items()}


# Relative paths


def _anchored_gateway(reader: Reader, gateway: GatewaySettings, folder: Path | None) -> GatewaySettings:
    def anchored(name: str, path: Path | None) -> Path | None:
        return None if path is None else Path(_anchor(reader, f"gateway.{name}", str(path), folder))

    certfile, keyfile = anchored("certfile", gateway.certfile), anchored("keyfile", gateway.keyfile)
    access_log = gateway.access_log
    if access_log not in (None, "-"):
        access_log = str(anchored("access_log", Path(access_log)))
    return attrs.evolve(gateway, certfile=certfile, keyfile=keyfile, access_log=access_log)


def _anchored(reader: Reader, path: str, spec: EngineSpec, folder: Path | None) -> EngineSpec:
    """``spec`` with its relative paths starting at ``folder``. A model that begins with ./, ../ or ~/ is one."""
    if spec.cwd is not None:
        spec = attrs.evolve(spec, cwd=_anchor(reader, f"{path}.cwd", spec.cwd, folder))
    if spec.model.startswith(("./", "../", "~/")):
        spec = attrs.evolve(spec, model=_anchor(reader, f"{path}.model", spec.model, folder))
    return spec


def _anchor(reader: Reader, path: str, value: str, folder: Path | None) -> str:
    try:
        expanded = Path(value).expanduser()
    except RuntimeError as error:
        reader.mistakes.append(Mistake(path, f"can't be expanded: {error}"))
        return value
    return str(expanded if folder is None else folder / expanded)

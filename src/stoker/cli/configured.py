"""Finds the configuration that a command is about, and holds it against the plugins there are."""

from __future__ import annotations

from pathlib import Path

from stoker import config
from stoker.errors import ConfigError
from stoker.plugins import Registry
from stoker.settings import Settings

DEFAULT_FILE = "stoker.toml"


def find_settings(named: Path | None, listen: str | None = None) -> tuple[Path | None, Settings]:
    """The file ``named``, else ``./stoker.toml``, else no file and the defaults. The path is absolute.

    Raises ConfigError for what is wrong in it or in ``listen``.
    """
    path = named if named is not None else Path(DEFAULT_FILE)
    if named is None and not path.exists():
        settings = Settings()
        found = None
    else:
        settings = config.load(path)
        found = path.absolute()
    return found, settings if listen is None else config.with_listen(settings, listen)


def require_fit(settings: Settings, registry: Registry, source: str) -> None:
    """Raises ConfigError for every name in ``settings`` that no plugin provides, and all that a runtime can't do."""
    if mistakes := config.check_against(settings, registry):
        raise ConfigError(source, mistakes)

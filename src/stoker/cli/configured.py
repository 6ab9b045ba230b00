"""Finds the configuration that a command is about, and holds it against the plugins there are."""

from __future__ import annotations

import os
import time
from pathlib import Path

from stoker import config
from stoker.errors import ConfigError, Mistake
from stoker.home import Home
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


def require_door(settings: Settings, source: str) -> None:
    """Raises ConfigError for an address that others could reach while no key keeps them out.

    The state file is only looked at. One that can't be read says nothing here; starting will.
    """
    listen = config.parse_listen(settings.gateway.listen)
    if listen.is_loopback:
        return
    from stoker.store.database import StoreError
    from stoker.store.keys import there_is_one

    try:
        home = Home.from_environment(os.environ)
        keys = settings.gateway.require_keys or there_is_one(home.state, time.time())
        config.require_a_door(listen, keys=keys)
    except StoreError:
        return
    except ValueError as error:
        path = "" if source.startswith("--") else "gateway.listen"
        raise ConfigError(source, [Mistake(path, str(error))]) from None


def require_fit(settings: Settings, registry: Registry, source: str) -> None:
    """Raises ConfigError for every name in ``settings`` that no plugin provides, and all that a runtime can't do."""
    if mistakes := config.check_against(settings, registry):
        raise ConfigError(source, mistakes)

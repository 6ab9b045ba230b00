"""Checks of single values. Each raises ValueError with the end of a sentence that begins with the setting's path."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from stoker.config.listen import parse_listen

LOG_FORMATS = ("text", "json")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


def check_label(value: str) -> None:
    """A name for an engine."""
    if len(value) > 64 or not value.isprintable() or not any(character.isalnum() for character in value):
        raise ValueError(f"must be a name of at most 64 characters with a letter or digit in it, not {value!r}")


def check_kind(value: str) -> None:
    """A kind of model."""
    if not _KIND.fullmatch(value):
        raise ValueError(f"must be one lower-case word such as llm, embedding or rerank, not {value!r}")


def check_names(values: tuple[str, ...]) -> None:
    """Names of a model."""
    if not all(values):
        raise ValueError("must not hold an empty name")


def check_variable(value: str) -> None:
    """The name of a variable that holds a key."""
    if not _VARIABLE.fullmatch(value):  # it may well be the key, so it is not shown
        raise ValueError("must be the name of an environment variable that holds the key, not the key itself")


def check_variables(values: tuple[str, ...]) -> None:
    """Names of environment variables, or their beginnings and ``*``."""
    for value in values:
        if value != "*" and not _VARIABLE.fullmatch(value.removesuffix("*")):
            raise ValueError(
                f"holds {value!r}, which must be the name of an environment variable, or its beginning and *"
            )


def check_env(value: Mapping[str, str]) -> None:
    """Variables, by their names."""
    for name in value:
        if not name or "=" in name:
            raise ValueError(f"{name!r} can't be the name of an environment variable")


def check_health_path(value: str) -> None:
    """A path to ask for."""
    if not value.startswith("/") or any(character <= " " or character > "~" for character in value):
        raise ValueError(f"must be a path that begins with '/', such as /health, not {value!r}")


def check_url(value: str) -> None:
    """Where an engine is."""
    if "@" in value:  # so it may hold a password, and is not shown
        raise ValueError("must not carry a password; put the key into a variable and name it in api_key_env")
    if any(character <= " " or character > "~" or character == "\\" for character in value):
        raise ValueError(f"must be a URL without spaces or characters that need escaping, not {value!r}")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"must be http://host:port or https://host:port, not {value!r}")
    if parts.query or parts.fragment:
        raise ValueError(f"must end before any '?' or '#', not {value!r}")


def check_listen(value: str) -> None:
    """An address to listen on."""
    parse_listen(value)


def check_log_format(value: str) -> None:
    """How lines of a log look."""
    if value not in LOG_FORMATS:
        raise ValueError(f"must be one of: {', '.join(LOG_FORMATS)}; not {value!r}")


def check_host_names(values: tuple[str, ...]) -> None:
    """Names of hosts."""
    for value in values:
        if not value or any(character <= " " or character in "/@?#" for character in value):
            raise ValueError(f"holds {value!r}, which is not a host name")


def check_hosts(values: tuple[str, ...]) -> None:
    """Names of hosts, addresses and networks."""
    check_host_names(tuple(value.partition("/")[0] for value in values))
    for value in values:
        if value.count(":") == 1 or re.fullmatch(r"[0-9./]+", value) or "/" in value:
            try:
                ipaddress.ip_network(value.strip("[]"), strict=False)
            except ValueError:
                raise ValueError(
                    f"holds {value!r}, which is no host name, address or network (no port, no URL)"
                ) from None

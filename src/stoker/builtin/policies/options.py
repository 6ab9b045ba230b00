"""Reads a policy's options, the table ``[policy.NAME]`` of the configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from stoker.contracts import CREDENTIALS


class Allowed(Protocol):
    """What an option may be. ``str()`` of it completes the sentence "it must be …"."""

    def accepts(self, value: object) -> bool:
        """Whether the option may be this."""
        ...


@attrs.frozen
class Whole:
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int

    def accepts(self, value: object) -> bool:
        """An int, not a bool, in bounds."""
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


@attrs.frozen
class Number:
    """A number from ``least`` to ``most``, with a fraction or without."""

    least: float
    most: float

    def accepts(self, value: object) -> bool:
        """An int or a float that is a number, not a bool, in bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"


@attrs.frozen
class HeaderName:
    """The name of an HTTP header that a policy may see."""

    def accepts(self, value: object) -> bool:
        """A token, as HTTP calls it, and none of :data:`stoker.contracts.CREDENTIALS`."""
        if not isinstance(value, str) or re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value) is None:
            return False
        return value.lower() not in CREDENTIALS

    def __str__(self) -> str:
        return "the name of a header, and not of one with credentials, which policies are not told"


def checked(options: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> Mapping[str, Any]:
    """``options`` as they are. Raises ValueError that names the first wrong one and says what it may be."""
    for name, value in options.items():
        if name not in allowed:
            raise ValueError(f"there is no option {name!r}; there are: {', '.join(sorted(allowed))}")
        if not allowed[name].accepts(value):
            raise ValueError(f"{name} must be {allowed[name]}, not {value!r}")
    return options

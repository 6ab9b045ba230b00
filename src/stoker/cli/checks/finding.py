"""The result of one check."""

from __future__ import annotations

import enum

import attrs


class Verdict(enum.StrEnum):
    """``fail``: something does not work, or will not. ``warn``: it works, but not as well as it could, or not long."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@attrs.frozen
class Finding:
    """One thing that was looked at. There is a remedy wherever the verdict is not ``ok``."""

    what: str
    verdict: Verdict
    said: str
    remedy: str = ""


def ok(what: str, said: str) -> Finding:
    """All is well."""
    return Finding(what, Verdict.OK, said)


def warn(what: str, said: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(what, Verdict.WARN, said, remedy)


def fail(what: str, said: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(what, Verdict.FAIL, said, remedy)

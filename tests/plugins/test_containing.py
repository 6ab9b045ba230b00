"""The one border to plugins: whatever comes from there is an error of the kind that costs what it should."""

from __future__ import annotations

import pytest

from stoker.containing import MOST_CHARACTERS, contained, described, one_line, told, words
from stoker.errors import LaunchError, PermanentLaunchError, PluginError, StokerError


class RudeError(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)

    __repr__ = __str__


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a defect"), SystemExit(3), GeneratorExit(), RudeError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_is_an_error_of_ours(error: BaseException) -> None:
    with pytest.raises(PluginError) as caught, contained("it failed"):
        raise error
    assert str(caught.value) == f"it failed: {told(error)}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PluginError("known")], ids=lambda error: type(error).__name__)
def test_what_is_one_already_passes_and_so_does_ctrl_c(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, contained("it failed"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "kind"), [(LaunchError("not yet"), LaunchError), (PluginError("x"), PermanentLaunchError)], ids=repr
)
def test_what_passes_is_said_by_who_asks(error: StokerError, kind: type[StokerError]) -> None:
    with pytest.raises(StokerError) as caught, contained("it", PermanentLaunchError, passing=LaunchError):
        raise error
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b\x1b[31m\u202e"), "ValueError: a b[31m"),
        (ValueError(), "ValueError"),
        (RudeError(), "RudeError"),
        (ValueError("x" * 2000), f"ValueError: {'x' * MOST_CHARACTERS}…"),
    ],
    ids=["several lines", "nothing", "one that can't be told", "too long"],
)
def test_an_error_is_told_in_one_line_and_that_never_fails(error: Exception, line: str) -> None:
    """It was told three times, in three ways: one lost its type, one its text, one raised what ``__str__`` did."""
    error.add_note("which is no part of it")
    assert told(error) == line
    assert words(error) == (line.partition(": ")[2] or line)


def test_a_strangers_object_is_described_whatever_it_does() -> None:
    assert described("a\nb") == r"'a\nb'"
    assert described(RudeError()) == "a RudeError"
    assert one_line("  a \t b\n") == "a b"

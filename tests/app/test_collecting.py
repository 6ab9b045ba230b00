"""Collections of garbage: brief, and now and then thorough."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from stoker.collecting import THOROUGH_SECONDS, brief_collections


class Circle:
    """Something that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    with brief_collections(clock):
        yield clock


def test_what_survived_is_not_looked_at_again(clock: Clock) -> None:
    kept = [Circle() for _ in range(1000)]
    gc.collect()
    frozen = gc.get_freeze_count()
    assert not any(isinstance(each, Circle) for each in gc.get_objects())
    del kept
    gc.collect()
    assert gc.get_freeze_count() >= frozen - 1000, "they are garbage, and have to wait"


def test_what_is_new_is_collected(clock: Clock) -> None:
    gone = weakref.ref(Circle())
    gc.collect()
    assert gone() is None


def test_a_thorough_one_finds_what_was_set_aside(clock: Clock) -> None:
    circle = Circle()
    gone = weakref.ref(circle)
    gc.collect()
    del circle
    gc.collect()
    assert gone() is not None
    clock.now = THOROUGH_SECONDS
    gc.collect()
    assert gone() is None


def test_afterwards_all_is_as_before() -> None:
    callbacks, frozen = list(gc.callbacks), gc.get_freeze_count()
    with brief_collections(Clock()):
        assert gc.get_freeze_count() > frozen
    assert gc.callbacks == callbacks
    assert gc.get_freeze_count() == 0

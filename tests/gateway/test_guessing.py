"""What was probably meant is said, for a small share of the gateway's time."""

from __future__ import annotations

import time

import attrs

from stoker.gateway.guessing import AT_ONCE_SECONDS, SHARE, Guesses

NAMES = [f"org/model-of-a-long-name-{number:04}" for number in range(1000)]


@attrs.define
class Clock:
    """Comparing takes 15 ms by it, as each look at it does."""

    now: float = 1000.0

    def __call__(self) -> float:
        self.now += 0.015
        return self.now


def test_a_flood_is_told_what_there_is_and_whoever_comes_later_what_he_meant() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    guess, plain = "did you mean smollm2? There are: smollm2, qwen", "there are: smollm2, qwen"
    told = [guesses.about("smolm2", ["smollm2", "qwen"]) for _ in range(20)]
    assert told[:2] == [guess, guess]
    assert told.count(plain) >= 15
    clock.now += AT_ONCE_SECONDS / SHARE
    assert guesses.about("smolm2", ["smollm2", "qwen"]) == guess


def test_a_name_among_many_is_found_however_late_it_comes() -> None:
    told = Guesses(time.monotonic).about("org/model-of-a-long-nam-0444", NAMES)
    assert told.startswith("did you mean org/model-of-a-long-name-0444")
    assert told.endswith("and 980 more")

"""The restart budget."""

from hypothesis import given
from hypothesis import strategies as st

from stoker.core.restart import attempts_so_far, backoff_seconds, draw
from stoker.model import EngineSpec

SPEC = EngineSpec(model="m", restart_base_seconds=1.0, restart_cap_seconds=60.0, healthy_seconds=60.0)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_backoff_is_never_negative_and_never_above_the_cap(attempt: int, chance: float) -> None:
    assert 0 <= backoff_seconds(SPEC, attempt, chance) <= 60.0


@given(st.floats(0, 1, exclude_max=True))
def test_the_backoff_doubles_until_the_cap(chance: float) -> None:
    waits = [backoff_seconds(SPEC, attempt, chance) for attempt in range(1, 9)]
    assert waits == [chance * bound for bound in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_jitter_is_spread_over_the_whole_interval() -> None:
    draws = [draw(b"seed", f"engine-{number}", 1) for number in range(1_000)]
    assert min(draws) < 0.05
    assert max(draws) > 0.95
    assert 0.45 < sum(draws) / len(draws) < 0.55


def test_a_healthy_period_wipes_the_slate() -> None:
    assert attempts_so_far(SPEC, 4, ready_at=100.0, now=160.0) == 0
    assert attempts_so_far(SPEC, 4, ready_at=100.0, now=159.0) == 4
    assert attempts_so_far(SPEC, 4, ready_at=None, now=1e9) == 4

"""session-affinity: what belongs together goes to one engine, unless that has too much to do."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.builtin.policies import SessionAffinity
from stoker.builtin.policies.guard import LoadGuard
from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest
from stoker.testing.engines import fake_engine_env
from stoker.testing.policies import PolicyConformance, fleets

SESSIONS = [f"session-{number}" for number in range(2000)]


class TestItConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return SessionAffinity()


class TestItConformsWithoutSlack(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return SessionAffinity(load_factor=1.0, slack=1)


def engines(*numbers: int) -> list[Candidate]:
    return [Candidate(engine_id=f"engine-{number}") for number in numbers]


def asked(session: str = "", **headers: str) -> RouteRequest:
    by_name = {name.replace("_", "-"): value for name, value in headers.items()}
    return RouteRequest(request_id="1", model="m", path="/v1/chat/completions", session=session, headers=by_name)


def homes(fleet: Sequence[Candidate]) -> dict[str, str]:
    """Which engine each session belongs to."""
    policy = SessionAffinity()
    return {session: policy.choose(asked(session), fleet, 0.0).engine_id for session in SESSIONS}


# A consistent hash


def test_sessions_are_spread_evenly() -> None:
    for count in (2, 4, 9):
        share = len(SESSIONS) / count
        for sessions in Counter(homes(engines(*range(count))).values()).values():
            assert 0.8 * share < sessions < 1.2 * share


def test_an_engine_that_goes_moves_only_its_own_sessions_and_spreads_them() -> None:
    before, after = homes(engines(0, 1, 2, 3)), homes(engines(0, 1, 3))
    assert all(after[session] == home for session, home in before.items() if home != "engine-2")
    inherited = Counter(after[session] for session, home in before.items() if home == "engine-2")
    assert all(inherited[heir] > 100 for heir in ("engine-0", "engine-1", "engine-3"))


def test_an_engine_that_comes_takes_only_what_is_its_own() -> None:
    before, after = homes(engines(0, 1, 2)), homes(engines(2, 7, 1, 0))
    assert {after[session] for session in SESSIONS if after[session] != before[session]} == {"engine-7"}


def test_a_restarted_engine_keeps_its_sessions() -> None:
    assert homes(engines(0, 1, 2)) == homes(engines(0, 1, 2))


ELSEWHERE = """
from stoker.builtin.policies import SessionAffinity
from stoker.model import Candidate, RouteRequest
fleet = [Candidate(engine_id=f"engine-{number}") for number in range(4)]
for number in range(50):
    request = RouteRequest(request_id="1", model="m", path="/", session=f"session-{number}")
    print(SessionAffinity().choose(request, fleet, 0.0).engine_id)
"""


def test_another_process_comes_to_the_same() -> None:
    """Whatever its hash seed: another gateway, or this one after a restart."""
    env = {**fake_engine_env(), "PYTHONHASHSEED": "4711"}
    ran = subprocess.run([sys.executable, "-c", ELSEWHERE], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == list(homes(engines(0, 1, 2, 3)).values())[:50]


# What a session is


def test_the_header_comes_before_the_body() -> None:
    policy, fleet = SessionAffinity(), engines(*range(8))
    by_header = [policy.choose(asked("other", x_session_id=session), fleet, 0.0) for session in SESSIONS[:20]]
    assert by_header == [policy.choose(asked(session), fleet, 0.0) for session in SESSIONS[:20]]


def test_the_header_can_be_another() -> None:
    policy, fleet = SessionAffinity().configured({"header": "X-User"}), engines(*range(8))
    chosen = [policy.choose(asked(x_user=session), fleet, 0.0).engine_id for session in SESSIONS[:20]]
    assert chosen == list(homes(fleet).values())[:20]


def test_an_odd_name_is_a_name() -> None:
    for session in ("\ud800", "\udcff", "\0", "é", 10_000 * "x"):
        assert SessionAffinity().choose(asked(session), engines(0, 1), 0.0).engine_id.startswith("engine-")


def test_requests_without_a_session_go_by_load() -> None:
    policy, fleet = SessionAffinity(), engines(0, 1, 2)
    fleet[0].in_flight = 1
    served = []
    for _ in range(4):
        chosen = policy.choose(asked(), fleet, 0.0)
        policy.opened(asked(), chosen)
        served.append(chosen.engine_id)
    assert served == ["engine-1", "engine-2", "engine-1", "engine-2"]


# Bounded load


@given(fleet=fleets(), session=st.text(min_size=1, max_size=4), slack=st.integers(1, 9), factor=st.floats(1, 3))
def test_no_engine_gets_more_than_the_guard_allows(
    fleet: list[Candidate], session: str, slack: int, factor: float
) -> None:
    chosen = SessionAffinity(load_factor=factor, slack=slack).choose(asked(session), fleet, 0.0)
    share = (sum(candidate.in_flight for candidate in fleet) + 1) / len(fleet)
    assert chosen.in_flight + 1 <= max(slack, factor * share + 1)


def test_a_session_that_is_too_much_for_its_engine_goes_to_its_second() -> None:
    fleet, policy = engines(0, 1, 2, 3), SessionAffinity()
    order = []
    for _ in range(16):
        chosen = policy.choose(asked("busy"), fleet, 0.0)
        chosen.in_flight += 1
        order.append(chosen.engine_id)
    assert order[:4] == 4 * [order[0]], "while there are few, they stay together"
    assert len(set(order)) == 4
    without_first = [candidate for candidate in engines(0, 1, 2, 3) if candidate.engine_id != order[0]]
    assert policy.choose(asked("busy"), without_first, 0.0).engine_id == order[4]


def test_the_guard_always_leaves_one_engine() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        guard = LoadGuard(load_factor=chance.choice([1, 1.0, 1.01, 1.25]), slack=1)
        fleet = [Candidate(engine_id=str(n), in_flight=chance.randrange(50)) for n in range(chance.randrange(1, 9))]
        assert min(candidate.in_flight for candidate in fleet) < guard.limit(fleet)


# Why, and options


def test_it_says_whose_the_session_is_and_why_it_goes_elsewhere() -> None:
    policy, fleet = SessionAffinity(), engines(0, 1)
    home = policy.choose(asked("s"), fleet, 0.0)
    [other] = [candidate for candidate in fleet if candidate is not home]
    home.in_flight = 1
    assert policy.explain(asked("s"), fleet, 0.0) == (
        f"the session (named in the body) belongs to engine {home.engine_id}, which has 1 request in flight; "
        "its limit is 4 at present"
    )
    home.in_flight = 9
    assert policy.explain(asked(x_session_id="s"), fleet, 0.0) == (
        f"the session (named in the header x-session-id) belongs to engine {home.engine_id}, but that has 9 requests "
        f"in flight and its limit is 7 at present; engine {other.engine_id} is the next in the session's order and has "
        "0"
    )
    assert policy.explain(asked(), fleet, 0.0) == (
        f"the request names no session; engine {other.engine_id} has 0 requests in flight, the fewest; "
        f"{home.engine_id} has 9"
    )


A_HEADER = "the name of a header, and not of one with credentials, which policies are not told"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"heder": "x"}, "there is no option 'heder'; there are: header, load_factor, slack"),
        ({"header": ""}, f"header must be {A_HEADER}, not ''"),
        ({"header": "x y"}, f"header must be {A_HEADER}, not 'x y'"),
        ({"header": 1}, f"header must be {A_HEADER}, not 1"),
        ({"header": "Authorization"}, f"header must be {A_HEADER}, not 'Authorization'"),
        ({"header": "cookie"}, f"header must be {A_HEADER}, not 'cookie'"),
        ({"load_factor": 0.9}, "load_factor must be a number from 1 to 100, not 0.9"),
        ({"load_factor": float("nan")}, "load_factor must be a number from 1 to 100, not nan"),
        ({"load_factor": True}, "load_factor must be a number from 1 to 100, not True"),
        ({"slack": 0}, "slack must be a whole number from 1 to 10000, not 0"),
        ({"slack": 4.0}, "slack must be a whole number from 1 to 10000, not 4.0"),
        ({"slack": "4"}, "slack must be a whole number from 1 to 10000, not '4'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        SessionAffinity().configured(options)


def test_options_count() -> None:
    policy = SessionAffinity().configured({"load_factor": 100, "slack": 1})
    fleet = engines(0, 1)
    home = policy.choose(asked("s"), fleet, 0.0)
    home.in_flight = 30
    assert policy.choose(asked("s"), fleet, 0.0) is home

from __future__ import annotations

from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, EngineLoad, RouteRequest
from stoker.testing.policies import PolicyConformance
from stoker_roomiest import Roomiest

REQUEST = RouteRequest(request_id="1", model="m", path="/v1/chat/completions")


class TestRoomiest(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return Roomiest()


def test_the_emptier_cache_wins_however_many_requests_are_open() -> None:
    full = Candidate(engine_id="full", in_flight=1, load=EngineLoad(kv_cache_used=0.9))
    empty = Candidate(engine_id="empty", in_flight=7, load=EngineLoad(kv_cache_used=0.1))
    assert Roomiest().choose(REQUEST, [full, empty], 0.0) is empty
    assert "empty is 10% full" in Roomiest().explain(REQUEST, [full, empty], 0.0)


def test_engines_that_tell_nothing_are_told_apart_by_their_requests() -> None:
    busy, idle = Candidate(engine_id="busy", in_flight=3), Candidate(engine_id="idle", in_flight=0)
    assert Roomiest().choose(REQUEST, [busy, idle], 0.0) is idle

"""Which engine a request goes to. Pure: a directory is a value."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.client.directory import LOAD_SECONDS, SUSPICION_SECONDS, Directory, Known, known_of
from stoker.client.discovery import REFRESH_SECONDS, Discovery

CHAT = "/v1/chat/completions"


NOW = 10.0


def known(engine_id: str, **changes: Any) -> Known:
    one = Known(
        engine_id=engine_id,
        url=f"http://{engine_id}",
        names=frozenset({"m"}),
        paths=frozenset({CHAT}),
        state="READY",
        usable=True,
    )
    return attrs.evolve(one, **changes)


def entry(engine_id: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "engine_id": engine_id,
        "url": "http://127.0.0.1:9000",
        "model": "m",
        "names": ["m"],
        "kind": "llm",
        "state": "READY",
        "healthy": True,
        "in_flight": 0,
        "limit": None,
        "paths": [CHAT],
        "renames": {},
        "needs_key": False,
        **changes,
    }


def chosen(
    directory: Directory, load: dict[str, int] | None = None, *tried: str, now: float = NOW, turn: int = 0
) -> Any:
    engine = directory.choose("m", CHAT, load or {}, set(tried), now, turn)
    return engine and engine.engine_id


def test_the_least_busy_engine_is_chosen_and_equals_take_turns() -> None:
    directory = Directory(engines=(known("a", in_flight=2), known("b"), known("c")), asked_at=NOW)
    assert [chosen(directory, turn=turn) for turn in range(4)] == ["b", "c", "b", "c"]
    assert chosen(directory, {"b": 3, "c": 3}) == "a"


@pytest.mark.parametrize(
    "changes",
    [
        {"usable": False},
        {"names": frozenset({"n"})},
        {"paths": frozenset({"/v1/embeddings"})},
        {"limit": 2, "in_flight": 1},
        {"limit": 0},
    ],
)
def test_engines_that_are_none_for_this_request(changes: dict[str, Any]) -> None:
    assert chosen(Directory(engines=(known("a", **changes),), asked_at=NOW), {"a": 1}) is None
    both = Directory(engines=(known("a", **changes), known("b", in_flight=9)), asked_at=NOW)
    assert chosen(both, {"a": 1}) == "b"


def test_what_others_had_there_a_while_ago_counts_no_more() -> None:
    """Otherwise an engine that was full when it was listed would never be used again."""
    directory = Directory(engines=(known("a", in_flight=4, limit=4),), asked_at=NOW)
    assert chosen(directory) is None
    assert chosen(directory, now=NOW + LOAD_SECONDS) == "a"
    assert chosen(directory, {"a": 4}, now=NOW + LOAD_SECONDS) is None


def test_one_that_was_tried_is_not_tried_again() -> None:
    directory = Directory(engines=(known("a"), known("b")))
    assert {chosen(directory, None, "a", turn=turn) for turn in range(3)} == {"b"}
    assert chosen(directory, None, "a", "b") is None


def test_a_suspected_engine_is_the_last_choice_for_some_seconds() -> None:
    directory = Directory(engines=(known("a"), known("b", in_flight=50)), asked_at=100).suspect("a", now=100)
    assert chosen(directory, now=100) == "b"
    assert chosen(directory, None, "b", now=100) == "a"
    assert chosen(directory, now=100 + SUSPICION_SECONDS) == "a"
    assert chosen(directory.changed("a", 101, ready=True), now=101) == "a"
    assert directory.listed(directory.engines, 100 + SUSPICION_SECONDS).suspected == {}


def test_an_engine_that_is_not_ready_any_more_is_left_at_once_also_if_an_older_listing_comes_late() -> None:
    directory = Directory(engines=(known("a"),), asked_at=1).changed("a", 5, ready=False)
    assert chosen(directory) is None
    assert chosen(directory.listed((known("a"),), 4)) is None
    assert chosen(directory.listed((known("a"),), 6)) == "a"


@given(
    engines=st.lists(
        st.builds(
            known,
            st.sampled_from("abcdef"),
            usable=st.booleans(),
            in_flight=st.integers(0, 5),
            limit=st.none() | st.integers(0, 6),
        ),
        unique_by=lambda engine: engine.engine_id,
    ),
    load=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5)),
    tried=st.sets(st.sampled_from("abcdef")),
    suspected=st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 20)),
    turn=st.integers(0, 1000),
)
def test_whatever_is_known_the_choice_is_a_sound_one(
    engines: list[Known], load: dict[str, int], tried: set[str], suspected: dict[str, float], turn: int
) -> None:
    directory = Directory(engines=tuple(engines), asked_at=NOW, suspected=suspected)
    engine = directory.choose("m", CHAT, load, tried, NOW, turn)

    def open_to_it(one: Known) -> bool:
        room = one.limit is None or one.in_flight + load.get(one.engine_id, 0) < one.limit
        return one.usable and room and one.engine_id not in tried

    def key(one: Known) -> tuple[bool, int]:
        return suspected.get(one.engine_id, 0) > 10, one.in_flight + load.get(one.engine_id, 0)

    fit = [one for one in engines if open_to_it(one)]
    assert (engine is None) == (not fit)
    if engine is not None:
        assert engine in fit
        assert key(engine) == min(map(key, fit))


# What the gateway says of them


def test_an_entry_is_read() -> None:
    engine = known_of(entry(names=["m", "n"], renames={"n": "m"}, limit=4, in_flight=1), gateway_is_local=True)
    assert engine == Known(
        engine_id="a",
        url="http://127.0.0.1:9000",
        names=frozenset({"m", "n"}),
        paths=frozenset({CHAT}),
        state="READY",
        usable=True,
        in_flight=1,
        limit=4,
        renames={"n": "m"},
    )


@pytest.mark.parametrize("changes", [{"healthy": False}, {"needs_key": True}])
def test_engines_that_are_left_to_the_gateway(changes: dict[str, Any]) -> None:
    engine = known_of(entry(**changes), gateway_is_local=True)
    assert engine is not None
    assert not engine.usable


def test_an_engine_on_the_gateways_own_machine_is_nobody_here() -> None:
    """What listens on that port of this machine is somebody else."""
    for url, usable in (("http://127.0.0.1:9", False), ("http://[::1]:9", False), ("http://192.0.2.1:9", True)):
        engine = known_of(entry(url=url), gateway_is_local=False)
        assert engine is not None
        assert engine.usable is usable


@pytest.mark.parametrize("wrong", [{}, {"url": None}, {"names": 3}, {"in_flight": "x"}, {"renames": 3}])
def test_what_is_no_entry_is_none(wrong: dict[str, Any]) -> None:
    given = {**entry(), **wrong} if wrong else {}
    assert known_of(given, gateway_is_local=True) is None


# Discovery


def test_one_of_several_gets_the_listing_and_the_others_go_on() -> None:
    now = 100.0
    discovery = Discovery(lambda: now, gateway_is_local=True)
    assert discovery.needs_listing()
    assert discovery.needs_listing()  # nothing is known: whoever asks has to
    discovery.listed([entry()], now)
    assert not discovery.needs_listing()
    now += REFRESH_SECONDS
    assert discovery.needs_listing()
    assert not discovery.needs_listing()
    discovery.not_listed()
    assert discovery.needs_listing()
    discovery.listed([entry()], now)
    discovery.watched()
    now += 1000
    assert not discovery.needs_listing()
    discovery.unwatched()
    assert discovery.needs_listing()


def test_leases_are_counted_and_closed_once() -> None:
    discovery = Discovery(lambda: 0.0, gateway_is_local=True)
    discovery.listed([entry("a", limit=1), entry("b", limit=1)], 0)
    first, second = (discovery.open("m", CHAT, set()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert {first.engine.engine_id, second.engine.engine_id} == {"a", "b"}
    assert discovery.open("m", CHAT, set()) is None
    first.close()
    first.close()
    third = discovery.open("m", CHAT, set())
    assert third is not None
    assert third.engine == first.engine
    assert discovery.open("m", CHAT, set()) is None


def test_events_are_understood_and_strange_ones_lead_to_a_listing() -> None:
    discovery = Discovery(lambda: 1.0, gateway_is_local=True)
    discovery.listed([entry()], 0)
    assert discovery.told("snapshot", "{}")
    assert not discovery.told("message", "hello")
    assert discovery.told("engine", "nonsense")
    assert discovery.open("m", CHAT, set()) is not None
    assert discovery.told("engine", '{"before": "READY", "after": "ERROR", "engine": {"engine_id": "a"}}')
    assert discovery.open("m", CHAT, set()) is None
    discovery.listed([entry()], 2)
    assert discovery.told("engine", '{"after": "READY", "engine": {"engine_id": "a", "asleep": true}}')
    assert discovery.open("m", CHAT, set()) is None

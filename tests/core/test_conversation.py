"""What of a conversation is sent again and what of it is kept, and how the pieces of an answer become a message."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.assembling import Assembly
from stoker.core.conversation import (
    Budget,
    History,
    Said,
    answer_in,
    estimated_tokens,
    sent_again,
    split_instructions,
    title_of,
    turns_of,
    within,
)

ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.lists(st.builds(lambda role, text: {"role": role, "content": text}, ROLES, st.text(max_size=8)))
SAID = st.builds(
    lambda number, tokens, size: Said(messages=({"role": "user", "content": number},), tokens=tokens, size=size),
    st.integers(),
    st.integers(0, 50),
    st.integers(0, 50),
)
BUDGETS = st.builds(
    lambda turns, tokens, size: Budget(turns=turns, tokens=tokens, size=size),
    st.integers(0, 12),
    st.none() | st.integers(0, 200),
    st.integers(0, 200),
)


@given(st.lists(SAID), BUDGETS)
def test_as_many_of_the_last_turns_go_as_there_is_room_for(turns: Sequence[Said], budget: Budget) -> None:
    taken = []

    def latest_first() -> Iterator[Said]:
        for turn in reversed(turns):
            taken.append(turn)
            yield turn

    kept = within(latest_first(), budget)
    assert list(kept) == list(turns[len(turns) - len(kept) :]), "the last ones, in their order, and none left out"

    def fits(some: Sequence[Said]) -> bool:
        tokens, size = sum(turn.tokens for turn in some), sum(turn.size for turn in some)
        return len(some) <= budget.turns and (budget.tokens is None or tokens <= budget.tokens) and size <= budget.size

    assert fits(kept)
    if len(kept) < len(turns):
        assert not fits(turns[len(turns) - len(kept) - 1 :]), "one more would have fitted"
    assert len(taken) <= len(kept) + 1, "no more is read than has to be"


@given(MESSAGES, MESSAGES)
def test_instructions_come_first_then_what_was_said_then_what_is_new(
    before: list[dict[str, Any]], own: list[dict[str, Any]]
) -> None:
    held = ({"role": "system", "content": "hold on"},)
    _, said = split_instructions(before)
    history = History(instructions=held, turns=(Said(messages=said, tokens=0, size=0),))
    leading, rest = split_instructions(own)
    assert [*leading, *rest] == own
    assert history.before(own) == [*(leading or held), *(sent_again(each) for each in said), *rest]


@given(MESSAGES)
def test_turns_are_all_that_was_said_and_each_but_the_first_begins_with_a_user(messages: list[dict[str, Any]]) -> None:
    turns = turns_of(messages)
    assert [message for turn in turns for message in turn] == messages
    for before, after in itertools.pairwise(turns):
        assert (before[-1]["role"], after[0]["role"]) == ("assistant", "user")


def test_of_an_answer_is_sent_again_what_engines_take() -> None:
    full: dict[str, Any] = {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "Hm",
        "refusal": None,
        "tool_calls": [],
        "audio": 0,
    }
    assert sent_again(full) == {"role": "assistant", "content": "4"}
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    calling = {"role": "assistant", "content": None, "tool_calls": calls}
    assert sent_again(calling) == calling
    assert sent_again({"role": "assistant", "refusal": "No."}) == {
        "role": "assistant",
        "content": "",
        "refusal": "No.",
    }
    asked = {"role": "user", "content": "x", "name": "me", "extra": 1}
    assert sent_again(asked) == asked


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"role": "user", "content": "12345678"}, 4 + 2),
        ({"role": "user", "content": "123456789"}, 4 + 3),
        ({"role": "user", "content": "漢字"}, 4 + 2),
        ({"role": "user", "content": "\ud800"}, 4 + 1),
        ({"role": "user", "content": [{"type": "text", "text": "1234"}, {"type": "image_url"}]}, 1005),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "1234567"}}]}, 6),
        ({"role": "assistant", "content": "", "reasoning_content": "x" * 400}, 4),
        ({"role": "user"}, 4),
    ],
)  # fmt: skip
def test_tokens_are_estimated_by_the_bytes_of_what_is_sent(message: dict[str, Any], tokens: int) -> None:
    assert estimated_tokens(message) == tokens


def test_a_title_is_what_a_user_said_first() -> None:
    assert (
        title_of([{"role": "tool", "content": "x"}, {"role": "user", "content": " What\n is this? "}])
        == "What is this?"
    )
    parts = [{"type": "image_url"}, {"type": "text", "text": "Look"}]
    assert title_of([{"role": "user", "content": ""}, {"role": "user", "content": parts}]) == "Look"
    long = title_of([{"role": "user", "content": "word " * 100}])
    assert (len(long) <= 60, long[-1]) == (True, "…")
    assert title_of([{"role": "user", "content": 7}, {"role": "user"}]) == ""


@pytest.mark.parametrize(
    "nothing", [None, [], {}, {"choices": None}, {"choices": [1, {"index": 1}]}, {"choices": [{}]}]
)
def test_what_is_no_answer_of_a_chat_is_none(nothing: object) -> None:
    assert answer_in(nothing) is None


# From pieces to a message

TEXTS = st.text(min_size=1, max_size=12)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant"}
    for name in ("content", "reasoning_content", "refusal"):
        if draw(st.booleans()):
            answer[name] = draw(TEXTS)
    calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": draw(TEXTS), "arguments": draw(TEXTS)}}
        for number in range(draw(st.integers(0, 3)))
    ]
    return {**answer, "tool_calls": calls} if calls else answer


def pieces(answer: dict[str, Any], *, often: bool, again: bool) -> Iterator[dict[str, Any]]:
    """As engines send it: texts in pieces, calls by their index, some things again and again."""
    if often:
        yield {"role": "assistant", "content": ""} if "content" in answer else {"role": "assistant"}
    for name in ("reasoning_content", "refusal", "content"):
        yield from ({name: character} for character in answer.get(name, ""))
    for index, call in enumerate(answer.get("tool_calls", [])):
        yield {"tool_calls": [{**call, "index": index, "function": {**call["function"], "arguments": ""}}]}
        for character in call["function"]["arguments"]:
            piece = {"index": index, "function": {"arguments": character}}
            yield {"tool_calls": [{**piece, "id": call["id"], "type": "function"} if again else piece]}
    yield {}


@given(st.data())
def test_the_pieces_of_an_answer_become_the_answer(data: st.DataObject) -> None:
    answer = data.draw(answers())
    assembly = Assembly()
    for delta in pieces(answer, often=data.draw(st.booleans()), again=data.draw(st.booleans())):
        assembly.add({"choices": [{"index": 1, "delta": {"content": "another"}}]})
        assembly.add({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    assert assembly.spoke
    assert not assembly.failed
    assert assembly.message == (answer if len(answer) > 1 else None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "index", "content", "tool_calls", "error"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(JSON | st.builds(lambda delta: {"choices": [{"delta": delta}]}, JSON), max_size=6))
def test_whatever_an_engine_sends_nothing_breaks(chunks: list[Any]) -> None:
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(chunk)
        json.dumps(assembly.message)


def test_an_error_in_the_stream_is_noticed() -> None:
    assembly = Assembly()
    assembly.add({"choices": [{"delta": {"content": "half"}}]})
    assembly.add({"error": {"message": "dead"}})
    assert assembly.failed
    assert assembly.message == {"role": "assistant", "content": "half"}

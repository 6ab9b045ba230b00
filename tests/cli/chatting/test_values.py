"""What a chat decides: what was typed, what is sent, what is saved, and what a terminal is given."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.cli.chatting import saving
from stoker.cli.chatting.conversation import Conversation, Ending, Turn
from stoker.cli.chatting.hearing import Heard, thought_in
from stoker.cli.chatting.plain_text import harmless, one_line
from stoker.cli.chatting.screen import Screen, measured
from stoker.cli.chatting.typed import (
    ORDERS,
    Draft,
    Mistake,
    Order,
    Question,
    completions,
    help_lines,
    understood,
)
from stoker.client import StreamChunk
from stoker.web.session_orders import imported

WHOLE = Turn(question="one", answer="1", model="m")
STOPPED = Turn(question="two", answer="2 and", model="m", ending=Ending.STOPPED)
SILENT = Turn(question="three", answer="", model="m", ending=Ending.STOPPED)
BROKEN = Turn(question="four", answer="4 is", model="n", ending=Ending.BROKEN)
TALK = Conversation(system="Be brief.", turns=(WHOLE, STOPPED, SILENT, BROKEN))


# What was typed


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("  hello there ", Question("hello there")),
        ("", None),
        ("   ", None),
        ("//etc/hosts", Question("/etc/hosts")),
        ("/model", Order("model")),
        ("/model  org/name ", Order("model", "org/name")),
        ("/MODEL x", Order("model", "x")),
        ("/save a b.md", Order("save", "a b.md")),
        ("/save! talk.json", Order("save", "talk.json", forced=True)),
        ("/system Be\nbrief.", Order("system", "Be\nbrief.")),
        ("/quit", Order("exit")),
        ("/?", Order("help")),
    ],
)
def test_an_input_is_a_question_or_an_order(typed: str, meant: object) -> None:
    assert understood(typed) == meant


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("/modle x", "there is no /modle; did you mean /model?"),
        ("/etc/hosts", "/help lists those there are (to say it to the model, type //etc/hosts)"),
        ("/clear!", "did you mean /clear?"),
        ("/", "/help lists"),
    ],
)
def test_an_order_that_there_is_not_gets_a_suggestion(typed: str, hint: str) -> None:
    mistake = understood(typed)
    assert isinstance(mistake, Mistake)
    assert hint in mistake.message


def typed_lines(*lines: str) -> list[object]:
    draft, found = Draft(), list[object]()
    for line in lines:
        result = draft.with_line(line)
        draft = result if isinstance(result, Draft) else Draft()
        found.append("…" if isinstance(result, Draft) else result)
    return found


def test_a_backslash_goes_on_in_the_next_line() -> None:
    assert typed_lines("one\\", "  two\\", "three", "four") == [
        "…",
        "…",
        Question("one\n  two\nthree"),
        Question("four"),
    ]
    assert typed_lines("\\", "") == ["…", None]


def test_triple_quotes_hold_whatever_is_between_them() -> None:
    assert typed_lines('"""def f():', "", "    /exit\\", '"""') == ["…", "…", "…", Question("def f():\n\n    /exit\\")]
    assert typed_lines('"""all in one"""') == [Question("all in one")]
    assert typed_lines('"""', "/model x", 'end"""', "next") == ["…", "…", Question("/model x\nend"), Question("next")]
    assert typed_lines('"""', '"""') == ["…", None]
    assert Draft().begun is False
    assert Draft(quoted=True).begun is True


def test_orders_and_models_are_completed() -> None:
    assert completions("/s", ()) == ["/system ", "/save ", "/session "]
    assert completions("/model o", ("one", "uno", "o/2")) == ["one", "o/2"]
    assert completions("what is /s", ("one",)) == []


def test_help_tells_of_every_order() -> None:
    text = "\n".join(help_lines())
    assert max(map(len, help_lines())) <= 80, "it would wrap in the middle of a word"
    for name in ORDERS:
        assert f"/{name}" in text


# What is sent


def test_all_that_was_said_is_sent_but_what_did_not_come_to_its_end() -> None:
    assert TALK.asking("five") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2 and"},
        {"role": "user", "content": "five"},
    ]


def test_what_the_gateway_keeps_is_not_sent_again() -> None:
    assert TALK.asking("five", kept_elsewhere=True) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "five"},
    ]
    assert TALK.told("").asking("five", kept_elsewhere=True) == [{"role": "user", "content": "five"}]


def test_a_retry_drops_the_last_turn_and_clearing_drops_all_but_the_instructions() -> None:
    assert TALK.without_last().last == SILENT
    assert TALK.cleared() == Conversation(system="Be brief.")
    assert Conversation().last is None
    assert Conversation().without_last() == Conversation()


# What is saved


def test_a_saved_conversation_can_be_imported_as_a_session() -> None:
    text = saving.written(saving.record_of(TALK), Path("talk.json"))
    assert text is not None
    session, turns = imported(json.loads(text), "", 100.0)
    assert session.instructions == ({"role": "system", "content": "Be brief."},)
    assert [(turn.messages[-1]["content"], turn.model, turn.aborted) for turn, _ in turns] == [
        ("1", "m", False),
        ("2 and", "m", True),
        ("three", "m", True),
        ("4 is", "n", True),
    ]


def test_a_saved_session_has_what_the_gateway_kept() -> None:
    about = {"place": 1, "turn": 1, "at": 1.0, "model": "m", "aborted": False}
    image = [{"type": "image_url", "image_url": {"url": "data:…"}}]
    messages = [{"role": "user", "content": image, **about}, {"role": "assistant", "content": "A cat", **about}]
    record = saving.record_of_session({"title": "Cats", "instructions": []}, messages)
    text = saving.as_markdown(record)
    assert text.startswith("# Cats\n\n## You\n\n```json\n")
    assert "## Answer (m)\n\nA cat\n" in text
    saved = json.loads(saving.as_json(record))["messages"]
    assert [each["message"] for each in saved] == [
        {"role": "user", "content": image},
        {"role": "assistant", "content": "A cat"},
    ]


def test_markdown_is_for_people() -> None:
    text = saving.written(saving.record_of(TALK), Path("TALK.MD"))
    assert text is not None
    assert text.startswith(
        "# Conversation\n\n## System\n\nBe brief.\n\n## You\n\none\n\n## Answer (m)\n\n1\n\n## You\n\ntwo"
    )
    assert "## Answer (n, not whole)\n\n4 is\n" in text
    assert saving.written(saving.record_of(TALK), Path("talk.txt")) is None


def test_half_a_character_does_not_keep_a_conversation_from_being_saved() -> None:
    record = saving.record_of(Conversation(turns=(Turn(question="\ud83d", answer="\udc00", model="m"),)))
    for text in (saving.as_json(record), saving.as_markdown(record)):
        text.encode()


def test_what_would_steer_a_terminal_is_escaped_in_json_and_marked_in_markdown() -> None:
    said = "\x1b[31m \x9b2J \u202e é"
    record = saving.record_of(Conversation(turns=(Turn(question="q", answer=said, model="m"),)))
    text = saving.as_json(record)
    assert harmless(text) == text
    assert json.loads(text)["messages"][1]["message"]["content"] == said
    assert "�[31m �2J � é" in saving.as_markdown(record)


# What a terminal is given


def test_thoughts_are_dim_where_that_can_be_and_remarks_have_their_own_lines() -> None:
    for styled, dim, normal in ((True, "\x1b[0m\x1b[2m", "\x1b[0m"), (False, "", "")):
        out = io.StringIO()
        screen = Screen(out, styled)
        screen.thought("Hm\x1b[0m")
        screen.piece("yes")
        screen.note("3 tokens")
        screen.problem("it is\ngone")
        bold = "\x1b[0m\x1b[1m" if styled else ""
        shown = f"{dim}Hm�[0m{normal}yes\n{dim}3 tokens{normal}\n{bold}! it is gone{normal}\n"
        assert out.getvalue() == shown


def test_an_answer_is_measured_as_far_as_there_is_something_to_measure() -> None:
    heard = Heard(ending=Ending.WHOLE, tokens=11, first_seconds=1.0, seconds=3.0, engine="e", finish_reason="length")
    assert measured(heard) == (
        "11 tokens, 5.0 tokens/s, first after 1.00 s, engine e, cut off: that many tokens are all it may take"
    )
    assert measured(Heard(ending=Ending.STOPPED)) == "stopped"
    assert (
        measured(Heard(ending=Ending.WHOLE, tokens=1, first_seconds=1.0, seconds=1.0)) == "1 token, first after 1.00 s"
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_model_thinks_is_found_by_either_name(name: str) -> None:
    raw: dict[str, Any] = {"choices": [{"delta": {name: "Hm", "content": None}}]}
    assert thought_in(StreamChunk(content="", raw=raw)) == "Hm"
    nothings: list[dict[str, Any]] = [{}, {"choices": []}, {"choices": [None]}, {"choices": [{"delta": {name: 3}}]}]
    for nothing in nothings:
        assert thought_in(StreamChunk(content="", raw=nothing)) == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "�[2J�]0;title�"),
        ("\x9b31m", "�31m"),
        ("a\r\nb\tc\rd", "a\nb\tcd"),
        ("\u202etxt.exe", "�txt.exe"),
        ("\ud83d", "?"),
        ("é 漢字 🎉 \u200d", "é 漢字 🎉 \u200d"),
    ],
)
def test_nothing_that_a_model_says_steers_a_terminal(said: str, shown: str) -> None:
    assert harmless(said) == shown


@given(st.text(), st.integers(0, 20))
def test_it_makes_no_difference_where_a_stream_is_cut(text: str, at: int) -> None:
    whole = harmless(text)
    assert harmless(text[:at]) + harmless(text[at:]) == whole
    assert not [char for char in whole if char not in "\n\t" and (ord(char) < 32 or 127 <= ord(char) < 160)]
    assert "\n" not in one_line(text)

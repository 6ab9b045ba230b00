"""The usage is found at the end of whatever engines answer, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway.usage import MOST_TOKENS, TAIL_BYTES, Usage, usage_in

COUNTED = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}


def chat(content: str, usage: object, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": choices, "usage": usage, **more}


def events(*data: object, done: bool = True) -> bytes:
    lines = [json.dumps(each) for each in data] + ["[DONE]"] * done
    return "".join(f"data: {line}\n\n" for line in lines).encode()


# What engines answer


@pytest.mark.parametrize("indent", [None, 1, "\t"])
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " : "), (",\r\n", ":\r\n")])
def test_of_a_chat(indent: int | str | None, separators: tuple[str, str]) -> None:
    answer = json.dumps(chat("hello", COUNTED, timings={"prompt_n": 1}), indent=indent, separators=separators)
    assert usage_in(answer.encode()) == Usage(12, 34)


@pytest.mark.parametrize(
    "tail",
    [
        events({"choices": [{"delta": {"content": "hi"}}], "usage": None}, {"choices": [], "usage": COUNTED}),
        events({"choices": [], "usage": COUNTED}, done=False),
        events({"choices": [], "usage": {**COUNTED, "completion_tokens": 1}}, {"choices": [], "usage": COUNTED}),
        events({"choices": [], "usage": COUNTED}, {"choices": [], "usage": None}),
        events({"choices": [], "usage": COUNTED}).replace(b"\n", b"\r\n"),
        events({"choices": [], "usage": COUNTED})[9:],
        events({"choices": [], "usage": COUNTED}) + b'data: {"half": "of an ev\xe2\x82',
    ],
    ids=["nulls before", "no [DONE]", "a running count", "null after", "CRLF", "a later beginning", "torn"],
)
def test_of_a_stream_the_last_report_counts(tail: bytes) -> None:
    assert usage_in(tail) == Usage(12, 34)


def test_details_do_not_confuse_it() -> None:
    details = {
        "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": None},
        **COUNTED,
        "completion_tokens_details": {"reasoning_tokens": 3, "more": [{"prompt_tokens": 99}], "words": '} " }'},
    }
    assert usage_in(json.dumps(chat("hello", details)).encode()) == Usage(12, 34)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(5, 0)),
        ({"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": None}, Usage(5, 0)),
        ({"total_tokens": 8}, Usage(8, 0)),
        ({"input_tokens": 5, "output_tokens": 6}, Usage(5, 6)),
        ({"input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 6}, Usage(105, 6)),
        (
            {"input_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": None, "output_tokens": 6},
            Usage(12, 6),
        ),
        (
            {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 6, "total_tokens": 11},
            Usage(5, 6),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": MOST_TOKENS, "completion_tokens": 1}, Usage(MOST_TOKENS, 1)),
    ],
    ids=["embeddings", "with null", "ranking", "messages", "cached", "to be cached", "responses", "zeros", "the most"],
)
def test_of_other_paths(report: dict[str, Any], expected: Usage) -> None:
    assert usage_in(json.dumps({"data": [], "usage": report}).encode()) == expected


def test_in_a_response_it_stands_deeper() -> None:
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 6}, "user": None}}
    assert usage_in(b"event: response.completed\n" + events(done, done=False)) == Usage(5, 6)


def test_the_prompt_may_stand_in_an_earlier_event() -> None:
    first = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
    assert usage_in(events(first, last, {"type": "message_stop"}, done=False)) == Usage(9, 40)
    assert usage_in(events(last, {"type": "message_stop"}, done=False)) == Usage(0, 40)


def test_the_tail_of_a_long_answer_is_enough() -> None:
    answer = json.dumps(chat("x" * 100_000, COUNTED, service_tier=None, kv_transfer_params=None)).encode()
    assert usage_in(answer[-TAIL_BYTES:]) == Usage(12, 34)


# What is none


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b'"usage"',
        b'"usage":',
        b'"usage":null',
        b'"usage": 12',
        b'"usage": [{"prompt_tokens": 1}]',
        b'"usage":{}',
        b'"usage":{"type": "duration", "seconds": 12}',
        b'"usage":{"prompt_tokens": 1, "completion_tokens": 2',
        b'age":{"prompt_tokens": 1, "completion_tokens": 2}',
        b'"usages":{"prompt_tokens": 1}',
        b'"my_usage":{"prompt_tokens": 1}',
        b'"my\\"usage":{"prompt_tokens": 1}',
        b"'usage':{\"prompt_tokens\": 1}",
        b'"usage":' + b'{"a":' * 100_000,
        b"\xff\xfe\x00" * 1000,
    ],
)
def test_there_may_be_none(tail: bytes) -> None:
    assert usage_in(tail) is None


@pytest.mark.parametrize("key", ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"])
@pytest.mark.parametrize(
    "value", ["-1", "1.0", "1e3", "true", '"5"', "[5]", "{}", "NaN", "Infinity", str(MOST_TOKENS + 1), "9" * 5000]
)
def test_what_can_not_be_a_count_is_refused(key: str, value: str) -> None:
    assert usage_in(f'{{"usage": {{"{key}": {value}}}}}'.encode()) is None


@pytest.mark.parametrize("value", ["-1", "true", '"5"'])
def test_an_impossible_count_spoils_the_whole_report(value: str) -> None:
    assert usage_in(f'"usage": {{"prompt_tokens": 1, "completion_tokens": {value}}}'.encode()) is None
    assert usage_in(f'"usage": {{"input_tokens": 1, "cache_read_input_tokens": {value}}}'.encode()) is None


def test_a_text_about_usage_is_not_a_report() -> None:
    text = 'She said: {"usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}'
    assert usage_in(json.dumps(chat(text, None)).encode()) is None
    assert usage_in(json.dumps(chat("hello", COUNTED, note=text)).encode()) == Usage(12, 34)
    assert usage_in(json.dumps(chat(json.dumps(text), COUNTED, note=json.dumps(text))).encode()) == Usage(12, 34)
    assert usage_in(events({"choices": [{"delta": {"content": text}}]})) is None


def test_an_object_of_that_name_that_counts_nothing_is_passed_over() -> None:
    schema = {"type": "object", "properties": {"usage": {"type": "string"}}}
    assert usage_in(json.dumps(chat("hello", COUNTED, tools=[schema])).encode()) == Usage(12, 34)


# Whatever it is

TEXTS = st.text() | st.sampled_from(['"usage":{"prompt_tokens":1}', '\\"usage\\": {"input_tokens": 2}', '"usage"'])
COUNTS = st.integers(0, MOST_TOKENS)


@given(st.binary() | TEXTS.map(str.encode))
def test_it_never_raises(tail: bytes) -> None:
    usage = usage_in(tail)
    assert usage is None or (usage.prompt_tokens >= 0 and usage.completion_tokens >= 0)


@given(TEXTS, TEXTS, COUNTS, COUNTS, st.booleans(), st.integers(0, 200))
def test_the_report_is_found_whatever_the_texts_around_it_say(
    before: str,
    after: str,
    prompt: int,
    completion: int,
    ascii_only: bool,
    cut: int,
) -> None:
    report = {"prompt_tokens": prompt, "completion_tokens": completion, "details": {"words": after}}
    answer = {"id": "x" * 200, "content": before, "usage": report, "note": after}
    data = json.dumps(answer, ensure_ascii=ascii_only).encode()
    assert usage_in(data[cut:]) == Usage(prompt, completion)

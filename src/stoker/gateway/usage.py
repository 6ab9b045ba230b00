"""How many tokens an answer took, read from its last bytes: that is where engines report it."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs

TAIL_BYTES = 4096
"""How much of an answer's end holds the report, with all that the engines of today let follow it."""

OPENING_BYTES = 1024
"""How much of an answer's beginning may hold it, too: llama.cpp's embeddings, Anthropic's prompt."""

MOST_TOKENS = 10**9

_KEY = b'"usage"'
_BEFORE_OBJECT = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')  # within a text, quotes have backslashes
_DECODER = json.JSONDecoder()
# How vLLM, and how OpenAI and llama.cpp begin it: for these there is no need to decode what follows.
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,9})\s*,\s*(?:"total_tokens"\s*:\s*\d{1,9}\s*,\s*)?'
    rb'"completion_tokens"\s*:\s*(\d{1,9})\s*[,}]'
)


@attrs.define
class Usage:
    """What an engine reports. ``prompt_tokens`` include those that it took from its cache."""

    prompt_tokens: int
    completion_tokens: int


def usage_in(tail: bytes) -> Usage | None:
    """The usage that the end of an answer reports, or None. Never raises.

    ``tail`` is the end of a JSON answer or of an event stream, decoded, and may begin anywhere. The last report
    counts. In Anthropic's streams that may lack the prompt, which only the first event tells: it is then taken from an
    earlier report, if ``tail`` has one, and is 0 otherwise. A report with a number that can't be a count is none.
    """
    completion: int | None = None
    at = len(tail)
    while (at := tail.rfind(_KEY, 0, at)) >= 0:
        before = _BEFORE_OBJECT.match(tail, at)
        if before is None:
            continue
        usual = _USUAL.match(tail, at) if completion is None else None
        if usual is not None:
            return Usage(int(usual[1]), int(usual[2]))
        try:
            report, _ = _DECODER.raw_decode(tail[before.end() :].decode(errors="replace"))
            prompt, written = _counts(report)
        except (ValueError, RecursionError):  # half an object, an absurd one, or numbers that count nothing
            return None
        if completion is None:
            completion = written
        if prompt is not None:
            return Usage(prompt, completion or 0)
    return None if completion is None else Usage(0, completion)


def _counts(report: dict[str, Any]) -> tuple[int | None, int | None]:
    """The tokens of the prompt and those written, as far as they are told. Raises ValueError for an impossible one."""
    prompt, written = report.get("prompt_tokens"), report.get("completion_tokens")
    if prompt is None:
        prompt = _input(report)
    if written is None:
        written = report.get("output_tokens")
    if prompt is None and written is None:
        prompt = report.get("total_tokens")  # of a ranking, in which nothing is written
    return _checked(prompt), _checked(written)


def _input(report: dict[str, Any]) -> int | None:
    """Anthropic's, to which the tokens of the cache have to be added; OpenAI's has another place for those."""
    tokens = _checked(report.get("input_tokens"))
    if tokens is None:
        return None
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
        tokens += _checked(report.get(name)) or 0
    return tokens


def _checked(tokens: object) -> int | None:
    if tokens is None:
        return None
    if type(tokens) is int and 0 <= tokens <= MOST_TOKENS:
        return tokens
    raise ValueError(f"{tokens!r} tokens")

"""Stored conversations: what of one is sent again, and what of a request and of its answer is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

Message = Mapping[str, Any]
"""One message as OpenAI's chat has it: a JSON object with a ``role``."""

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TOKENS_PER_MEDIUM = 1000
"""What a part that is no text (an image, a recording) is reckoned at."""

_LEADING = frozenset({"system", "developer"})
_SENT_OF_AN_ANSWER = ("content", "name", "refusal", "tool_calls", "function_call")
_LONGEST_TITLE = 60


@attrs.frozen(kw_only=True)
class Turn:
    """One exchange: what the request said, and then the answer, as far as it came.

    ``instructions`` are the system messages that the request began with, None where there were none: those of before
    go on. ``aborted`` says that the answer is not whole.
    """

    messages: tuple[Message, ...]
    model: str = ""
    aborted: bool = False
    instructions: tuple[Message, ...] | None = None


@attrs.frozen(kw_only=True)
class Said:
    """A turn as it is read again. ``tokens`` is an estimate, ``size`` its bytes."""

    messages: tuple[Message, ...]
    tokens: int
    size: int


@attrs.frozen(kw_only=True)
class Budget:
    """How much of a conversation is sent again. ``tokens`` are estimated, None: no matter how many."""

    turns: int
    tokens: int | None = None
    size: int


@attrs.frozen(kw_only=True)
class History:
    """What stands before the messages of a request: the instructions that hold, and the turns, the oldest first."""

    instructions: tuple[Message, ...] = ()
    turns: tuple[Said, ...] = ()

    def before(self, messages: Sequence[Message]) -> list[Message]:
        """What to send: instructions (those of ``messages``, if they begin with some), history, the rest."""
        leading, rest = split_instructions(messages)
        earlier = [sent_again(message) for turn in self.turns for message in turn.messages]
        return [*(leading or self.instructions), *earlier, *rest]


def within(latest_first: Iterable[Said], budget: Budget) -> tuple[Said, ...]:
    """The latest turns that fit into ``budget``, the oldest first. Of ``latest_first`` no more is taken than needed.

    A turn is kept whole or not at all, and none is skipped: what is left out is the beginning.
    """
    kept: list[Said] = []
    tokens = size = 0
    if budget.turns <= 0:
        return ()
    for turn in latest_first:
        tokens += turn.tokens
        size += turn.size
        if (budget.tokens is not None and tokens > budget.tokens) or size > budget.size:
            break
        kept.append(turn)
        if len(kept) >= budget.turns:
            break
    return tuple(reversed(kept))


def split_instructions(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The system messages that ``messages`` begin with, and the others."""
    count = 0
    while count < len(messages) and messages[count].get("role") in _LEADING:
        count += 1
    return tuple(messages[:count]), tuple(messages[count:])


def sent_again(message: Message) -> Message:
    """``message`` as an engine takes it. Of an answer that is less than what it said: strict ones refuse the rest."""
    if message.get("role") != "assistant":
        return message
    sent = {name: message[name] for name in _SENT_OF_AN_ANSWER if message.get(name)}
    calls = "tool_calls" in sent or "function_call" in sent
    return {"role": "assistant", "content": None if calls else "", **sent}


def estimated_tokens(message: Message) -> int:
    """About how many tokens an engine will make of ``message``: a quarter of the bytes of its texts."""
    sent = sent_again(message)
    content = sent.get("content")
    media = 0
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        media = len(content) - len(texts)
        content = texts
    rest = [value for name, value in sent.items() if name not in ("role", "content")]
    size = _size_of_texts(content) + _size_of_texts(rest)
    return TOKENS_PER_MESSAGE + TOKENS_PER_MEDIUM * media - (-size // BYTES_PER_TOKEN)


def _size_of_texts(value: object) -> int:
    match value:
        case str():
            return len(value.encode(errors="surrogatepass"))
        case Mapping():
            return sum(map(_size_of_texts, value.values()))
        case list() | tuple():
            return sum(map(_size_of_texts, value))
    return 0


def title_of(messages: Iterable[Message]) -> str:
    """A title for a conversation that begins so: the first words its user said."""
    for message in messages:
        if message.get("role") == "user" and (words := " ".join(_first_text(message.get("content")).split())):
            return words if len(words) <= _LONGEST_TITLE else words[: _LONGEST_TITLE - 1].rstrip() + "…"
    return ""


def _first_text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return next((text for text in texts if isinstance(text, str)), "")


def answer_in(completion: object) -> Message | None:
    """The message in a whole answer, the first of several choices; None for what is no such answer."""
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, Mapping) and choice.get("index", 0) == 0 and isinstance(choice.get("message"), Mapping):
            return {"role": "assistant", **choice["message"]}
    return None


def turns_of(messages: Iterable[Message]) -> list[tuple[Message, ...]]:
    """The turns of a conversation that is told as one list: each begins with what its user says after an answer."""
    turns: list[list[Message]] = []
    answered = True
    for message in messages:
        if not turns or (answered and message.get("role") == "user"):
            turns.append([])
        turns[-1].append(message)
        answered = message.get("role") == "assistant"
    return [tuple(turn) for turn in turns]

"""What the fake engine says: OpenAI's shapes as vLLM fills them, made from a request's bytes. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PATHS: Mapping[str, frozenset[str]] = {"llm": frozenset({CHAT, COMPLETIONS}), "embedding": frozenset({EMBEDDINGS})}
DONE = b"data: [DONE]\n\n"
DEFAULT_MAX_TOKENS = 16
DIMENSIONS = 8


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """The request can't be served: the status, and what is wrong."""

    def __init__(self, status: int, message: str, type_: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = type_
        self.param = param


def error(status: int, message: str, type_: str, param: str | None = None) -> Mapping[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": type_, "param": param, "code": status}}


@attrs.frozen(kw_only=True)
class Generation:
    """One chat or completion to answer: the ``words``, again and again until there were ``count`` of them."""

    chat: bool
    model: str
    prompt_tokens: int
    words: Sequence[str]
    count: int
    finish_reason: str
    stream: bool
    include_usage: bool

    @property
    def tokens(self) -> Iterator[str]:
        """The text to come. Made as it goes: who asks for a million and leaves shall have cost nothing."""
        for index in range(self.count):
            yield f"{' ' if index else ''}{self.words[index % len(self.words)]}"

    @property
    def usage(self) -> Mapping[str, int]:
        """Tokens counted as words."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.count,
            "total_tokens": self.prompt_tokens + self.count,
        }

    def answer(self) -> Mapping[str, Any]:
        """The whole answer as one object."""
        text = "".join(self.tokens)
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self._head(""), "choices": [choice], "usage": self.usage}

    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, without the last ``[DONE]``."""
        if self.chat:
            yield self._event({"role": "assistant", "content": ""}, None)
        for token in self.tokens:
            yield self._event({"content": token} if self.chat else token, None)
        yield self._event({} if self.chat else "", self.finish_reason)
        if self.include_usage:
            yield event({**self._head(".chunk"), "choices": [], "usage": self.usage})

    def _event(self, piece: Mapping[str, str] | str, finish_reason: str | None) -> bytes:
        said = {"text": piece} if isinstance(piece, str) else {"delta": piece}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head(".chunk"), "choices": [choice]})

    def _head(self, suffix: str) -> Mapping[str, Any]:
        kind = f"chat.completion{suffix}" if self.chat else "text_completion"
        return {"id": "chatcmpl-fake" if self.chat else "cmpl-fake", "object": kind, "created": 0, "model": self.model}


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def read_object(body: bytes, names: Sequence[str]) -> dict[str, Any]:
    """The request's JSON object, for a model among ``names``. Raises :class:`Refused`."""
    try:
        asked = json.loads(body)
    except ValueError as wrong:
        raise Refused(400, f"the body is not JSON: {wrong}") from None
    if not isinstance(asked, dict):
        raise Refused(400, "the body must be a JSON object")
    model = asked.get("model", names[0])
    if model not in names:
        raise Refused(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
    return asked


def read_generation(path: str, asked: Mapping[str, Any], names: Sequence[str]) -> Generation:
    """What a chat or completion request asks for. Raises :class:`Refused`."""
    chat = path == CHAT
    words = (_words_of_chat(asked) if chat else _words_of_prompt(asked)) or ["nothing"]
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise Refused(400, f"max_tokens must be at least 1, got {limit!r}", param="max_tokens")
    options = asked.get("stream_options") or {}
    return Generation(
        chat=chat,
        model=asked.get("model", names[0]),
        prompt_tokens=len(words),
        words=words,
        count=limit or DEFAULT_MAX_TOKENS,
        finish_reason="length" if limit else "stop",
        stream=bool(asked.get("stream")),
        include_usage=bool(options.get("include_usage")),
    )


def _words_of_chat(asked: Mapping[str, Any]) -> Sequence[str]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refused(400, "messages must be a list of at least one message", param="messages")
    content = messages[-1].get("content") or ""
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content).split()


def _words_of_prompt(asked: Mapping[str, Any]) -> Sequence[str]:
    prompt = asked.get("prompt")
    if isinstance(prompt, str):
        return prompt.split()
    if isinstance(prompt, list) and prompt:
        return [str(part) for part in prompt]
    raise Refused(400, "prompt must be a text or a list", param="prompt")


def embed(asked: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """The answer to an embeddings request. Raises :class:`Refused`."""
    given = asked.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(one, int) for one in given)):
        given = [given]
    if not isinstance(given, list) or not given:
        raise Refused(400, "input must be a text or a list of at least one", param="input")
    texts = [one if isinstance(one, str) else json.dumps(one) for one in given]
    dimensions = asked.get("dimensions") or DIMENSIONS
    if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS:
        raise Refused(400, f"dimensions must be 1 to {DIMENSIONS}", param="dimensions")
    vectors = [vector(text, dimensions) for text in texts]
    as_base64 = asked.get("encoding_format") == "base64"
    data = [
        {"index": index, "object": "embedding", "embedding": _packed(one) if as_base64 else one}
        for index, one in enumerate(vectors)
    ]
    count = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"id": "embd-fake", "object": "list", "model": asked.get("model", names[0]), "data": data, "usage": usage}


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector that only ``text`` decides."""
    digest = hashlib.sha256(text.encode()).digest()
    raw = [number / 2**31 for number in struct.unpack(f">{DIMENSIONS}i", digest)][:dimensions]
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return [number / length for number in raw]


def _packed(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()

"""Makes requests of what callers say. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
KINDS: Mapping[str, str] = {CHAT: "llm", COMPLETIONS: "llm", EMBEDDINGS: "embedding"}
"""What kind of model is meant where none is named."""

Messages = str | Sequence[Mapping[str, Any]]
Texts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


@attrs.frozen(kw_only=True)
class Call:
    """A request to a model, before it is known who answers it.

    ``stored`` is true where the gateway keeps the conversation, so that nobody else can answer.
    """

    path: str
    model: str
    body: Mapping[str, Any] = attrs.field(repr=False)
    timeout_seconds: float | None
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    stream: bool = False
    stored: bool = False

    def content(self, model: str | None = None) -> bytes:
        """The body, asking for ``model`` (else the call's own)."""
        body = {**self.body, "model": model or self.model}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@attrs.frozen(kw_only=True)
class Options:
    """What a caller says of a call besides its content. ``fields`` are members of the body, None among them dropped."""

    model: str | None = None
    stream: bool = False
    timeout_seconds: float | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    with_usage: bool = False


def chat(messages: Messages, model: str, options: Options) -> Call:
    """A chat request. A text is one message of the user."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(one) for one in messages]
    return _call(CHAT, model, {"messages": said}, options)


def completion(prompt: str | Sequence[Any], model: str, options: Options) -> Call:
    """A request to go on with ``prompt``."""
    return _call(COMPLETIONS, model, {"prompt": prompt if isinstance(prompt, str) else list(prompt)}, options)


def embedding(texts: Sequence[Any], model: str, options: Options) -> Call:
    """A request for the vectors of ``texts``."""
    return _call(EMBEDDINGS, model, {"input": list(texts)}, options)


def inputs(texts: Texts) -> list[Any]:
    """The single things to embed. A text is one of them, and so is a list of token numbers."""
    if isinstance(texts, str):
        return [texts]
    each = [one if isinstance(one, str | int) else list(one) for one in texts]
    return [each] if each and all(isinstance(one, int) for one in each) else each


def batches(things: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """``things`` in their order, at most ``size`` at a time, and as evenly as it can be.

    Raises ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}")
    count = -(-len(things) // size)
    edges = [len(things) * number // count for number in range(count + 1)] if count else []
    return [things[start:end] for start, end in itertools.pairwise(edges)]


def _call(path: str, model: str, said: Mapping[str, Any], options: Options) -> Call:
    fields = {name: value for name, value in options.fields.items() if value is not None}
    if options.stream:
        fields["stream"] = True
        if options.with_usage:
            fields.setdefault("stream_options", {"include_usage": True})
    body = {**said, **fields, **options.extra}
    return Call(
        path=path,
        model=model,
        body=body,
        timeout_seconds=options.timeout_seconds,
        headers=options.headers,
        stream=options.stream,
        stored=body.get("session_id") is not None,
    )

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
        """The body, asking for ``model`` (else the call's own). Raises ValueError for what JSON can't say."""
        body = {**self.body, "model": model or self.model}
        try:
            return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"the request can't be written as JSON: {error}") from error


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


def conversation(messages: Messages) -> list[dict[str, Any]]:
    """What is said in a chat. A text is one message of the user. Raises ValueError for what is no conversation."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}] if messages else []
    said = [_message(one, number) for number, one in enumerate(_listed(messages, "messages", _MESSAGES))]
    if not said:
        raise ValueError(f"messages is empty, so that there is nothing to answer; give {_MESSAGES}")
    return said


def prompts(prompt: Texts) -> str | list[Any]:
    """What is to be gone on with. Raises ValueError for nothing, and for what is no prompt."""
    things = prompt if isinstance(prompt, str) else _listed(prompt, "prompt", _TEXTS)
    if not things:
        raise ValueError(f"prompt is empty, so that there is nothing to go on with; give {_TEXTS}")
    return things


def chat(said: Sequence[Mapping[str, Any]], model: str, options: Options) -> Call:
    """A chat request."""
    return _call(CHAT, model, {"messages": said}, options)


def completion(prompt: str | Sequence[Any], model: str, options: Options) -> Call:
    """A request to go on with ``prompt``."""
    return _call(COMPLETIONS, model, {"prompt": prompt}, options)


def embedding(texts: Sequence[Any], model: str, options: Options) -> Call:
    """A request for the vectors of ``texts``."""
    return _call(EMBEDDINGS, model, {"input": list(texts)}, options)


def inputs(texts: Texts) -> list[Any]:
    """The single things to embed. A text is one of them, and so is a list of token numbers; of nothing, there are none.

    Raises ValueError for what is no text.
    """
    if isinstance(texts, str):
        return [texts]
    each = [
        one if isinstance(one, str | int) else _listed(one, f"texts[{number}]", _TEXTS)
        for number, one in enumerate(_listed(texts, "texts", _TEXTS))
    ]
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


_MESSAGES = 'a text, or a list of messages such as {"role": "user", "content": "Hi"}'
_TEXTS = "a text, or a list of them"


def _listed(things: Any, name: str, wanted: str) -> list[Any]:
    if isinstance(things, Mapping | str | bytes | bytearray):
        hint = "; put it into a list" if isinstance(things, Mapping) else ""
        raise ValueError(f"{name} must be {wanted}, not one {type(things).__name__}{hint}")  # noqa: TRY004 - as the rest
    try:
        return list(things)
    except TypeError:
        raise ValueError(f"{name} must be {wanted}, not {things!r}") from None


def _message(one: Any, number: int) -> dict[str, Any]:
    try:
        return dict(one)
    except (TypeError, ValueError):
        raise ValueError(f"messages[{number}] is {one!r}, and no message; messages must be {_MESSAGES}") from None


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

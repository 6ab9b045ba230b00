"""The client for programs that block."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from stoker.client import building
from stoker.client.blocking import BlockingShell
from stoker.client.records import InferenceResult, StreamChunk
from stoker.client.requests import Messages, Texts
from stoker.client.steps import Steps
from stoker.client.streams import TextStream, all_of, text_of
from stoker.client.sync_managing import EngineMethods

T = TypeVar("T")


class UnifiedInferenceClient(EngineMethods):
    """Asks the models behind a gateway, and manages its engines. Made by :meth:`create`.

    >>> from stoker import UnifiedInferenceClient
    >>> with UnifiedInferenceClient.create() as client:
    ...     client.chat("Why is the sky blue?", max_tokens=3)
    'Why is the'

    Threads may share one. Leaving ``with``, or :meth:`close`, closes its connections and ends its thread, if it has
    one; so does letting go of it.

    ``chat``, ``generate`` and ``embed`` have in common:

    - ``model`` is the model, by any of its names. Without it the default of :meth:`create` is asked, or the only model
      of the kind that there is.
    - ``stream=True`` gives a :class:`TextStream` of pieces instead of the text.
    - ``return_result=True`` gives an :class:`InferenceResult` instead of the bare content; of a stream, every
      :class:`StreamChunk` instead of the texts.
    - ``timeout`` is in seconds, for the whole call, whoever is tried and however its answer drips; of a stream, until
      its first event, and then for each event after it. Without it that of :meth:`create` counts; None is no limit.
    - ``extra_headers`` are sent along; the members of ``extra_body`` are laid over the body.
    - Whatever else is given by name becomes a member of the body as it is: ``temperature=0``, ``tools=[…]``,
      ``session_id="…"``. What is None is left out.

    They raise the errors of :mod:`stoker.client.errors`, all of them :class:`ClientError`, and ValueError for arguments
    that can't be: then nothing was sent.
    """

    def __init__(self, core: building.Core) -> None:
        self._core = core
        self._managing = core.managing
        self._shell = BlockingShell(core.doors)
        self._finalizer = weakref.finalize(self, self._shell.close)

    @classmethod
    def create(cls, control_plane_url: str | None = None, **settings: Unpack[building.Options]) -> Self:
        """A client; nothing is sent yet.

        ``control_plane_url`` is the gateway's address, with or without ``/v1``. Without it that is ``STOKER_URL``, else
        the gateway that runs on ``STOKER_HOME``, else ``http://127.0.0.1:8000/v1``. ``api_key`` is its key, else
        ``STOKER_API_KEY``; for a gateway on this machine the admin token is found without being named.

        ``default_model`` and ``default_embedding_model`` are asked where a call names none. ``timeout`` counts for
        calls that name none (600 seconds). Lists are embedded ``batch_size`` (32) texts at a time, ``parallel`` (8)
        requests at once. ``verify`` is for addresses with https: a file with the certificates of the authorities to
        trust, and no others, or an ``ssl.SSLContext``. Without it those of the system are trusted, and the gateway of
        this home is known by its own certificate.

        With ``direct=True`` requests go straight to engines that are READY, and only what no engine takes to the
        gateway: where engines can be reached from here, that saves a hop. The gateway tells which there are, at once.

        Raises BadRequest for an address that is none, ValueError for settings that can't be, TypeError for others than
        these.

        >>> client = UnifiedInferenceClient.create("http://127.0.0.1:8000/v1", default_model="qwen")
        >>> client.close()
        """
        return cls(building.core({"control_plane_url": control_plane_url, **settings}))

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> str: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[True],
        **parameters: Any,
    ) -> InferenceResult[str]: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> TextStream[str]: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[True],
        **parameters: Any,
    ) -> TextStream[StreamChunk]: ...

    @overload
    def chat(self, messages: Messages, *, stream: bool = ..., return_result: bool = ..., **parameters: Any) -> Any: ...

    def chat(self, messages: Messages, *, stream: bool = False, return_result: bool = False, **parameters: Any) -> Any:
        """What the model says to ``messages``: OpenAI's list of them, or a text, which is one of the user.

        >>> client.chat([{"role": "user", "content": "one two three"}], temperature=0, max_tokens=2)
        'one two'
        >>> for piece in client.chat("one two", max_tokens=2, stream=True):
        ...     print(piece)
        one
         two
        >>> result = client.chat("one two three", max_tokens=2, return_result=True)
        >>> result.content, result.engine, result.finish_reason, result.usage.completion_tokens
        ('one two', 'fake', 'length', 2)
        """
        return self._ask(building.chat(messages), parameters, stream, return_result)

    @overload
    def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[True],
        **parameters: Any,
    ) -> InferenceResult[str]: ...

    @overload
    def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> TextStream[str]: ...

    @overload
    def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[True],
        **parameters: Any,
    ) -> TextStream[StreamChunk]: ...

    @overload
    def generate(self, prompt: Texts, *, stream: bool = ..., return_result: bool = ..., **parameters: Any) -> Any: ...

    def generate(self, prompt: Texts, *, stream: bool = False, return_result: bool = False, **parameters: Any) -> Any:
        """How the model goes on with ``prompt`` (``/v1/completions``). Of several prompts, how it goes on with the
        first; the others are in the result's ``raw``.

        >>> client.generate("once upon a time", max_tokens=2)
        'once upon'
        """
        return self._ask(building.completion(prompt), parameters, stream, return_result)

    @overload
    def embed(
        self, texts: Texts, *, model: str | None = ..., return_result: Literal[False] = ..., **parameters: Any
    ) -> list[list[float]]: ...

    @overload
    def embed(
        self, texts: Texts, *, model: str | None = ..., return_result: Literal[True], **parameters: Any
    ) -> InferenceResult[list[list[float]]]: ...

    @overload
    def embed(self, texts: Texts, *, return_result: bool = ..., **parameters: Any) -> Any: ...

    def embed(self, texts: Texts, *, return_result: bool = False, **parameters: Any) -> Any:
        """The vectors of ``texts``, one for each and in their order: of a single text a list of one, of no text none.

        Long lists are sent in batches, several at the same time; ``timeout`` is for each of them. If one fails, its
        error is raised, and the others end; so they do at Ctrl-C.

        >>> vectors = client.embed(["one", "two", "three"])
        >>> len(vectors), len(vectors[0])
        (3, 8)
        """
        result = self._infer(self._core.asking.embed(texts, self._core.options(parameters)))
        return result if return_result else result.content

    def models(self) -> list[str]:
        """Every name that can be asked for: models, their other names, adapters.

        >>> client.models()
        ['fake', 'quick', 'vectors']
        """
        return self._run(self._core.asking.names())

    def close(self) -> None:
        """Close every connection and end the client's thread. May be done again; calls that come later raise, and so do
        those that other threads wait for.

        >>> mine = UnifiedInferenceClient.create()
        >>> mine.close()
        >>> mine.models()
        Traceback (most recent call last):
        RuntimeError: Cannot send a request, as the client has been closed.
        """
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, make: building.Make, parameters: dict[str, Any], stream: bool, whole: bool) -> Any:
        options = self._core.options(parameters, stream=stream, with_usage=whole)
        answer = self._infer(self._core.asking.text(make, options))
        if stream:
            pick: Any = all_of if whole else text_of
            return TextStream(answer, pick, self._core.asking.clock, self)
        return answer if whole else answer.content

    def _infer(self, steps: Steps[T]) -> T:
        if self._core.direct:
            self._shell.watch(self._core.asking)
        return self._run(steps)

    def _run(self, steps: Steps[T]) -> T:
        return self._shell.run(steps)

"""The client for programs that await, on asyncio or on Trio."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import anyio
from anyio.abc import TaskGroup

from stoker.client import building
from stoker.client.async_managing import AsyncEngineMethods
from stoker.client.awaiting import AsyncShell
from stoker.client.records import InferenceResult, StreamChunk
from stoker.client.requests import Messages, Texts
from stoker.client.steps import Steps
from stoker.client.streams import AsyncTextStream, all_of, text_of
from stoker.client.watching import watch

T = TypeVar("T")


class AsyncUnifiedInferenceClient(AsyncEngineMethods):
    """What :class:`UnifiedInferenceClient` does, to be awaited, on asyncio and on Trio.

    >>> import anyio
    >>> from stoker import AsyncUnifiedInferenceClient
    >>> async def main():
    ...     async with AsyncUnifiedInferenceClient.create(default_model="fake") as client:
    ...         print(await client.chat("one two three", max_tokens=2))
    ...         async with await client.chat("one two three", max_tokens=2, stream=True) as stream:
    ...             async for piece in stream:
    ...                 print(piece)
    >>> anyio.run(main, backend="trio")
    one two
    one
     two

    With ``direct=True`` it listens to the gateway's events within ``async with``, in a task that ends with it; without
    one it asks which engines there are every two seconds, as long as it is used. Without ``async with`` it has to be
    closed by :meth:`aclose`.

    A cancellation ends the call, and what the engine does for it.
    """

    def __init__(self, core: building.Core) -> None:
        self._core = core
        self._managing = core.managing
        self._shell = AsyncShell(core.doors)
        self._tasks: TaskGroup | None = None

    @classmethod
    def create(cls, control_plane_url: str | None = None, **settings: Unpack[building.Options]) -> Self:
        """As ``UnifiedInferenceClient.create``."""
        return cls(building.core({"control_plane_url": control_plane_url, **settings}))

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> str: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[True],
        **parameters: Any,
    ) -> InferenceResult[str]: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> AsyncTextStream[str]: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[True],
        **parameters: Any,
    ) -> AsyncTextStream[StreamChunk]: ...

    @overload
    async def chat(
        self, messages: Messages, *, stream: bool = ..., return_result: bool = ..., **parameters: Any
    ) -> Any: ...

    async def chat(
        self, messages: Messages, *, stream: bool = False, return_result: bool = False, **parameters: Any
    ) -> Any:
        """As ``UnifiedInferenceClient.chat``."""
        return await self._ask(building.chat(messages), parameters, stream, return_result)

    @overload
    async def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> str: ...

    @overload
    async def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[False] = ...,
        return_result: Literal[True],
        **parameters: Any,
    ) -> InferenceResult[str]: ...

    @overload
    async def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[False] = ...,
        **parameters: Any,
    ) -> AsyncTextStream[str]: ...

    @overload
    async def generate(
        self,
        prompt: Texts,
        *,
        model: str | None = ...,
        stream: Literal[True],
        return_result: Literal[True],
        **parameters: Any,
    ) -> AsyncTextStream[StreamChunk]: ...

    @overload
    async def generate(
        self, prompt: Texts, *, stream: bool = ..., return_result: bool = ..., **parameters: Any
    ) -> Any: ...

    async def generate(
        self, prompt: Texts, *, stream: bool = False, return_result: bool = False, **parameters: Any
    ) -> Any:
        """As ``UnifiedInferenceClient.generate``."""
        return await self._ask(building.completion(prompt), parameters, stream, return_result)

    @overload
    async def embed(
        self, texts: Texts, *, model: str | None = ..., return_result: Literal[False] = ..., **parameters: Any
    ) -> list[list[float]]: ...

    @overload
    async def embed(
        self, texts: Texts, *, model: str | None = ..., return_result: Literal[True], **parameters: Any
    ) -> InferenceResult[list[list[float]]]: ...

    @overload
    async def embed(self, texts: Texts, *, return_result: bool = ..., **parameters: Any) -> Any: ...

    async def embed(self, texts: Texts, *, return_result: bool = False, **parameters: Any) -> Any:
        """As ``UnifiedInferenceClient.embed``."""
        result = await self._run(self._core.asking.embed(texts, self._core.options(parameters)))
        return result if return_result else result.content

    async def models(self) -> list[str]:
        """As ``UnifiedInferenceClient.models``."""
        return await self._run(self._core.asking.names())

    async def aclose(self) -> None:
        """Close every connection. May be done again; calls that come later raise.

        >>> import anyio
        >>> async def main():
        ...     mine = AsyncUnifiedInferenceClient.create()
        ...     print(await mine.models())
        ...     await mine.aclose()
        >>> anyio.run(main)
        ['fake', 'quick', 'vectors']
        """
        await self._shell.aclose()

    async def __aenter__(self) -> Self:
        if self._core.direct:
            self._tasks = await anyio.create_task_group().__aenter__()
            self._tasks.start_soon(watch, self._shell.gateway, self._core.asking, self._shell.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()
                # What ends the block is not the tasks' affair: told of it, they would raise it in a group.
                await self._tasks.__aexit__(None, None, None)
        finally:
            await self.aclose()

    async def _ask(self, make: building.Make, parameters: dict[str, Any], stream: bool, whole: bool) -> Any:
        options = self._core.options(parameters, stream=stream, with_usage=whole)
        answer = await self._run(self._core.asking.text(make, options))
        if stream:
            pick: Any = all_of if whole else text_of
            return AsyncTextStream(answer, pick, self._core.asking.clock, self)
        return answer if whole else answer.content

    async def _run(self, steps: Steps[T]) -> T:
        return await self._shell.run(steps)

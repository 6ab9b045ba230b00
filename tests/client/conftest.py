"""A gateway with two fake engines, and the client in its three ways of being used, behind one interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import attrs
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from stoker import AsyncUnifiedInferenceClient, UnifiedInferenceClient
from stoker.client import AsyncTextStream, ClientError
from tests.e2e.running import Program, until
from tests.faults.fleet import change_faults, engine, fake_state, fleet

WAYS = ("blocking", "asyncio", "trio")

Create = Callable[..., AbstractContextManager[Any]]


@attrs.define(eq=False)
class AwaitedStream:
    """A stream that is awaited, for tests that don't."""

    portal: BlockingPortal
    stream: AsyncTextStream[Any]

    @property
    def result(self) -> Any:
        return self.stream.result

    @property
    def engine(self) -> str | None:
        return self.stream.engine

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        async def following() -> tuple[Any, ...]:
            return tuple([piece async for piece in _one(self.stream)])

        for piece in self.portal.call(following):
            return piece
        raise StopIteration

    def __enter__(self) -> AwaitedStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.portal.call(self.stream.aclose)


async def _one(stream: AsyncTextStream[Any]) -> Any:
    with contextlib.suppress(StopAsyncIteration):
        yield await anext(stream)


@attrs.define(eq=False)
class AwaitedClient:
    """A client that is awaited, for tests that don't: each call is one on its event loop."""

    portal: BlockingPortal
    client: AsyncUnifiedInferenceClient

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            answer = self.portal.call(partial(method, *arguments, **named))
            return AwaitedStream(self.portal, answer) if isinstance(answer, AsyncTextStream) else answer

        return call


@contextlib.contextmanager
def _awaited(backend: str, *arguments: Any, **settings: Any) -> Iterator[AwaitedClient]:
    client = AsyncUnifiedInferenceClient.create(*arguments, **settings)
    with start_blocking_portal(backend) as portal, portal.wrap_async_context_manager(client):
        yield AwaitedClient(portal, client)


def ways_to_create(way: str) -> Create:
    """Makes clients that are used in this way; each is a context manager."""
    return UnifiedInferenceClient.create if way == "blocking" else partial(_awaited, way)


@pytest.fixture(params=WAYS)
def create(request: pytest.FixtureRequest) -> Create:
    """Makes a client: one that blocks, or one that is awaited on asyncio or on Trio."""
    return ways_to_create(request.param)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A gateway with the model ``fake`` (also called ``quick``) and the embedding model ``vectors``."""
    engines = (
        engine("--name", "quick", names=["quick"], max_concurrency=64),
        engine("--kind", "embedding", model="vectors", kind="embedding"),
    )
    with fleet(tmp_path_factory.mktemp("gateway"), *engines, allow_commands_over_http=True) as program:
        program.wait_until_ready(2)
        yield program


@pytest.fixture
def here(gateway: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The gateway, in an environment in which it is found without being named."""
    monkeypatch.setenv("STOKER_HOME", str(gateway.home.path))
    for name in ("STOKER_URL", "STOKER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return gateway


@pytest.fixture
def client(here: Program, create: Create) -> Iterator[Any]:
    """A client of the gateway, as people make one."""
    with create() as client:
        yield client


def close_while_another_thread_asks(
    client: UnifiedInferenceClient, info: Mapping[str, Any], *, stream: bool = False
) -> None:
    """Ask the engine of ``info``, which hangs, and close the client meanwhile: that ends the asking."""
    change_faults(info, hang=True)

    def ask() -> Any:
        with pytest.raises((ClientError, RuntimeError)):
            client.chat("hi", stream=stream)

    try:
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            until(lambda: fake_state(info)["active"] == 1, "it is asked")
            client.close()
            asking.result(10)
    finally:
        change_faults(info, hang=False)

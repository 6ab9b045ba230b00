"""Engines behind https: their certificates are verified, and their streams are relayed like any other."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio
import trustme

from .conftest import Lane, World, running, say_hello
from .scripted import Engine, Exchange, until

ASK = {"model": "m", "messages": []}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def listen(world: World, certificate: trustme.LeafCert, engine: Engine) -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await engine.handle(stream)

    async def serve(*, task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_ssl_over_tcp, handle, 0, context)
            task_status.started(listeners[0].transport_listener.socket.getsockname()[1])

    port: int = await world.nursery.start(serve)
    return port


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_trusted_engine_answers_and_its_connection_is_used_again(authority: trustme.CA, lane: Lane) -> None:
    async with running(ssl_context=trusting(authority), lane=lane) as world:
        engine = Engine(say_hello)
        port = await listen(world, authority.issue_cert("localhost"), engine)
        world.add("one", base_url=f"https://localhost:{port}/api")
        for _ in range(3):
            answer = await world.ask(ASK)
            assert answer.json() == {"hello": "there"}
        assert engine.connections == 1
        assert engine.exchanges[0].header("host") == f"localhost:{port}"
        assert engine.exchanges[0].target == "/api/v1/chat/completions"


async def test_a_stream_that_is_cut_off_under_tls_ends_with_an_error(authority: trustme.CA, lane: Lane) -> None:
    relayed = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await relayed.wait()
        assert isinstance(exchange.stream, trio.SSLStream)
        await trio.aclose_forcefully(exchange.stream)

    async with running(ssl_context=trusting(authority), lane=lane) as world:
        port = await listen(world, authority.issue_cert("localhost"), Engine(script))
        world.add("one", base_url=f"https://localhost:{port}")
        async with world.client() as client:
            await client.send("/v1/completions", ASK)
            await client.head()
            assert await client.chunk() == b"data: 1\n\n"
            relayed.set()
            assert b'"engine_failed"' in await client.chunk()
            assert await client.stream.receive_some() == b""


@pytest.mark.parametrize("fault", ["another name", "another authority"])
async def test_an_engine_that_cannot_prove_who_it_is_gets_no_request(
    authority: trustme.CA, fault: str, lane: Lane
) -> None:
    issuer = trustme.CA() if fault == "another authority" else authority
    name = "other.example" if fault == "another name" else "localhost"
    async with running(ssl_context=trusting(authority), lane=lane) as world:
        engine = Engine(say_hello)
        world.add("one", base_url=f"https://localhost:{await listen(world, issuer.issue_cert(name), engine)}")
        await world.engine("two")
        assert (await world.ask(ASK)).headers["x-stoker-engine"] == "two"
        assert engine.exchanges == []
        assert "CERTIFICATE_VERIFY_FAILED" in world.reports[0][2]


async def test_an_engine_that_does_not_speak_tls_is_passed_over(world: World) -> None:
    plain = await world.engine("one")
    world.change("one", base_url=f"https://127.0.0.1:{plain.port}")
    await world.engine("two")
    assert (await world.ask(ASK)).headers["x-stoker-engine"] == "two"
    await until(lambda: plain.open_connections == 0)

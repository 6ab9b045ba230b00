"""TLS at the front door: both lanes, HTTP/1.1 and HTTP/2, and clients that can't, won't, or hang up."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
import trustme

from stoker.errors import StokerError
from stoker.web.tls import server_context

from .conftest import CHAT, Lane, World, running
from .scripted import Exchange, until

ASK = {"model": "m"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(*written(authority.issue_cert("localhost"), tmp_path_factory.mktemp("tls")))


def written(certificate: trustme.LeafCert, folder: Path) -> tuple[Path, Path]:
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    certfile.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    keyfile.write_bytes(certificate.private_key_pem.bytes())
    return certfile, keyfile


def trusting(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@asynccontextmanager
async def client(world: World, context: ssl.SSLContext, *, http2: bool = False) -> AsyncIterator[httpx2.AsyncClient]:
    url = f"https://localhost:{world.port}"
    async with httpx2.AsyncClient(base_url=url, verify=context, http2=http2, trust_env=False) as made:
        yield made


@pytest.fixture
async def world(lane: Lane, server: ssl.SSLContext) -> AsyncIterator[World]:
    async with running(lane=lane, tls=server) as world:
        yield world


async def test_both_lanes_answer_within_tls(world: World, authority: trustme.CA) -> None:
    await world.engine("one")
    async with client(world, trusting(authority)) as asking:
        for _ in range(3):
            answer = await asking.post(CHAT, json=ASK)
            assert (answer.status_code, answer.json()) == (200, {"hello": "there"})
        assert (await asking.get("/health")).json() == ["GET", "/health"]
    expected = 1 if world.lane.is_express else 4
    assert world.plane.measures.connections_accepted == expected


async def test_a_body_of_a_megabyte_goes_through_both_ways(world: World, authority: trustme.CA) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.reply(200, exchange.body)

    await world.engine("one", echo)
    body = {"model": "m", "content": "x" * 1_000_000}
    async with client(world, trusting(authority)) as asking:
        assert (await asking.post(CHAT, json=body)).json() == body


async def test_a_stream_arrives_piece_by_piece(world: World, authority: trustme.CA) -> None:
    heard = trio.Event()

    async def speak(exchange: Exchange) -> None:
        await exchange.events("1")
        await heard.wait()
        await exchange.data(b"data: 2\n\ndata: [DONE]\n\n")
        await exchange.end()

    await world.engine("one", speak)
    async with (
        client(world, trusting(authority)) as asking,
        asking.stream("POST", CHAT, json={**ASK, "stream": True}) as answer,
    ):
        received = ""
        async for text in answer.aiter_text():
            received += text
            if received == "data: 1\n\n":
                heard.set()
    assert received == "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


async def test_http_2_is_agreed_upon(server: ssl.SSLContext, authority: trustme.CA) -> None:
    async with running(tls=server) as world:
        await world.engine("one")
        async with client(world, trusting(authority, "h2"), http2=True) as asking:
            answer = await asking.post(CHAT, json=ASK)
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert (await asking.get("/health")).json() == ["GET", "/health"]


async def test_a_client_that_hangs_up_ends_its_request(world: World, authority: trustme.CA) -> None:
    ended = trio.Event()

    async def never(exchange: Exchange) -> None:
        await exchange.gone()
        ended.set()

    engine = await world.engine("one", never)
    async with client(world, trusting(authority)) as asking, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: asking.post(CHAT, json=ASK))
        await until(lambda: engine.exchanges)
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await ended.wait()
    await until(lambda: world.server.connections == 0)


async def test_a_client_that_does_not_speak_it_finds_the_door_closed(server: ssl.SSLContext) -> None:
    async with running(tls=server) as world:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 100):
            async with await trio.open_tcp_stream("127.0.0.1", world.port) as stream:
                await stream.send_all(said)
                await stream.send_eof()
                with trio.fail_after(5):
                    while await stream.receive_some():
                        pass
        assert world.server.contained == 0


async def test_one_who_does_not_trust_the_certificate_is_no_defect_of_ours(server: ssl.SSLContext) -> None:
    async with running(tls=server) as world:
        async with client(world, ssl.create_default_context()) as asking:
            with pytest.raises(httpx2.ConnectError):
                await asking.get("/health")
        assert world.server.contained == 0


async def test_a_handshake_has_a_limit_in_time(server: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.web.tls.HANDSHAKE_SECONDS", 0.01)
    async with running(tls=server) as world, await trio.open_tcp_stream("127.0.0.1", world.port) as stream:
        with trio.fail_after(5):
            assert await stream.receive_some() == b""


async def test_those_who_never_agree_on_tls_count_and_make_room(
    server: ssl.SSLContext, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They did not count toward the most connections there may be, and each took a descriptor."""
    monkeypatch.setattr("stoker.web.server._most_connections", lambda: 10)  # four, with what TLS takes
    async with running(tls=server) as world:
        await world.engine("one")
        silent = [await trio.open_tcp_stream("127.0.0.1", world.port) for _ in range(4)]
        await until(lambda: world.server.connections == 4)
        async with client(world, trusting(authority)) as asking:
            assert (await asking.post(CHAT, json=ASK)).status_code == 200
            assert world.server.connections == 4
            with trio.fail_after(5):
                assert await silent[0].receive_some() == b""
        for stream in silent:
            await stream.aclose()


async def test_a_shutdown_does_not_wait_for_those_who_say_nothing(
    server: ssl.SSLContext, authority: trustme.CA
) -> None:
    async with running(tls=server, drain_seconds=0.1) as world:
        await world.engine("one")
        silent = await trio.open_tcp_stream("127.0.0.1", world.port)
        idle = httpx2.AsyncClient(verify=trusting(authority), trust_env=False)
        await idle.post(f"https://localhost:{world.port}{CHAT}", json=ASK)
        world.scope.cancel()
        with trio.fail_after(5):
            await until(lambda: world.server.connections == 0)
        await silent.aclose()
        await idle.aclose()


@pytest.mark.parametrize("wrong", ["missing", "no certificate", "another key"])
def test_a_certificate_that_can_not_be_used_is_named(wrong: str, authority: trustme.CA, tmp_path: Path) -> None:
    certfile, keyfile = written(authority.issue_cert("localhost"), tmp_path)
    match wrong:
        case "missing":
            certfile.unlink()
        case "no certificate":
            certfile.write_text("hello")
        case _:
            keyfile.write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
    with pytest.raises(StokerError, match=r"cert\.pem with the key .*key\.pem can't be used"):
        server_context(certfile, keyfile)

"""Bytes as they stand on the wire: requests that no client library writes, and what came back."""

from __future__ import annotations

import json
from collections.abc import Iterable

import h11
import trio

from .conftest import CHAT, World
from .scripted import HANG_GUARD_SECONDS, Answer, Client

BODY = b'{"model": "m"}'


def request(
    *headers: bytes, line: bytes = b"POST " + CHAT.encode() + b" HTTP/1.1", host: bytes = b"Host: localhost"
) -> bytes:
    """A head. ``headers`` are whole lines."""
    return b"".join(b"%b\r\n" % header for header in (line, host, *headers) if header) + b"\r\n"


def asking(body: bytes = BODY, *headers: bytes) -> bytes:
    """A whole request for an engine."""
    return request(b"Content-Length: %d" % len(body), *headers) + body


def marked(number: int) -> bytes:
    """A whole request that can be told from others."""
    return asking(json.dumps({"model": "m", "number": number}).encode())


async def send(client: Client, pieces: Iterable[bytes]) -> None:
    """Send piece by piece, in packets of their own as far as that can be had."""
    client.stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, True)
    for piece in pieces:
        await client.stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()


async def receive_all(client: Client) -> bytes:
    """All that comes until the connection ends, as it should: not by a reset."""
    received = b""
    with trio.fail_after(HANG_GUARD_SECONDS):
        while data := await client.stream.receive_some():
            received += data
    return received


async def receive_until(client: Client, mark: bytes) -> bytes:
    received = b""
    with trio.fail_after(HANG_GUARD_SECONDS):
        while mark not in received:
            data = await client.stream.receive_some()
            assert data, f"the connection ended after {received!r}"
            received += data
    return received


def answers_in(received: bytes) -> list[Answer]:
    """All answers, the last of which may lack its end."""
    answers = []
    while received:
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        http.send(h11.EndOfMessage())
        http.receive_data(received)
        head = http.next_event()
        assert isinstance(head, h11.Response), head
        body = b""
        while isinstance(event := http.next_event(), h11.Data):
            body += event.data
        complete = isinstance(event, h11.EndOfMessage)
        headers = {name.decode(): value.decode() for name, value in head.headers}
        assert len(headers) == len(head.headers), "a header was sent twice"
        answers.append(Answer(head.status_code, headers, body, complete))
        received = bytes(http.trailing_data[0]) if complete else b""
    return answers


async def converse(world: World, *pieces: bytes) -> list[Answer]:
    """Send ``pieces`` on a new connection, and return the answers that came until its end."""
    async with world.client() as client:
        await send(client, pieces)
        return answers_in(await receive_all(client))

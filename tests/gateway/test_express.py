"""The front door: what the express lane takes, what it refuses, and what it hands over, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Sequence

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from stoker.gateway.framing import LONGEST_HEAD
from stoker.settings import GatewaySettings

from .conftest import CHAT, Lane, World, express_only, in_one_lane, running
from .raw import BODY, answers_in, asking, converse, marked, receive_all, receive_until, request, send
from .scripted import HANG_GUARD_SECONDS, Client, Exchange, until

LENGTH = b"Content-Length: %d" % len(BODY)
CODING = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
POST, GET = b"POST /v1/completions HTTP/1.1", b"GET /v1/models HTTP/1.1"


def padded(size: int) -> bytes:
    """A head of that many bytes in all, most of which are no business of an engine's."""
    head = request(LENGTH, b"Cookie: ")
    return head.replace(b"Cookie: ", b"Cookie: " + b"x" * (size - len(head)))


BAD_HEADERS: dict[str, Sequence[bytes]] = {
    "length and coding": (LENGTH, CODING),
    "coding and length": (CODING, LENGTH),
    "length twice": (LENGTH, LENGTH),
    "two lengths": (LENGTH, b"Content-Length: 0"),
    "signed length": (b"Content-Length: +14",),
    "list of lengths": (b"Content-Length: 14, 14",),
    "length in a folded line": (b"Content-Length:", b" 14"),
    "folded line": (LENGTH, b"X: a", b" b"),
    "bare CR": (LENGTH, b"X: a\rContent-Length: 0"),
    "bare LF": (LENGTH, b"X: a\nContent-Length: 0"),
    "NUL": (LENGTH, b"X: a\x00b"),
    "space before the colon": (b"Content-Length : 14",),
    "another coding": (b"Transfer-Encoding: gzip, chunked",),
    "two hosts": (LENGTH, b"Host: elsewhere"),
    "no name": (LENGTH, b": x"),
}


async def refused(world: World, *pieces: bytes, status: int, code: str) -> None:
    """It is answered so, and reaches nobody."""
    (answer,) = await converse(world, *pieces)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.complete, answer.headers["connection"]) == (True, "close")
    assert answer.headers["x-request-id"]
    assert world.app.requests == []


@pytest.mark.parametrize("line", [POST, GET], ids=["for an engine", "for the web app"])
@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
async def test_what_is_not_unmistakably_http_is_refused(world: World, line: bytes, headers: Sequence[bytes]) -> None:
    engine = await world.engine("one")
    smuggled = asking() if line == POST else request(line=b"GET /smuggled HTTP/1.1")
    await refused(world, request(*headers, line=line) + BODY + smuggled, status=400, code="malformed_request")
    assert engine.connections == 0


@pytest.mark.parametrize(
    "start",
    [
        *(b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"GET /\r\n\r\n"),
        *(b"GET / HTTP/1.1\r\n\r\n", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        *(b"GET / HTTP/1.1\nHost: x\n", b"GET / HTTP/1.1\n", b"\x16\x03\x01\x02\x00", b" GET / HTTP/1.1\r\n", b"\n\n"),
        *(b"\r\r", b"\x00\x00", b"GET / HTTP/1.1\r\nHost: x\r\nX: y\n"),
    ],
)
async def test_what_can_become_no_request_is_refused_at_once(world: World, start: bytes) -> None:
    await refused(world, start, status=400, code="malformed_request")


async def test_a_bad_request_after_a_good_one_ends_the_connection(world: World) -> None:
    engine = await world.engine("one")
    if world.lane.is_express:
        first, second = await converse(world, asking(), request(LENGTH, CODING), BODY)
        assert (first.status, second.status) == (200, 400)
        assert len(engine.exchanges) == 1


async def test_a_head_may_have_64_kib_and_no_more(world: World) -> None:
    engine = await world.engine("one")
    async with world.client() as client:
        await client.stream.send_all(padded(LONGEST_HEAD) + BODY)
        assert (await client_answer(client)).startswith(b"HTTP/1.1 200")
    for pieces in (
        [padded(LONGEST_HEAD + 1) + BODY],
        [padded(LONGEST_HEAD + 1)],
        [padded(LONGEST_HEAD)[:-4] + b"yyyyy"],
    ):
        await refused(world, *pieces, status=431, code="head_too_large")
    assert len(engine.exchanges) == 1


async def client_answer(client: Client) -> bytes:
    return await receive_until(client, b'{"hello": "there"}')


@pytest.mark.parametrize("fault", ["malformed", "endless head", "too large a body"])
async def test_a_client_that_goes_on_sending_reads_the_refusal_all_the_same(lane: Lane, fault: str) -> None:
    async with running(GatewaySettings(max_body_bytes=1000), lane=lane) as world:
        await world.engine("one")
        much = b"x" * 8_000_000
        start, status = {
            "malformed": (request(LENGTH, LENGTH), 400),
            "endless head": (request()[:-2], 431),
            "too large a body": (request(b"Content-Length: %d" % len(much)), 413),
        }[fault]
        async with world.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, start + much)
            (answer,) = answers_in(await receive_all(client))
            nursery.cancel_scope.cancel()
        assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_a_body_is_asked_for_that_is_not_sent_unasked(world: World) -> None:
    engine = await world.engine("one")
    async with world.client() as client:
        await client.stream.send_all(request(LENGTH, b"Expect: 100-Continue"))
        assert (await receive_until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert engine.exchanges == []
        await client.stream.send_all(BODY)
        assert (await client_answer(client)).startswith(b"HTTP/1.1 200")
    assert engine.exchanges[0].body == BODY
    assert engine.exchanges[0].header("expect") is None


@express_only
async def test_a_body_that_is_there_is_not_asked_for(world: World) -> None:
    await world.engine("one")
    async with world.client() as client:
        whole = asking(BODY, b"Expect: 100-continue")
        for pieces in ([whole], [whole[:-1], whole[-1:]]):
            await send(client, pieces)
            assert (await client_answer(client)).startswith(b"HTTP/1.1 200")


@express_only
@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue"])
async def test_a_body_that_is_too_large_is_refused_before_it_comes(lane: Lane, expects: bytes) -> None:
    """Hypercorn asks for every body before anybody can look at the length."""
    async with running(GatewaySettings(max_body_bytes=1000), lane=lane) as world:
        await refused(world, request(b"Content-Length: 1001", expects), status=413, code="request_too_large")


@express_only
async def test_pipelined_requests_are_answered_in_their_order(world: World) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.reply(200, exchange.body)

    await world.engine("one", echo)
    requests = [marked(number) for number in range(20)]
    answers = await converse(world, b"".join(requests) + asking(BODY, b"Connection: close"))
    assert [answer.json().get("number") for answer in answers] == [*range(20), None]
    assert [answer.status for answer in answers] == [200] * 21


@express_only
async def test_of_pipelined_requests_one_for_the_web_app_is_the_last(world: World) -> None:
    engine = await world.engine("one")
    page = request(line=b"GET /page HTTP/1.1")
    for pieces in ([marked(1) + marked(2) + page + page + marked(3)], [marked(1), marked(2), page, page + marked(3)]):
        engine.exchanges.clear()
        answers = await converse(world, *pieces)
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert answers[-1].json() == ["GET", "/page"]
        assert ["connection" in answer.headers for answer in answers] == [False, False, True]
        assert len(engine.exchanges) == 2


async def test_what_follows_a_request_for_the_web_app_is_not_looked_at(world: World) -> None:
    """The answer was once lost to the error that Hypercorn saw in it."""
    for rest in (request(line=GET), b"nonsense\r\n\r\n", b"\r\n", asking()):
        (answer,) = await converse(world, request(line=GET) + rest)
        assert answer.json() == ["GET", "/v1/models"]
    assert world.app.requests == ["GET /v1/models"] * 4


@express_only
@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_before_a_request_are_passed_over(world: World, empty: bytes) -> None:
    engine = await world.engine("one")
    last = asking(BODY, b"Connection: close")
    pieces = [empty + marked(1) + empty + marked(2) + empty, empty + last]
    assert len(await converse(world, *pieces)) == 3
    assert len(await converse(world, *(bytes([byte]) for byte in b"".join(pieces)))) == 3
    assert len(engine.exchanges) == 6


@pytest.mark.parametrize("headers", [(LENGTH,), (CODING,)], ids=["length", "chunked"])
async def test_a_request_may_come_byte_by_byte(world: World, headers: Sequence[bytes]) -> None:
    engine = await world.engine("one")
    whole = request(*headers, b"Connection: close") + (BODY if headers == (LENGTH,) else CHUNKS)
    (answer,) = await converse(world, *(bytes([byte]) for byte in whole))
    assert answer.json() == {"hello": "there"}
    assert engine.exchanges[0].body == BODY


@express_only
async def test_a_request_may_be_cut_anywhere(world: World) -> None:
    engine = await world.engine("one")
    whole = marked(1) + marked(2)
    async with world.client() as client:
        for at in range(1, len(whole)):
            await send(client, [whole[:at], whole[at:]])
            received = await client_answer(client)
            if received.count(b'{"hello": "there"}') < 2:
                received += await client_answer(client)
            assert [answer.status for answer in answers_in(received)] == [200, 200]
    assert [json.loads(exchange.body)["number"] for exchange in engine.exchanges] == [1, 2] * (len(whole) - 1)
    assert world.plane.measures.connections_accepted == 1


@express_only
@pytest.mark.parametrize(
    ("headers", "lasts"), [((), True), ((b"Connection: keep-alive",), True), ((b"Connection: Close",), False)]
)
async def test_a_connection_lasts_as_long_as_the_client_likes(
    world: World, headers: Sequence[bytes], lasts: bool
) -> None:
    await world.engine("one")
    async with world.client() as client:
        await client.stream.send_all(asking(BODY, *headers))
        (answer,) = answers_in(await (client_answer if lasts else receive_all)(client))
        assert answer.headers.get("connection") == (None if lasts else "close")
        if lasts:
            await client.stream.send_all(asking())
            assert (await client_answer(client)).startswith(b"HTTP/1.1 200")


async def test_a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection(world: World) -> None:
    await world.engine("one")
    line = b"POST " + CHAT.encode() + b" HTTP/1.0"
    for headers in ((LENGTH,), (LENGTH, b"Connection: keep-alive")):
        (answer,) = await converse(world, request(*headers, line=line, host=b"") + BODY)
        assert (answer.status, answer.headers["connection"]) == (200, "close")


@express_only
async def test_an_answer_that_is_the_last_arrives_whole_whatever_the_client_sent_besides(world: World) -> None:
    """What a server leaves unread makes the system reset the connection, and drop what was not sent yet."""
    size = 3_000_000

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"x" * size)

    await world.engine("one", script)
    async with world.client() as client:
        await client.stream.send_all(asking(BODY, b"Connection: close"))
        await receive_until(client, b"\r\n\r\n")
        await send(client, [marked(1), marked(2)])
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(await receive_all(client)) > size - 100_000


UNUSUAL = {
    "in chunks": request(CODING) + CHUNKS,
    "in chunks, with an extension and a trailer": request(CODING) + b"E;a=b\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n",
    "by an escaped path": request(LENGTH, line=b"POST /v1/chat%2Fcompletions HTTP/1.1") + BODY,
    "with an odd spelling of the length": request(b"CONTENT-LENGTH:%d" % len(BODY)) + BODY,
    "with an upgrade": request(LENGTH, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA")
    + BODY,
    "with an upgrade that is not named in Connection": request(LENGTH, b"Upgrade: h2c") + BODY,
    "with a list in Connection": request(LENGTH, b"Connection: x-hop, keep-alive", b"X-Hop: 1") + BODY,
    "with another expectation": request(LENGTH, b"Expect: 200-ok") + BODY,
}


@pytest.mark.parametrize("whole", UNUSUAL.values(), ids=UNUSUAL.keys())
async def test_an_unusual_request_for_an_engine_is_answered_by_the_other_lane(world: World, whole: bytes) -> None:
    engine = await world.engine("one")
    half = len(whole) // 2
    for pieces in ([whole], [whole[:half], whole[half:]], [whole[:-1], whole[-1:]]):
        (answer,) = await converse(world, *pieces)
        assert (answer.json(), answer.headers["connection"]) == ({"hello": "there"}, "close")
        exchange = engine.exchanges.pop()
        assert (exchange.target, exchange.body) == (CHAT, BODY)
        assert exchange.header("upgrade") is exchange.header("x-hop") is exchange.header("http2-settings") is None


async def exchange_over_http_2(client: Client, http: h2.connection.H2Connection, body: bytes) -> bytes:
    """Read the answer on stream 1."""
    received = b""
    with trio.fail_after(HANG_GUARD_SECONDS):
        while True:
            for event in http.receive_data(bytes(await client.stream.receive_some())):
                if isinstance(event, h2.events.DataReceived):
                    received += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return received
            await client.stream.send_all(http.data_to_send())


@in_one_lane
async def test_http_2_is_handed_over_wherever_its_preface_is_cut(world: World) -> None:
    await world.engine("one")
    for at in (1, 3, 16, 17, 20, 24, 30):
        http = h2.connection.H2Connection(h2.config.H2Configuration())
        http.initiate_connection()
        http.send_headers(1, [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "localhost")])
        http.send_data(1, BODY, end_stream=True)
        start = http.data_to_send()
        async with world.client() as client:
            await send(client, [start[:at], start[at:]])
            assert await exchange_over_http_2(client, http, BODY) == b'{"hello": "there"}'


@in_one_lane
async def test_an_upgrade_to_http_2_is_not_heeded(world: World) -> None:
    """A proxy in front may pass one on that it does not understand, and all that follows with it."""
    headers = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    (answer,) = await converse(world, request(*headers, line=GET))
    assert (answer.status, answer.json()) == (200, ["GET", "/v1/models"])


@in_one_lane
async def test_a_websocket_is_the_web_apps_to_refuse(world: World) -> None:
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAA")
    (answer,) = await converse(world, request(*upgrade, line=b"GET /v1/realtime HTTP/1.1"))
    assert answer.status == 403


class Wire:
    """An engine that says exactly what a test wants, and keeps what it was told."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard = b""

    async def serve(self, stream: trio.SocketStream) -> None:
        while BODY not in self.heard:
            self.heard += await stream.receive_some()
        await stream.send_all(self.answer)
        await stream.aclose()


async def wire(world: World, answer: bytes) -> Wire:
    engine = Wire(answer)
    listeners = await world.nursery.start(trio.serve_tcp, engine.serve, 0)
    world.add("one", port=listeners[0].socket.getsockname()[1])
    return engine


async def test_heads_are_written_anew_and_not_passed_on_as_they_came(world: World) -> None:
    answer = (
        b"HTTP/1.1 299 Odd Reason\r\nX-Odd:   spaced\t \r\nx-ODD:\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\r\n2;x=y\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    engine = await wire(world, answer)
    headers = (b"X-Odd:\t spaced  ", b"x-ODD:", b"X-Request-ID: mine", b"Keep-Alive: 5", b"TE: trailers", b"Trailer: x")
    hop = (b"Connection: close",) if world.lane.is_express else (b"Connection: X-Hop, close", b"X-Hop: 1")
    async with world.client() as client:
        await client.stream.send_all(asking(BODY, *headers, *hop, b"Proxy-Connection: keep-alive"))
        received = await receive_all(client)
    lines = engine.heard.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0] == b"POST " + CHAT.encode() + b" HTTP/1.1"
    assert sorted(line for line in lines[1:] if not line.startswith(b"traceparent: 00-")) == [
        b"accept-encoding: identity",
        b"content-length: %d" % len(BODY),
        b"host: 127.0.0.1:%d" % int(world.backends["one"].base_url.rpartition(":")[2]),
        b"x-odd: ",
        b"x-odd: spaced",
        b"x-request-id: mine",
    ]
    assert lines.index(b"x-odd: spaced") < lines.index(b"x-odd: ")
    lines = received.partition(b"\r\n\r\n")[0].replace(b"Connection", b"connection").split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 299 ")
    assert sorted(line for line in lines[1:] if not line.startswith(b"date: ")) == [
        b"connection: close",
        b"content-length: 2",
        b"content-type: application/json",
        b"x-odd: ",
        b"x-odd: spaced",
        b"x-request-id: mine",
        b"x-stoker-engine: one",
    ]
    assert received.endswith(b"\r\n\r\n{}")


async def test_what_an_engine_sends_after_its_answer_reaches_nobody(world: World) -> None:
    """Not even where it looks like another answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    for answer in (b"content-length: 2\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"):
        await wire(world, head + answer + head + b"content-length: 6\r\n\r\nstolen")
        for _ in range(2):
            assert (await world.ask(BODY)).body == b"{}"
    await until(lambda: world.table.in_flight() == 0)
    assert world.reports == []

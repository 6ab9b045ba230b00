"""Both lanes, and both parsers, answer any request alike, ask the engines alike, and measure alike."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import h11
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.core.conversation import Budget, History, Said, Turn
from stoker.errors import NoSessionError

from .conftest import CHAT, Lane, World, running
from .scripted import HANG_GUARD_SECONDS, Engine, Exchange, until

Headers = Sequence[tuple[bytes, bytes]]
ENGINES = ("one", "two")
WORDING = re.compile(rb"(?<=is no HTTP answer: )[^\"]*")
TRACE_ID = b"0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = (b"TraceParent", b"00-%b-b7ad6b7169203331-00" % TRACE_ID)
FRAMING = {b"connection", b"content-length", b"date", b"transfer-encoding"}


@attrs.frozen
class Request:
    method: bytes = b"POST"
    target: bytes = CHAT.encode()
    headers: Headers = ()
    body: bytes = b'{"model": "m"}'

    def on_the_wire(self) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in self.headers]
        head = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b" % (self.method, self.target, b"".join(lines))
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(self.body), self.body)


@attrs.frozen
class Behaviour:
    """What an engine does: it says ``parts``, each in a packet of its own, then ends ``end``ly."""

    parts: Sequence[bytes]
    end: str = "well"

    async def __call__(self, exchange: Exchange) -> None:
        for part in self.parts:
            await exchange.raw(part)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
        if self.end == "with a reset":
            await exchange.reset()
        else:
            await exchange.hang_up()


@attrs.frozen
class Outcome:
    """What a client, an engine, or somebody who reads the measures can tell of a request."""

    status: int
    headers: Headers
    body: bytes
    complete: bool
    asked: Sequence[tuple[Any, ...]]
    reports: Sequence[tuple[Any, ...]]
    counters: object
    requests: object
    bytes: object
    kept: object

    def whoever_parsed(self) -> Outcome:
        """Without how a parser words what it found, and how a writer of JSON sets its spaces."""
        asked = [(*rest, unspaced(body)) for *rest, body in self.asked]
        reports = [(*rest, WORDING.sub(b"", what.encode())) for *rest, what in self.reports]
        return attrs.evolve(self, asked=asked, reports=reports, body=WORDING.sub(b"", self.body))


class Archive:
    """Knows one conversation, in which a question was answered, and what is kept of it."""

    def __init__(self) -> None:
        self.kept: list[Turn] = []

    async def check(self, session_id: str, owner: str | None) -> None:
        if session_id != "s":
            raise NoSessionError(f"there is no session {session_id!r}")

    async def recall(self, session_id: str, owner: str | None, budget: Budget) -> History:
        said = ({"role": "user", "content": "?"}, {"role": "assistant", "content": "!"})
        return History(turns=(Said(messages=said, tokens=2, size=2),))

    async def keep(self, session_id: str, turn: Turn) -> bool:
        self.kept.append(turn)
        return True


def unspaced(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body


def sane_id(headers: Headers) -> bool:
    given = [value for name, value in headers if name.lower() == b"x-request-id"]
    return bool(given) and 0 < len(given[-1]) <= 128 and all(0x21 <= byte <= 0x7E for byte in given[-1])


def telling(headers: Headers, *, keeps_id: bool) -> Headers:
    """Without what may differ, or must."""
    ignored = FRAMING if keeps_id else FRAMING | {b"x-request-id"}
    return [
        (bytes(name), traced(value) if name == b"traceparent" else bytes(value))
        for name, value in headers
        if name not in ignored
    ]


def traced(value: bytes) -> bytes:
    """Whose trace it is; the ids that a gateway makes differ."""
    return TRACE_ID if TRACE_ID in value else b"a new one"


async def ask(world: World, request: Request) -> tuple[h11.Response, bytes, bool]:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=request.method, target="/", headers=[("host", "x"), ("content-length", "0")]))
    http.send(h11.EndOfMessage())
    head, body, complete = None, b"", False
    with trio.fail_after(HANG_GUARD_SECONDS):
        async with world.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, request.on_the_wire())
            try:
                while not complete:
                    event = http.next_event()
                    if event is h11.NEED_DATA:
                        http.receive_data(bytes(await client.stream.receive_some()))
                    elif isinstance(event, h11.Response):
                        head = event
                    elif isinstance(event, h11.Data):
                        body += event.data
                    complete = isinstance(event, h11.EndOfMessage)
            except h11.RemoteProtocolError:
                pass
    assert head is not None
    return head, body, complete


async def outcome(world: World, archive: Archive, engines: Sequence[Engine], request: Request) -> Outcome:
    for engine in engines:
        engine.exchanges.clear()
    head, body, complete = await ask(world, request)
    await until(lambda: world.server.connections == 0)
    keeps_id = sane_id(request.headers)
    asked = [
        (number, exchange.target, telling(list(exchange.request.headers), keeps_id=keeps_id), exchange.body)
        for number, engine in enumerate(engines)
        for exchange in engine.exchanges
    ]
    measured = world.plane.measures.snapshot()
    traffic = {
        labels: (one.received_bytes, one.sent_bytes, one.prompt_tokens, one.completion_tokens)
        for labels, one in measured.traffic.items()
    }
    return Outcome(
        head.status_code,
        telling(list(head.headers), keeps_id=keeps_id),
        body,
        complete,
        asked,
        world.reports,
        world.table.counters,
        measured.requests,
        traffic,
        archive.kept,
    )


@asynccontextmanager
async def worlds(
    behaviours: Sequence[Behaviour],
) -> AsyncIterator[tuple[list[World], list[Archive], list[Engine]]]:
    """A gateway for each lane, all of them in front of the same engines."""
    async with AsyncExitStack() as stack:
        archives = [Archive() for _ in Lane]
        made = [
            await stack.enter_async_context(running(lane=lane, archive=archive))
            for lane, archive in zip(Lane, archives, strict=True)
        ]
        engines = [
            await made[0].engine(engine_id, behaviour, names=("m", "alias"), renames={"alias": "inside"})
            for engine_id, behaviour in zip(ENGINES, behaviours, strict=True)
        ]
        for world in made[1:]:
            for engine_id, backend in made[0].backends.items():
                world.backends[engine_id] = backend
            world.update()
        for world in made:
            world.answered.update(ENGINES)
        yield made, archives, engines


NAMES = st.sampled_from(
    [
        *(b"accept", b"Accept-Encoding", b"Authorization", b"Cookie", b"X-Api-Key", b"User-Agent"),
        *(b"traceparent", b"tracestate"),
        *(
            b"Keep-Alive",
            b"TE",
            b"Trailer",
            b"Proxy-Authorization",
            b"X-Hop",
            b"X-Request-ID",
            b"X-Custom",
            b"x-custom",
        ),
        *(b"Content-Encoding", b"Forwarded", b"!#$%&'*+.^_`|~0", b"Date", b"Server", b"Alt-Svc", b"X-Stoker-Engine"),
    ]
)
VALUES = st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,10}[!-~\x80-\xff])?)?", fullmatch=True)
HEADER_LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
TRACES = st.sampled_from([[], [TRACEPARENT], [TRACEPARENT, (b"TraceState", b"a=b, c=d"), (b"tracestate", b"e=f")]])
CONNECTIONS = st.sampled_from([[], [], [], [(b"Connection", b"keep-alive")], [(b"Connection", b"X-Hop")]])


@st.composite
def json_bodies(draw: st.DrawFn) -> bytes:
    model = draw(st.sampled_from(["m", "m", "m", "alias", "unknown", "", None, 7, "é\x00"]))
    members: dict[str, object] = {} if model is None else {"model": model}
    if draw(st.booleans()):
        members["stream"] = draw(st.sampled_from([True, False, None, 1]))
    members["content"] = "x" * draw(st.sampled_from([0, 10, 20_000, 100_000, 300_000]))
    body = json.dumps(members, ensure_ascii=draw(st.booleans())).encode()
    match draw(st.sampled_from(["as it is"] * 6 + ["broken", "twice", "no object", "not UTF-8"])):
        case "broken":
            return body[:-1]
        case "twice":
            return b'{"model": "unknown", ' + body[1:]
        case "no object":
            return b"[" + body + b"]"
        case "not UTF-8":
            return body.replace(b"content", b"\xff")
    return body


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    model = draw(st.sampled_from([b"m", b"alias", b"unknown", b""]))
    disposition = b"Content-Disposition: form-data; name="
    file = b'--b\r\n%b"file"; filename="f"\r\n\r\n%b\r\n' % (disposition, draw(st.binary(max_size=100)))
    field = b'--b\r\n%b"model"\r\n\r\n%b\r\n' % (disposition, model)
    return b"".join(draw(st.permutations([file, field]))) + draw(st.sampled_from([b"--b--\r\n", b"--b--", b""]))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    path = draw(
        st.sampled_from(
            [CHAT] * 5
            + ["/v1/completions", "/v1/audio/transcriptions", "/v1/audio/../x", "/v1/embeddings", CHAT + "/", "/other"]
        )
    )
    query = draw(st.sampled_from(["", "", "", "?a=b&c", "?x=%20?y/z", '?"<>^`{|}']))
    is_form = draw(st.integers(0, 4)) == 0
    content_type = (b"Content-Type", b"multipart/form-data; boundary=b" if is_form else b"application/json")
    headers = [*draw(HEADER_LISTS), *draw(TRACES), *draw(CONNECTIONS)]
    headers.insert(draw(st.integers(0, len(headers))), content_type)
    method = draw(st.sampled_from([b"POST"] * 9 + [b"PUT"]))
    return Request(method, (path + query).encode(), headers, draw(forms() if is_form else json_bodies()))


@st.composite
def requests_in_sessions(draw: st.DrawFn) -> Request:
    members = {
        "session_id": "s",
        "model": draw(st.sampled_from(["m", "alias"])),
        "messages": [{"role": "user", "content": "é"}],
        "stream": draw(st.booleans()),
        "x": "x" * draw(st.sampled_from([0, 10, 20_000, 300_000, 600_000])),
    }
    body = json.dumps(members, ensure_ascii=draw(st.booleans())).encode()
    return Request(headers=[(b"Content-Type", b"application/json"), *draw(HEADER_LISTS)], body=body)


@st.composite
def behaviours(draw: st.DrawFn) -> Behaviour:
    """Most engines answer, in one of the many ways there are; some die of it."""
    kind = draw(st.sampled_from(["answer", "answer", "stream", "stream", "other stream", "nonsense", "nothing"]))
    if kind in ("nonsense", "nothing"):
        said = draw(st.sampled_from([[b"SSH-2.0\r\n\r\n"], [b"HTTP/1.1 200 OK\r\nx"]])) if kind == "nonsense" else []
        return Behaviour(said, draw(st.sampled_from(["well", "with a reset"])))
    status, payload, content_type = 200, [], b"application/json"
    match kind:
        case "answer":
            status = draw(st.sampled_from([200] * 5 + [201, 204, 299, 400, 404, 429, 500, 502, 503]))
            opening = draw(st.sampled_from([b"", b'"choices": [{"message": {"content": "said"}}], ']))
            usage = b"{" + opening + b'"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "x": "%b"}'
            payload = [usage % (b"x" * draw(st.sampled_from([0, 100, 30_000, 256 * 1024, 600_000])))]
        case "stream":
            content_type = draw(st.sampled_from([b"text/event-stream", b"Text/Event-Stream; charset=utf-8"]))
            payload = draw(st.lists(st.sampled_from(EVENTS), max_size=8))
        case _:
            content_type = b"audio/mpeg"
            payload = draw(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
    headers = [(b"Content-Type", content_type), *draw(HEADER_LISTS), *draw(CONNECTIONS)]
    way = draw(st.sampled_from(["length", "chunked", "chunked", "until close"]))
    if status == 204:
        payload, way = [], "until close"
    if way == "length":
        headers.append((b"Content-Length", b"%d" % sum(map(len, payload))))
    elif way == "chunked":
        headers.append((b"Transfer-Encoding", b"chunked"))
        payload = [b"%x\r\n%b\r\n" % (len(part), part) for part in payload] + [b"0\r\n\r\n"]
    before = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"]))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = before + b"HTTP/1.1 %d Whatever\r\n%b\r\n" % (status, lines)
    if draw(st.booleans()):
        payload = [b"".join(payload)]
    parts = [head + b"".join(payload[:1]), *payload[1:]] if draw(st.booleans()) else [head, *payload]
    if draw(st.integers(0, 3)):
        return Behaviour(parts)
    keep = draw(st.integers(1, len(parts)))
    cut = parts[keep - 1]
    parts = [*parts[: keep - 1], cut[: draw(st.integers(1, max(1, len(cut))))]]
    # Of much that was said before a reset, it is chance how much arrives.
    return Behaviour(
        parts, draw(st.sampled_from(["well", "with a reset"])) if len(b"".join(parts)) < 10_000 else "well"
    )


EVENTS = (
    *(
        b"data: 1\n\n",
        b"data: 2\n\n",
        b'data: {"x": "y"}\r\n\r\n',
        b"data: half",
        b"\n\n",
        b"data: [DONE]\n\n",
        b": ping\n\n",
    ),
    *(b'data: {"error": {"message": "dead"}}\n\n', b"data: " + b"x" * 5_000 + b"\n\n"),
    b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}}\n\n',
    b'data: {"choices": [{"delta": {"content": "said"}}]}\n\n',
)


@pytest.fixture(autouse=True, scope="module")
def without_waiting() -> object:
    """Nothing becomes of engines that fail here, so they need not be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stoker.gateway.retrying.FOUND_FAILING_SECONDS", 0.001)
        patch.setattr("stoker.gateway.retrying.SEEN_GONE_SECONDS", 0.001)
        yield


async def hold_to_each_other(request: Request, behaviours: Sequence[Behaviour]) -> None:
    async with worlds(behaviours) as (made, archives, engines):
        for _ in range(2):  # a head that is known is not read again
            express, portable, hypercorn = [
                await outcome(world, archive, engines, request) for world, archive in zip(made, archives, strict=True)
            ]
            assert express == hypercorn
            assert express.whoever_parsed() == portable.whoever_parsed()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(requests(), st.tuples(behaviours(), behaviours()))
async def test_the_lanes_agree(request: Request, behaviours: Sequence[Behaviour]) -> None:
    await hold_to_each_other(request, behaviours)


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(requests_in_sessions(), st.tuples(behaviours(), behaviours()))
async def test_the_lanes_agree_in_conversations(request: Request, behaviours: Sequence[Behaviour]) -> None:
    await hold_to_each_other(request, behaviours)

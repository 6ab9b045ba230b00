"""HTTP/2 that means harm, against a running Stoker: it lives, and serves others meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from hyperframe.frame import Frame

from tests.e2e.running import until

from .fleet import question
from .http2 import (
    ENHANCE_YOUR_CALM,
    Http2,
    continuation,
    data,
    headers,
    ping,
    priority,
    request,
    reset,
    settings,
    window,
)
from .stoker_up import Stoker, count

BODY = json.dumps(question(max_tokens=2)).encode()
STREAM = json.dumps(question(max_tokens=1_000_000, stream=True)).encode()


@pytest.fixture(autouse=True)
def _unharmed(stoker: Stoker) -> Iterator[None]:
    """After each of these, others are served, nothing was logged as a failure, and nothing is held."""
    before, said = stoker.footprint(), len(stoker.said)
    yield
    stoker.serves()
    stoker.has_let_go(before)
    assert "a connection failed" not in stoker.said[said:]
    assert stoker.footprint().rss_bytes < before.rss_bytes + 30_000_000


@pytest.mark.parametrize(
    "fields",
    {
        "a path that is not ASCII": request((b":path", b"/v1/\xc3\xa9")),
        "a path with a space": request((b":path", b"/v1/a b")),
        "a path that is no path": request((b":path", b"v1")),
        "a method that is not ASCII": request((b":method", b"P\xd6ST")),
        "a method nobody knows": request((b":method", b"BREW")),
        "CONNECT without a path": request((b":method", b"CONNECT"), (b":path", None), (b":scheme", None)),
        "CONNECT for a websocket": request((b":method", b"CONNECT"), (b":protocol", b"websocket")),
        "a length that is no number": request((b"content-length", b"+5")),
        "a length of a thousand digits": request((b"content-length", b"1" * 1000)),
        "a host and another authority": request((b"host", b"elsewhere")),
        "300 headers": [*request(), *((b"x-%d" % number, b"y") for number in range(300))],
        "a transfer coding": request((b"transfer-encoding", b"chunked")),
        "a value with a line end": request((b"x", b"a\r\nhost: b")),
        "a name in upper case": request((b"X-Y", b"z")),
        "an empty name": request((b"", b"z")),
        "no method": request((b":method", None)),
        "headers of 100 KB": [*request(), *((b"x-%d" % number, b"y" * 1000) for number in range(100))],
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_request_that_is_none_is_refused(stoker: Stoker, fields: tuple[str, list[tuple[bytes, bytes]]]) -> None:
    """Hypercorn ended the process at the first few."""
    with Http2.connect(stoker) as client:
        frame = headers(1, fields[1])
        if len(frame.data) > 16_000:
            pieces = [frame.data[at : at + 16_000] for at in range(0, len(frame.data), 16_000)]
            frame.data, frame.flags = pieces[0], type(frame.flags)(frame.defined_flags)
            rest = [continuation(1, piece) for piece in pieces[1:]]
            rest[-1].flags.add("END_HEADERS")
            client.send(frame, *rest, data(1, BODY, "END_STREAM"))
        else:
            client.send(frame, data(1, BODY, "END_STREAM"))
        try:
            assert client.status(1) in (400, 403, -1), "refused, or reset for a protocol error"
        except AssertionError as closed:
            assert "closed without" in str(closed)  # noqa: PT017 - as good as a refusal


def test_a_body_that_goes_on_after_its_answer_ends_only_its_stream(stoker: Stoker) -> None:
    """Hypercorn ended the process."""
    with Http2.connect(stoker) as client:
        client.send(headers(1, request((b":path", b"/nowhere"))))
        assert client.status(1) == 404
        client.send(*(data(1, b"x" * 1000) for _ in range(10)))
        client.send(headers(3, request()), data(3, BODY, "END_STREAM"))
        assert client.status(3) == 200


def rapid_reset() -> Iterator[Frame]:
    for number in range(1, 20_000, 2):
        yield headers(number, request())
        yield data(number, BODY, "END_STREAM")
        yield reset(number)


def reset_before_the_body() -> Iterator[Frame]:
    for number in range(1, 20_000, 2):
        yield headers(number, request())
        yield reset(number)


def made_to_reset() -> Iterator[Frame]:
    """Frames at which it is the server that resets."""
    for number in range(1, 20_000, 2):
        yield headers(number, request((b":method", b"BREW")), "END_STREAM")
        yield window(number, 1)


def unfinished_headers() -> Iterator[Frame]:
    block = headers(1, request())
    block.flags.discard("END_HEADERS")
    yield block
    for _ in range(20_000):
        yield continuation(1, b"")


def priorities() -> Iterator[Frame]:
    for number in range(1, 20_000, 2):
        yield priority(number)


def overflow() -> Iterator[Frame]:
    yield headers(1, request())
    for _ in range(3):
        yield window(1, 2**31 - 1)
        yield window(0, 2**31 - 1)


FLOODS: dict[str, Callable[[], Iterator[Frame]]] = {
    "rapid reset": rapid_reset,
    "reset before the body": reset_before_the_body,
    "made to reset": made_to_reset,
    "CONTINUATION without end": unfinished_headers,
    "PRIORITY": priorities,
    "SETTINGS": lambda: (settings(initial_window_size=number) for number in range(20_000)),
    "PING": lambda: (ping() for _ in range(20_000)),
    "empty DATA": lambda: iter([headers(1, request()), *(data(1, b"") for _ in range(20_000))]),
    "WINDOW_UPDATE": lambda: iter([headers(1, request()), *(window(1, 1) for _ in range(20_000))]),
    "more window than there may be": overflow,
    "frames of a sort nobody knows": lambda: (_unknown() for _ in range(20_000)),
}


def _unknown() -> Frame:
    frame = ping()
    frame.type = 0xBE
    return frame


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_ends_its_connection(stoker: Stoker, flood: Callable[[], Iterator[Frame]]) -> None:
    with Http2.connect(stoker) as client:
        sending = threading.Thread(target=client.send, args=tuple(flood()))
        sending.start()
        for _ in range(5):
            stoker.serves()
        code = client.end()
        sending.join()
    assert code in (None, 1, 2, 3, ENHANCE_YOUR_CALM)


def test_a_client_that_resets_now_and_then_stays(stoker: Stoker) -> None:
    with Http2.connect(stoker) as client:
        for number in range(1, 200, 2):
            client.send(headers(number, request()), data(number, BODY, "END_STREAM"))
            if number % 4 == 1:
                client.send(reset(number))
            else:
                assert client.status(number) == 200


def test_more_streams_than_there_may_be_are_refused(stoker: Stoker) -> None:
    with Http2.connect(stoker) as client:
        for number in range(1, 400, 2):
            client.send(headers(number, request()))
        client.end()


def test_a_window_that_stays_closed_costs_little_memory_and_its_stream_ends_with_its_client(stoker: Stoker) -> None:
    """Hypercorn kept all of the answer."""
    before = stoker.footprint()
    with Http2.connect(stoker, initial_window_size=0) as client:
        for number in range(1, 21, 2):
            client.send(headers(number, request()), data(number, STREAM, "END_STREAM"))
            assert client.status(number) == 200
        sent = stoker.engine_state()["generated_tokens"]
        for _ in range(count(100)):
            stoker.serves()
        assert stoker.footprint().rss_bytes < before.rss_bytes + 20_000_000
        until(lambda: stoker.engine_works() == 10, "the engine is held up and not done")
        assert stoker.engine_state()["generated_tokens"] >= sent


def test_a_hundred_megabytes_are_refused_before_they_came(stoker: Stoker) -> None:
    with Http2.connect(stoker) as client:
        client.send(headers(1, request((b"content-length", b"100000000"))), data(1, b"x" * 10_000))
        assert client.status(1) == 413
        client.send(headers(3, request()), data(3, BODY, "END_STREAM"))
        assert client.status(3) == 200


@pytest.mark.parametrize("kind", ["h2c", "websocket", "h2c, websocket"])
def test_what_follows_a_wish_for_an_upgrade_is_no_other_protocol(stoker: Stoker, kind: str) -> None:
    """A byte after it ended the process."""
    head = (
        f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {kind}\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    with stoker.connect() as sock:
        sock.sendall(head.encode() + b"x")
        received = sock.recv(65536)
        assert received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 403"))

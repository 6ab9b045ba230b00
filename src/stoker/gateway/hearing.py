"""Listens to an answer on its way to a client, so that it can be kept."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Awaitable, Callable, Iterator

from stoker.core.assembling import Assembly
from stoker.core.conversation import Message, answer_in
from stoker.gateway.headers import HeaderList, find
from stoker.gateway.sockets import Channel
from stoker.gateway.streaming import Sink

MOST_BYTES = 16 * 1024 * 1024
"""Of one answer that are kept; of a longer one no more than what came until then."""

_EMPTY: Message = {"role": "assistant", "content": ""}


class Events:
    """Reads the data of server-sent events, however their bytes are cut."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._line: list[str] = []
        self._data: list[str] = []

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """The data of every event that ends in ``data``, and of one that is not ended if it is the ``final`` one."""
        *ended, rest = (self._decoder.decode(data, final) + "\n\n" * final).split("\n")
        for line in ended:
            whole = "".join([*self._line, line])
            self._line.clear()
            if whole.startswith("data:"):
                self._data.append(whole[5:].removeprefix(" "))
            elif not whole and self._data:
                yield "\n".join(self._data)
                self._data.clear()
        if rest:
            self._line.append(rest)


class Hearing:
    """What was heard of an answer so far.

    ``over`` says that nothing of interest follows: it has ended, or the engine told of an error. ``whole`` says whether
    it ended as it should.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.whole = False
        self._assembly: Assembly | None = None
        self._events = Events()
        self._pieces: list[bytes] = []
        self._room = MOST_BYTES

    def begin(self, *, is_stream: bool) -> None:
        """An answer begins: a stream of events, or JSON."""
        self._assembly = Assembly() if is_stream else None

    def feed(self, data: bytes, *, is_end: bool = False) -> bool:
        """Some of the body, ``is_end``: the last of it, and its proper end. Says whether it is over."""
        self._room -= len(data)
        if self._room >= 0 and not self.is_over:
            if self._assembly is None:
                self._pieces.append(data)
            else:
                self._take_in(self._assembly, data, final=is_end)
        if is_end and not self.is_over:
            self.is_over, self.whole = True, self._room >= 0
        return self.is_over

    def _take_in(self, assembly: Assembly, data: bytes, *, final: bool) -> None:
        for event in self._events.feed(data, final=final):
            if event == "[DONE]":
                self.is_over = self.whole = True
                return
            assembly.add(_decoded(event))
            if assembly.failed:
                self.is_over = True
                return

    @property
    def message(self) -> Message | None:
        """What was said so far; None if it was nothing, or nothing that a chat says."""
        if self._assembly is None:
            return _fit(answer_in(_decoded(b"".join(self._pieces))))
        return _fit(self._assembly.message) or (_EMPTY if self.whole and self._assembly.spoke else None)


def heard_at_once(body: bytes) -> Hearing:
    """An answer that came whole."""
    hearing = Hearing()
    hearing.feed(body, is_end=True)
    return hearing


def _decoded(text: str | bytes) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _fit(message: Message | None) -> Message | None:
    """``message`` if it can be written again: not with a number that JSON does not have."""
    try:
        json.dumps(message, allow_nan=False)
    except ValueError:
        return None
    return message


class ListeningSink:
    """Passes an answer on to ``sink``, with ``headers`` besides its own, and has ``hearing`` hear it.

    ``over`` is awaited as soon as that is over, before the client is sent the end: whoever has read an answer can rely
    on its being kept.
    """

    channel: Channel | None = None  # what the hub relays nobody listens to

    def __init__(self, sink: Sink, headers: HeaderList, hearing: Hearing, over: Callable[[], Awaitable[None]]) -> None:
        self.started = False
        self._sink = sink
        self._headers = headers
        self._hearing = hearing
        self._over = over

    def frame(self, data: bytes) -> bytes:
        """See :class:`stoker.gateway.streaming.Sink`, here and below."""
        return self._sink.frame(data)

    async def answer(self, status: int, headers: HeaderList, body: bytes) -> None:
        """A whole answer; nobody listens to those, as whoever gives them has them."""
        await self._sink.answer(status, [*headers, *self._headers], body)

    async def start(self, status: int, headers: HeaderList, length: int | None) -> None:
        """The head. Of an error nothing is heard."""
        self.started = status < 300
        content_type = find(((name.lower(), value) for name, value in headers), b"content-type") or b""
        self._hearing.begin(is_stream=content_type[:17].lower() == b"text/event-stream")
        await self._sink.start(status, [*headers, *self._headers], length)

    async def send(self, data: bytes) -> None:
        """Some of the body."""
        await self._hear(data)
        await self._sink.send(data)

    async def finish(self, data: bytes = b"") -> None:
        """The last of the body, and its proper end."""
        await self._hear(data, is_end=True)
        await self._sink.finish(data)

    async def abort(self) -> None:
        """End without a proper end."""
        await self._sink.abort()

    def interrupt(self) -> None:
        """End what is being answered."""
        self._sink.interrupt()

    async def _hear(self, data: bytes, *, is_end: bool = False) -> None:
        if not self.started or self._hearing.is_over:
            return
        if self._hearing.feed(data, is_end=is_end):
            await self._over()

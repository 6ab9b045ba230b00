"""The hub, its channels and its flows: nothing is lost, nobody waits for nothing, and nobody hurts another."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from stoker.gateway.hub import Hub
from stoker.gateway.sockets import PIECE, SMALL, Channel

from .scripted import HANG_GUARD_SECONDS, until

MUCH = b"0123456789abcdef" * 1_000_000  # more than systems keep in sockets


@asynccontextmanager
async def hubbub() -> AsyncIterator[Hub]:
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        with trio.fail_after(HANG_GUARD_SECONDS):
            yield hub
        nursery.cancel_scope.cancel()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with hubbub() as hub:
        yield hub


@attrs.define(eq=False)
class Pairs:
    """Connected sockets: a channel of the hub, and its peer in the test's hands. All are closed in the end."""

    hub: Hub
    sockets: list[socket.socket] = attrs.field(factory=list)
    listener: socket.socket = attrs.field(factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def make(self) -> tuple[Channel, socket.socket]:
        peer = socket.create_connection(self.listener.getsockname())
        ours, _ = self.listener.accept()
        peer.setblocking(False)
        self.sockets += [peer, ours]
        return self.hub.watch(ours), peer

    def close(self) -> None:
        for sock in (*self.sockets, self.listener):
            sock.close()


@pytest.fixture
async def pairs(hub: Hub) -> AsyncIterator[Pairs]:
    pairs = Pairs(hub)
    try:
        yield pairs
    finally:
        pairs.close()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def read(peer: socket.socket, size: int) -> bytes:
    """Exactly that many bytes, or all up to the end."""
    received = b""
    while len(received) < size:
        try:
            data = peer.recv(1_000_000)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(peer)
        else:
            if not data:
                break
            received += data
    return received


async def parked(channel: Channel, nursery: trio.Nursery, heard: list[bytes]) -> trio.CancelScope:
    """A task that receives until the end."""
    scope = trio.CancelScope()

    async def receive() -> None:
        with scope:
            while data := await channel.receive():
                heard.append(data)
            heard.append(b"")

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    return scope


# Reading


async def test_what_is_there_is_received_and_what_is_not_is_waited_for(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    peer.send(b"one")
    assert await channel.receive() == b"one"
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await parked(channel, nursery, heard)
        for data in (b"two", b"three"):
            peer.send(data)
            await trio.testing.wait_all_tasks_blocked()
        peer.close()
    assert heard == [b"two", b"three", b""]
    assert channel.hung_up


async def test_everything_is_received_in_its_order(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    received = b""

    async def send() -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        await stream.send_all(MUCH)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await channel.receive():
            assert len(data) <= PIECE
            received += data
    assert received == MUCH
    assert await channel.receive() == b""


async def test_a_reset_is_an_oserror_after_what_came_before_it_was_read(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    peer.send(b"last words")
    assert await channel.receive() == b"last words"
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(OSError, match="reset"):
                await channel.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        reset(peer)


async def test_a_cancelled_reader_loses_nothing(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    async with trio.open_nursery() as nursery:
        scope = await parked(channel, nursery, [])
        scope.cancel()
    peer.send(b"for the next one")
    await trio.testing.wait_all_tasks_blocked()
    assert await channel.receive() == b"for the next one"


async def test_nothing_is_lost_when_a_reader_is_cancelled_in_the_moment_in_which_it_is_woken(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        scope = await parked(channel, nursery, heard)
        peer.send(b"in that moment")
        channel.readable = True
        channel.wake()
        scope.cancel()
    peer.send(b"later")
    assert heard == [b"in that moment"]
    assert await channel.receive() == b"later"


async def test_being_woken_for_nothing_is_no_end(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await parked(channel, nursery, heard)
        channel.readable = True
        channel.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        peer.close()
    assert heard == [b""]


async def test_a_descriptor_that_is_used_again_while_events_are_on_their_way_confuses_nobody(pairs: Pairs) -> None:
    """The event of a socket that was closed meanwhile reaches the one that has its number now, and wakes it in vain."""
    first, first_peer = pairs.make()
    second, second_peer = pairs.make()
    successors: list[tuple[Channel, socket.socket]] = []

    def close_both_and_watch_others() -> None:
        if not successors:
            numbers = {first.fd, second.fd}
            first.close()
            second.close()
            successors.extend(pairs.make() for _ in range(2))
            assert numbers & {channel.fd for channel, _ in successors}

    first.on_hang_up = second.on_hang_up = close_both_and_watch_others
    first_peer.shutdown(socket.SHUT_WR)
    second_peer.shutdown(socket.SHUT_WR)
    await until(lambda: successors)
    for channel, peer in successors:
        assert not channel.hung_up or channel.is_stale
        heard: list[bytes] = []
        async with trio.open_nursery() as nursery:
            await parked(channel, nursery, heard)
            assert heard == []
            peer.send(b"hello")
            await until(lambda: heard)  # noqa: B023
            peer.close()
        assert heard == [b"hello", b""]


async def test_a_closed_channel_is_watched_no_longer(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    channel.on_hang_up = pytest.fail
    channel.close()
    channel.close()
    assert peer.recv(1) == b""
    peer.close()
    other, other_peer = pairs.make()
    other_peer.send(b"x")
    assert await other.receive() == b"x"


async def test_a_channel_may_outlive_its_hub() -> None:
    async with hubbub() as hub:
        pairs = Pairs(hub)
        channel, _ = pairs.make()
    await channel.send_all(b"unsaid")
    channel.close()
    assert channel.socket.fileno() == -1
    pairs.close()


async def test_a_released_socket_has_sent_what_was_sent(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    await channel.send_all(b"before")
    sock = channel.release()
    assert peer.recv(100) == b"before"
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    peer.send(b"after")
    assert await stream.receive_some() == b"after"
    await stream.aclose()
    channel.close()


# Hanging up


@pytest.mark.parametrize("hang_up", [socket.socket.close, lambda peer: peer.shutdown(socket.SHUT_WR), reset])
@pytest.mark.parametrize("unread", [b"", b"unread", b"x" * 50_000], ids=len)
async def test_a_peer_that_hangs_up_is_noticed_though_nobody_reads(
    pairs: Pairs, hang_up: Callable[[socket.socket], None], unread: bytes
) -> None:
    channel, peer = pairs.make()
    notices: list[str] = []
    channel.on_hang_up = lambda: notices.append("gone")
    if unread:
        peer.send(unread)
    await trio.testing.wait_all_tasks_blocked()
    assert notices == []
    hang_up(peer)
    await until(lambda: notices)
    await trio.testing.wait_all_tasks_blocked()
    assert notices == ["gone"]
    assert channel.hung_up


async def test_who_reads_finds_out_by_reading(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    channel.on_hang_up = pytest.fail
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await parked(channel, nursery, heard)
        peer.send(b"bye")
        peer.close()
    assert heard == [b"bye", b""]


@pytest.mark.parametrize(
    ("what", "stale"),
    [
        (lambda peer: None, False),
        (lambda peer: peer.send(b"unasked"), True),
        (lambda peer: peer.shutdown(socket.SHUT_WR), True),
        (socket.socket.close, True),
        (reset, True),
    ],
    ids=["silent", "talks", "shuts down", "closes", "resets"],
)
@pytest.mark.parametrize("used", [False, True])
async def test_a_connection_is_stale_unless_it_is_silent(
    pairs: Pairs, what: Callable[[socket.socket], object], stale: bool, used: bool
) -> None:
    channel, peer = pairs.make()
    if used:
        peer.send(b"an answer")
        assert await channel.receive() == b"an answer"
    what(peer)
    await trio.testing.wait_all_tasks_blocked()
    assert channel.is_stale is stale
    assert channel.is_stale is stale
    if not stale:
        peer.send(b"x")
        assert await channel.receive() == b"x"


# Writing


async def test_what_is_sent_arrives_in_its_order_however_large_its_parts_are(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    parts = [b"small", b"x" * (SMALL + 1), b"s", b"y" * 3_000_000, b"t", b"z" * SMALL, b"end"]
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await read(peer, sum(map(len, parts)) + 2 * 3_000_003)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for part in parts:
            await channel.send_all(part)
        for _ in range(2):
            await channel.send_both(b"123", b"w" * 3_000_000)
        await channel.flush()
        assert channel.is_settled
    assert received == b"".join(parts) + 2 * (b"123" + b"w" * 3_000_000)


async def test_many_small_parts_reach_a_peer_that_reads_slowly(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    count = 1000

    async def send() -> None:
        for number in range(count):
            await channel.send_all(b"%05d" % number * 3000)
        await channel.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        received = await read(peer, 15_000 * count)
    assert received == b"".join(b"%05d" % number * 3000 for number in range(count))


async def test_who_reads_has_what_it_sent_written_first(pairs: Pairs) -> None:
    """A request must not wait in a buffer for the answer to it."""
    channel, peer = pairs.make()
    channel.write(MUCH)
    assert not channel.is_settled
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await parked(channel, nursery, heard)
        assert await read(peer, len(MUCH)) == MUCH
        peer.send(b"answer")
        peer.close()
    assert heard == [b"answer", b""]


async def test_a_close_writes_what_was_sent(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    await channel.send_all(b"bye")
    channel.close()
    assert peer.recv(100) == b"bye"


async def test_a_broken_connection_is_told_to_who_sends_and_to_who_reads(pairs: Pairs) -> None:
    channel, peer = pairs.make()
    peer.send(b"unread")
    reset(peer)
    await channel.send_all(b"into the void")
    await trio.testing.wait_all_tasks_blocked()
    assert channel.broken
    assert channel.is_stale
    assert not channel.is_settled
    for _ in range(2):
        for data in (b"more", b"x" * (SMALL + 1)):
            with pytest.raises(OSError, match="broken"):
                await channel.send_all(data)
        with pytest.raises(OSError, match="broken"):
            await channel.flush()


async def test_what_is_sent_to_a_broken_connection_at_once_is_waited_for_by_nobody(pairs: Pairs) -> None:
    """The second part was once kept, and tried again and again, as fast as could be."""
    channel, peer = pairs.make()
    reset(peer)
    for _ in range(3):
        await channel.send_all(b"into the void")
    with pytest.raises(OSError):  # noqa: PT011 - either one tells the truth
        await channel.receive()
    with pytest.raises(OSError, match="broken"):
        await channel.flush()


# Flows


class Copy:
    """A flow that relays as it comes, and ends with its source."""

    def __init__(self, source: Channel, client: Channel, take_in: Callable[[bytes], bytes] = bytes) -> None:
        self.source = source
        self.client = client
        self.error: BaseException | None = None
        self.over = False
        self.steps = 0
        self._work = take_in
        self._task: trio.lowlevel.Task | None = None

    async def run(self) -> None:
        """Returns when the source ends or the client is slow."""
        self.source.hub.let_flow(self)
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self.error is not None:
            raise self.error

    def take_in(self, data: bytes, now: float) -> bytes:
        self.steps += 1
        if not data:
            self.over = True
            self._end()
        return self._work(data)

    def held_up(self, rest: memoryview) -> None:
        self.client.hold(rest)
        self._end()

    def break_off(self, error: OSError) -> None:
        self.fail(error)

    def fail(self, error: Exception) -> None:
        self.error = error
        self._end()

    def _abort(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self.source.hub.end_flow(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def _end(self) -> None:
        assert self._task is not None
        self.source.hub.end_flow(self)
        trio.lowlevel.reschedule(self._task)


async def test_a_flow_relays_while_its_task_sleeps(pairs: Pairs) -> None:
    source, engine = pairs.make()
    client, reader = pairs.make()
    flow = Copy(source, client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.run)
        for data in (b"one", b"two", b"three"):
            engine.send(data)
            assert await read(reader, len(data)) == data
        engine.send(b"last")
        engine.close()
    assert await read(reader, 4) == b"last"
    assert flow.steps == 5


async def test_what_came_before_a_flow_begins_and_after_it_ended_is_not_lost(pairs: Pairs) -> None:
    source, engine = pairs.make()
    client, reader = pairs.make()
    for _ in range(3):
        engine.send(b"task")
        assert await source.receive() == b"task"
        engine.send(b"before")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Copy(source, client).run)
            assert await read(reader, 6) == b"before"
            nursery.cancel_scope.cancel()
        engine.send(b"after")
        assert await source.receive() == b"after"


async def test_a_defect_hurts_only_the_task_whose_flow_it_is(pairs: Pairs) -> None:
    def fail(data: bytes) -> bytes:
        raise ZeroDivisionError

    source, engine = pairs.make()
    client, reader = pairs.make()
    other_source, other_engine = pairs.make()

    async def run(flow: Copy) -> None:
        with pytest.raises(ZeroDivisionError):
            await flow.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Copy(source, client).run)
        nursery.start_soon(run, Copy(other_source, client, fail))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):  # in one turn
            engine.send(b"good")
            other_engine.send(b"bad")
        assert await read(reader, 8) == b"goodgood"
        engine.close()


async def test_a_source_that_breaks_is_told_to_its_flow(pairs: Pairs) -> None:
    source, engine = pairs.make()
    client, _ = pairs.make()
    async with trio.open_nursery() as nursery:
        flow = Copy(source, client)

        async def run() -> None:
            with pytest.raises(ConnectionResetError):
                await flow.run()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        reset(engine)


async def test_a_client_that_is_slow_gets_its_task_back(pairs: Pairs) -> None:
    source, engine = pairs.make()
    client, reader = pairs.make()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(engine))
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await read(reader, len(MUCH))

    async def send() -> None:
        await stream.send_all(MUCH)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        flow = Copy(source, client)
        await flow.run()
        assert not client.is_settled
        assert not flow.over
        nursery.start_soon(receive)
        while not flow.over:
            await client.flush()
            await flow.run()
    assert received == MUCH


async def test_a_flow_that_never_runs_dry_starves_nobody(pairs: Pairs) -> None:
    """Neither other flows, nor tasks that read, nor the rest of the program."""
    source, engine = pairs.make()
    client, _ = pairs.make()
    quiet_source, quiet_engine = pairs.make()
    quiet_client, quiet_reader = pairs.make()
    channel, peer = pairs.make()
    engine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE)

    def pour(data: bytes = b"") -> bytes:
        try:
            while True:
                engine.send(MUCH[: 4 * PIECE])
        except BlockingIOError:
            return b""

    pour()
    torrent = Copy(source, client, pour)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(torrent.run)
        nursery.start_soon(Copy(quiet_source, quiet_client).run)
        for _ in range(20):
            steps = torrent.steps
            quiet_engine.send(b"flow")
            assert await read(quiet_reader, 4) == b"flow"
            peer.send(b"task")
            assert await channel.receive() == b"task"
            assert torrent.steps - steps < 100
        nursery.cancel_scope.cancel()
    assert torrent.steps > 20

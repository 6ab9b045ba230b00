"""Who may connect when there are many."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs
import pytest
import trio

from stoker.web.crowd import CROWDED, Crowd, Reserve, is_loopback, make_room, turn_away


@attrs.define
class Connected:
    """A connection that is at something."""

    deadline: float = 0.0
    is_idle: bool = False
    is_arriving: bool = False
    stays: bool = False

    def make_way(self) -> bool:
        return not self.stays

    def close_if_idle(self) -> None:
        raise NotImplementedError

    def keep_time(self, now: float) -> None:
        raise NotImplementedError


def test_the_idle_make_room_first_then_those_who_arrive_slowly_and_nobody_else() -> None:
    guests = {
        "busy": Connected(1),
        "slow": Connected(2, is_arriving=True),
        "slower": Connected(1, is_arriving=True),
        "idle": Connected(9, is_idle=True),
        "idle for long": Connected(8, is_idle=True),
        "about to be read": Connected(1, is_idle=True, stays=True),
    }
    gone: list[str] = []
    while True:
        before = set(guests)
        if not make_room(guests, 1):
            break
        gone += before - set(guests)
    assert gone == ["idle for long", "idle", "slower", "slow"]
    assert list(guests) == ["busy", "about to be read"]


def test_no_more_make_room_than_are_told_to() -> None:
    guests = {number: Connected(number, is_idle=True) for number in range(5)}
    assert make_room(guests, 3)
    assert list(guests) == [3, 4]


def test_each_address_has_so_many() -> None:
    crowd = Crowd(2)
    first, second = crowd.enter("192.0.2.1"), crowd.enter("192.0.2.1")
    assert first
    assert second
    assert crowd.enter("192.0.2.1") is None
    assert crowd.enter("192.0.2.2")
    crowd.leave(first)
    assert crowd.enter("192.0.2.1")


def test_who_has_a_whole_network_is_counted_once() -> None:
    crowd = Crowd(1)
    assert crowd.enter("2001:db8::1")
    assert crowd.enter("2001:db8::ffff") is None
    assert crowd.enter("2001:db8:0:1::1")
    assert crowd.enter("::ffff:192.0.2.1")
    assert crowd.enter("192.0.2.1") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", ""])
def test_this_machine_is_not_counted(address: str) -> None:
    crowd = Crowd(1)
    assert is_loopback(address)
    assert [crowd.enter(address) for _ in range(3)] == [""] * 3
    crowd.leave("")


@pytest.mark.parametrize("address", ["192.0.2.1", "fe80::1%eth0", "::ffff:192.0.2.1"])
def test_others_are_not_this_machine(address: str) -> None:
    assert not is_loopback(address)


async def test_who_is_turned_away_reads_why_though_it_goes_on_sending() -> None:
    ours, theirs = socket.socketpair()
    client = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(turn_away, ours, CROWDED)
        answer = bytes(await client.receive_some())
        await client.send_all(b"POST / HTTP/1.1\r\n\r\n")
        assert await client.receive_some() == b""
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"retry-after: " in answer
    assert b"connections_per_address" in answer


def test_a_reserve_lends_descriptors_and_takes_them_back() -> None:
    open_ones = Path("/dev/fd")
    before = len(list(open_ones.iterdir()))
    reserve = Reserve(3)
    reserve.lend()
    assert len(list(open_ones.iterdir())) == before + 2
    reserve.fill()
    assert len(list(open_ones.iterdir())) == before + 3
    reserve.close()
    reserve.lend()
    assert len(list(open_ones.iterdir())) == before

"""Answers without an end: events and logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from tests.web.conftest import BEARER, World, error_of, events_of

from stoker.model import EngineSpec
from stoker.supervise.changes import SUBSCRIBER_BACKLOG


class Listening:
    """A stream that is read up to what a test waits for."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""
        self.head = ""

    @property
    def text(self) -> str:
        """Everything that was read of the body."""
        return self._received.decode()

    async def begin(self) -> None:
        """Read the head."""
        while b"\r\n\r\n" not in self._received:
            self._received += await self._stream.receive_some()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.head = head.decode()

    async def until(self, words: str) -> str:
        """Read until ``words`` have come; everything so far."""
        with trio.fail_after(10):
            while words not in self.text:
                self._received += await self._stream.receive_some()
        return self.text

    async def rest(self) -> str:
        """Read to the end."""
        with trio.fail_after(10):
            while chunk := await self._stream.receive_some():
                self._received += chunk
        return self.text


@asynccontextmanager
async def listening(world: World, path: str = "/events", key: Mapping[str, str] = BEARER) -> AsyncIterator[Listening]:
    """Ask as a client of HTTP/1.0 does, so that the body comes without framing."""
    async with await trio.open_tcp_stream("127.0.0.1", world.port) as stream:
        head = f"GET /v1/management{path} HTTP/1.0\r\nAuthorization: {key['Authorization']}\r\n\r\n"
        await stream.send_all(head.encode())
        listener = Listening(stream)
        with trio.fail_after(10):
            await listener.begin()
        yield listener


def subscribers(world: World) -> int:
    return len(world.supervisor._bulletin._subscribers)


async def test_a_listener_sees_all_engines_and_then_every_change(world: World) -> None:
    await world.start("a")
    async with listening(world) as stream:
        assert "content-type: text/event-stream; charset=utf-8\r\n" in stream.head.lower()
        ((name, snapshot),) = events_of(await stream.until("\n\n"))
        assert name == "snapshot"
        assert snapshot["engines"] == (await world.api.get("/engines")).json()["data"]
        await world.start("b")
        world.supervisor.stop("b", forget=True)
        world.supervisor.is_stopped("b")
        events = events_of(await stream.until('"after": null'))[1:]
    assert {name for name, _ in events} == {"engine"}
    states = [(event["before"], event["after"]) for _, event in events]
    changes = [pair for pair in states if pair[0] != pair[1]]
    assert changes == [(None, "STARTING"), ("STARTING", "READY"), ("READY", "DRAINING"), ("DRAINING", None)]
    assert {event["engine"]["engine_id"] for _, event in events} == {"b"}
    assert events[0][1]["engine"]["state"] == "STARTING"


async def test_every_engine_is_told_once_whenever_a_listener_comes(world: World) -> None:
    """Between the snapshot and the first event nothing is lost and nothing told twice."""
    for number in range(5):
        await world.start(f"e{number}")
        async with listening(world) as stream:
            world.supervisor.stop(f"e{number}", drain_timeout_seconds=0)
            ((_, snapshot), *events) = events_of(await stream.until('"state": "DRAINING"'))
        in_snapshot = [engine for engine in snapshot["engines"] if engine["state"] == "DRAINING"]
        assert len(in_snapshot) + len(events) == 1
        world.supervisor.is_stopped(f"e{number}")


async def test_a_quiet_stream_says_that_it_is_still_there(world: World) -> None:
    async with listening(world) as stream:
        text = await stream.until(": still here\n\n: still here\n\n")
        assert len(events_of(text)) == 1


async def test_a_listener_that_goes_is_forgotten(world: World) -> None:
    async with listening(world) as stream:
        await stream.until("\n\n")
        assert subscribers(world) == 1
    with trio.fail_after(10):
        while subscribers(world):
            await trio.lowlevel.checkpoint()


async def test_a_listener_that_misses_changes_is_ended_and_not_told_half(world: World) -> None:
    await world.start("a")
    async with listening(world) as stream:
        await stream.until("\n\n")
        for _ in range(SUBSCRIBER_BACKLOG):  # without a checkpoint, so that nothing is read meanwhile
            world.supervisor.crashes("a")
            world.supervisor.stop("a", forget=True)
            world.supervisor.is_stopped("a")
            world.supervisor.start(EngineSpec(model="m"), "a")
            world.supervisor.becomes_ready("a")
        events = events_of(await stream.rest())
        # One more than the backlog, if the reader was waiting when the first change came.
        assert len(events) - 1 in (SUBSCRIBER_BACKLOG, SUBSCRIBER_BACKLOG + 1)
    async with listening(world) as stream:
        ((name, _),) = events_of(await stream.until("\n\n"))
        assert name == "snapshot"


@pytest.mark.parametrize("path", ["/events", "/engines/a/logs?follow=1"])
async def test_streams_end_whole_when_the_program_does(world: World, path: str) -> None:
    await world.start("a")
    write(world, "a", "one\n")
    async with listening(world, path) as stream:
        await stream.until("\n")
        world.app.end_streams()
        await stream.rest()
    with trio.fail_after(10):  # and one that comes late ends by itself
        assert (await world.api.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/events", "/engines/a/logs?follow=1"])
async def test_head_of_a_stream_ends(world: World, path: str) -> None:
    await world.start("a")
    with trio.fail_after(10):
        answer = await world.api.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


# Logs


def write(world: World, engine_id: str, text: str | bytes) -> None:
    log = world.supervisor.crew.log_of(engine_id)
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


async def test_a_log_is_plain_text(world: World) -> None:
    await world.start("a")
    assert (await world.api.get("/engines/a/logs")).text == ""
    write(world, "a", "one\nzwei µ\n<b>three</b>\n")
    answer = await world.api.get("/engines/a/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == "one\nzwei µ\n<b>three</b>\n"
    assert (await world.api.get("/engines/a/logs?tail=1")).text == "<b>three</b>\n"
    assert (await world.api.get("/engines/a/logs?tail=0")).text == ""


async def test_a_log_may_hold_any_bytes(world: World) -> None:
    await world.start("a")
    write(world, "a", b"\xff\0\x1b[31m\xed\xa0\x80\n")
    assert (await world.api.get("/engines/a/logs")).status_code == 200


async def test_a_log_is_followed_for_as_long_as_somebody_listens(world: World) -> None:
    await world.start("a")
    write(world, "a", "one\ntwo\n")
    async with listening(world, "/engines/a/logs?follow=1&tail=1") as stream:
        assert await stream.until("two\n") == "two\n"
        write(world, "a", "three\n")
        assert await stream.until("three\n") == "two\nthree\n"
    assert (await world.anyone.get("/health")).status_code == 200


async def test_the_log_of_an_engine_that_is_not_there_is_not_followed(world: World) -> None:
    answer = await world.api.get("/engines/a/logs?follow=1")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "not_found"


async def test_a_key_for_some_models_knows_of_their_engines_alone(world: World) -> None:
    """It was told of all engines, and where they are, though it could ask for none but its own."""
    key = await world.key(models=["mine", "mine-too"])
    await world.start("mine")
    await world.start("other")
    listed = (await world.anyone.get("/v1/management/backends", headers=key)).json()["data"]
    assert [each["engine_id"] for each in listed] == ["mine"]
    async with listening(world, key=key) as events:
        await events.until("\n\n")
        await world.start("another")
        await world.start("mine-too")
        told = events_of(await events.until('"mine-too"'))
        assert [each["engine_id"] for each in told[0][1]["engines"]] == ["mine"]
        assert "other" not in events.text

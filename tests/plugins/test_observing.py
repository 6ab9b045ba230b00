"""Observers are told everything, in order, by threads of their own; what they do with it costs nobody else anything."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import attrs
import pytest
import trio

from stoker.model import RequestRecord
from stoker.observing import MOST_QUEUED, Listener, Observers
from stoker.testing.records import request_record

SECONDS = 20.0


@attrs.define(eq=False)
class Played:
    """An observer that does what the test says, and remembers what it was told."""

    plugin: str = "played"
    act: Callable[[], object] = lambda: None
    told: list[dict[str, object]] = attrs.field(factory=list)
    threads: set[str] = attrs.field(factory=set)

    def __call__(self, **arguments: object) -> None:
        self.told.append(arguments)
        self.threads.add(threading.current_thread().name)
        self.act()


def record(request_id: str) -> RequestRecord:
    return request_record(request_id=request_id)


async def test_everything_is_told_in_order_before_the_end() -> None:
    observer = Played()
    observers = Observers(requests=[observer])
    async with observers.told(SECONDS):
        for number in range(100):
            observers.request_finished(record(str(number)))
    assert [told["record"] for told in observer.told] == [record(str(number)) for number in range(100)]


async def test_one_plugin_hears_of_all_its_hooks_on_one_thread_and_another_on_another() -> None:
    engines, requests, other = Played("one"), Played("one"), Played("two")
    observers = Observers(engines=[engines], requests=[requests, other])
    async with observers.told(SECONDS):
        observers.engine_changed(None, None)
        observers.request_finished(record("1"))
    assert engines.told == [{"before": None, "after": None}]
    assert engines.threads == requests.threads == {"observer one"}
    assert other.threads == {"observer two"}


async def test_without_observers_there_is_no_thread() -> None:
    before = threading.active_count()
    async with Observers().told(SECONDS):
        assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("no such luck"), SystemExit(1)], ids=["an error", "an exit"])
async def test_what_it_raises_is_logged_once_and_counted(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    observer = Played(act=fail)
    observers = Observers(requests=[observer])
    async with observers.told(SECONDS):
        observers.request_finished(record("1"))
        observers.request_finished(record("2"))
    assert len(observer.told) == 2
    assert observers.listeners[0].failures == 2
    [said] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "'played'" in said.getMessage()


async def test_one_that_is_too_slow_misses_the_latest_and_holds_up_nobody() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(SECONDS)

    slow, quick = Played("slow", act=wait), Played("quick")
    observers = Observers(requests=[slow, quick])
    async with observers.told(SECONDS):
        observers.request_finished(record("first"))
        await trio.to_thread.run_sync(begun.wait)
        for number in range(MOST_QUEUED + 3):
            observers._listeners["slow"].tell(slow, record=record(str(number)))
        observers.request_finished(record("last"))
        go_on.set()
    assert len(slow.told) == 1 + MOST_QUEUED
    assert {each.plugin: each.dropped for each in observers.listeners} == {"slow": 4, "quick": 0}
    assert quick.told[-1] == {"record": record("last")}


async def test_the_end_is_told_last_and_also_where_nothing_more_fits_into_the_queue() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(SECONDS)

    slow, ending, other = Played("slow", act=wait), Played("slow"), Played("other")
    observers = Observers(requests=[slow], endings=[ending, other])
    async with observers.told(SECONDS):
        observers.request_finished(record("first"))
        await trio.to_thread.run_sync(begun.wait)
        for number in range(MOST_QUEUED + 1):
            observers.request_finished(record(str(number)))
        assert ending.told == other.told == []
        go_on.set()
    assert len(slow.told) == 1 + MOST_QUEUED
    assert ending.told == other.told == [{}]
    assert ending.threads == slow.threads


async def test_one_that_hangs_does_not_keep_stoker_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    begun, for_ever = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        for_ever.wait()

    observers = Observers(requests=[Played("hanging", act=hang)])
    async with observers.told(patience_seconds=0.01):
        observers.request_finished(record("1"))
        await trio.to_thread.run_sync(begun.wait)
    assert "'hanging' still observes" in caplog.text
    for_ever.set()
    assert observers.listeners[0].join(SECONDS)


async def test_they_are_told_what_is_queued_also_when_everything_is_cancelled() -> None:
    observer = Played()
    observers = Observers(requests=[observer])
    with trio.CancelScope() as scope:
        async with observers.told(SECONDS):
            scope.cancel()
            observers.request_finished(record("1"))
            await trio.lowlevel.checkpoint()
    assert len(observer.told) == 1


def test_a_full_queue_is_told_to_its_end() -> None:
    observer = Played()
    listener = Listener("played", most_queued=2)
    listener.tell(observer, number=1)
    listener.tell(observer, number=2)
    listener.close()
    listener.start()
    assert listener.join(SECONDS)
    assert observer.told == [{"number": 1}, {"number": 2}]

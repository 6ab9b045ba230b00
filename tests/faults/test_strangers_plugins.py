"""Plugins that do what they should not: each costs its own choice, or its own news, and no request."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests import loopback
from tests.e2e.running import HANG_GUARD_SECONDS, until

from .fleet import question
from .stoker_up import Stoker, configuration, post, running

PLUGIN = '''
"""A policy that fails in another way each time, and observers that never come back."""

import threading
from types import SimpleNamespace

from stoker.hookspecs import hookimpl


class Mischief:
    name = "mischief"
    needs = frozenset()

    def __init__(self):
        self.turn = 0

    def choose(self, request, candidates, now):
        self.turn += 1
        match self.turn % 6:
            case 0:
                raise RuntimeError("no")
            case 1:
                return None
            case 2:
                return SimpleNamespace(engine_id="nobody", in_flight=0)
            case 3:
                raise SystemExit(3)
            case 4:
                return 7
        return min(candidates, key=lambda candidate: candidate.nothing)

    def opened(self, request, candidate):
        raise KeyError(candidate)

    def closed(self, request, candidate):
        raise MemoryError


@hookimpl
def stoker_register_policies():
    return [Mischief()]


@hookimpl
def stoker_request_finished(record):
    threading.Event().wait()


@hookimpl
def stoker_engine_changed(before, after):
    raise SystemExit(4)
'''
QUEUED = 1024


@pytest.fixture(scope="module")
def stoker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoker]:
    folder = tmp_path_factory.mktemp("mischief")
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    module = plugins / "stoker_mischief.py"
    module.write_text(PLUGIN)
    module.chmod(0o644)
    toml = configuration(gateway='policy = "mischief"', replicas=2)
    with running(folder, toml, "--plugin-path", str(plugins), ready=2) as stoker:
        yield stoker


def measured(stoker: Stoker, name: str) -> float:
    """The sum of a metric over its labels."""
    text = loopback.get(f"{stoker.url}/metrics", timeout=HANG_GUARD_SECONDS).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def test_each_request_is_answered_whatever_the_policy_does(stoker: Stoker) -> None:
    before = stoker.footprint()
    for _ in range(24):
        stoker.serves()
    assert measured(stoker, "stoker_policy_failures_total") >= 24
    assert stoker.said.count("mischief") < 10, "it is complained of once, and counted"
    stoker.has_let_go(before)


def test_an_observer_that_hangs_misses_what_its_queue_cannot_hold(stoker: Stoker) -> None:
    more = 200
    with stoker.connect() as sock:
        for _ in range(QUEUED + more):
            sock.sendall(post(question(max_tokens=1)))
            received = b""
            while b'"usage"' not in received:
                received += sock.recv(65536)
    assert measured(stoker, "stoker_observer_dropped_total") >= more - 2
    stoker.serves()


def test_nor_does_it_hold_up_the_stop(stoker: Stoker) -> None:
    began = time.monotonic()
    stoker.process.send_signal(signal.SIGTERM)
    until(lambda: stoker.process.poll() is not None, "it stops")
    assert stoker.process.wait() == 0
    assert time.monotonic() - began < 15

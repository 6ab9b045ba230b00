"""What one Stoker leaves to the next: a lock, a socket, and nothing that is not so."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.errors import ConflictError, StokerError
from stoker.handing_over import VARIABLE, Inheritance, Successor
from stoker.supervise import lock


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def handed(listener: int, locked: int = 0) -> dict[str, str]:
    return {VARIABLE: json.dumps({"listener": listener, "lock": locked})}


def test_it_is_told_once(listener: socket.socket) -> None:
    environ = handed(listener.fileno(), 5)
    assert Inheritance.take(environ) == Inheritance(listener.fileno(), 5)
    assert Inheritance.take(environ) == Inheritance()
    assert Inheritance.take({VARIABLE: "nonsense"}) == Inheritance()
    assert Inheritance.take({VARIABLE: '{"listener": []}'}) == Inheritance()


def test_a_socket_at_the_wanted_address_is_gone_on_with(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for wanted in (port, 0):
        inherited = Inheritance(os.dup(listener.fileno())).listener_at("127.0.0.1", wanted)
        assert inherited is not None
        assert inherited.getsockname() == listener.getsockname()
        assert not inherited.get_inheritable()
        inherited.close()


def test_any_other_is_closed(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for host, wanted in (("127.0.0.2", port), ("127.0.0.1", port % 65535 + 1)):
        descriptor = os.dup(listener.fileno())
        assert Inheritance(descriptor).listener_at(host, wanted) is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert Inheritance(2**20).listener_at("127.0.0.1", port) is None
    assert Inheritance().listener_at("127.0.0.1", port) is None


def test_the_lock_goes_on_being_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold(path) as first:
        copy = os.dup(first)
        with lock.hold(path, copy) as second:
            assert second == copy
            with pytest.raises(ConflictError, match="another Stoker"), lock.hold(path):
                pass


def test_what_is_no_lock_of_this_home_is_not_taken_for_it(tmp_path: Path) -> None:
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    try:
        with lock.hold(tmp_path / "lock", other) as mine:
            assert mine != other
        with lock.hold(tmp_path / "lock", 2**20):
            pass
    finally:
        os.close(other)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            [sys.executable, "-c", "import sys; sys.exit('a mistake')"],
            "would not start, and so the old one stays: a mistake",
        ),
        (["/no/such/python"], "does not run, and so the old one stays"),
    ],
)
def test_a_successor_that_would_not_start_is_found_out(command: list[str], said: str) -> None:
    with pytest.raises(StokerError, match=said):
        Successor(command, ()).check(None)


def test_one_that_would_is_not_complained_of() -> None:
    Successor([sys.executable], ()).check(None)

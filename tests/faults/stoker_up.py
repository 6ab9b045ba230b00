"""A Stoker that harm is done to: how a client of any sort connects, and what it must have given back afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from stoker.testing.engines import fake_engine_env
from tests.e2e.running import HANG_GUARD_SECONDS, Program, until

from .fleet import CHAT, FAKE, ask, descriptors, fake_state, resident_bytes, up

FULL = bool(os.environ.get("STOKER_SOAK"))


def count(full: int) -> int:
    """How often to do what is to be done ``full`` times: a tenth, unless STOKER_SOAK asks for all of it."""
    return full if FULL else full // 10


def post(body: bytes | object, path: str = CHAT, *headers: str) -> bytes:
    """A POST as it stands on the wire, with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@attrs.frozen
class Footprint:
    """What a process holds."""

    descriptors: int  # but those of connections to engines, which are kept
    rss_bytes: int
    in_flight: int
    waiting: int


class Stoker(Program):
    """One that runs."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    @property
    def said(self) -> str:
        return self.output.read_text()

    def connect(self, **options: Any) -> socket.socket:
        """A connection to it; reads and writes fail when they take too long."""
        sock = socket.create_connection(self.address, HANG_GUARD_SECONDS)
        if "receive_buffer" in options:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        return sock

    def serves(self) -> None:
        """Fail unless it lives and answers an innocent client."""
        assert self.process.poll() is None, self.said
        answer = ask(self, max_tokens=2)
        assert answer.status_code == 200, answer.text

    def engine_state(self) -> Mapping[str, Any]:
        """What its first engine says of itself."""
        return fake_state(self.engines()[0])

    def engine_works(self) -> int:
        """How many requests the engine is at."""
        return int(self.engine_state()["active"])

    def footprint(self) -> Footprint:
        queue = self.manage("GET", "/status").json()["queue"]
        return Footprint(
            descriptors=descriptors(self.process.pid) - self._connections_to_engines(),
            rss_bytes=resident_bytes(self.process.pid),
            in_flight=queue["in_flight"],
            waiting=queue["waiting"],
        )

    def _connections_to_engines(self) -> int:
        proc = Path(f"/proc/{self.process.pid}")
        ports = {int(engine["port"]) for engine in self.engines()}
        held = set()
        for entry in (proc / "fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(str(entry.readlink()))
        lines = [line.split() for line in (proc / "net" / "tcp").read_text().splitlines()[1:]]
        return sum(int(line[2][-4:], 16) in ports and f"socket:[{line[9]}]" in held for line in lines)

    def has_let_go(self, before: Footprint) -> None:
        """Wait until everything that was taken since is given back: leases, descriptors, places in the queue."""

        def same() -> bool:
            now = self.footprint()
            return (now.in_flight, now.waiting) == (0, 0) and now.descriptors <= before.descriptors + 2

        until(same, f"all is given back; it was {before}")
        assert all(engine["active_requests"] == 0 for engine in self.engines())


def configuration(*faults: str, gateway: str = "", engine: str = "", replicas: int = 1) -> str:
    """A ``stoker.toml`` with fake engines. ``gateway`` and ``engine`` are further lines of those tables."""
    return f"""
[gateway]
listen = "127.0.0.1:0"
{gateway}
[[engine]]
model = "fake"
runtime = "command"
replicas = {replicas}
command = {json.dumps([*FAKE, *faults])}
env = {{ PYTHONPATH = {json.dumps(fake_engine_env()["PYTHONPATH"])} }}
stop_grace_seconds = 1
{engine}
"""


@contextlib.contextmanager
def running(folder: Path, toml: str, *arguments: str, ready: int = 1) -> Iterator[Stoker]:
    """``stoker up`` with this configuration; so many engines are READY."""
    with up(folder, toml, *arguments) as program:
        program.wait_until_ready(ready)
        yield Stoker(program.process, program.home, program.output)


def read_to_the_end(sock: socket.socket, most: int = 10_000_000) -> bytes:
    """All that comes until the other side closes, or resets."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while len(received) < most and (data := sock.recv(65536)):
            received += data
    return bytes(received)


def status_of(received: bytes) -> int:
    """The status of the answer that begins there; 0 if none does."""
    return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0


def statuses(received: bytes) -> Sequence[int]:
    """Of all answers there."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([1-5]\d\d)[ \r]", received)]

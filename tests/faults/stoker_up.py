"""`stoker up` from the source tree, in a process of its own, in front of a fake engine in another."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import httpx2

from stoker.home import Home
from stoker.supervise import proctable

SOURCES = Path(__file__).resolve().parents[2] / "src"
HANG_GUARD_SECONDS = 60
FULL = bool(os.environ.get("STOKER_SOAK"))
CHAT = "/v1/chat/completions"
MODEL = "fake"
T = TypeVar("T")


def count(full: int) -> int:
    """How often to do what is to be done ``full`` times: a tenth, unless STOKER_SOAK asks for all of it."""
    return full if FULL else full // 10


def until(condition: Callable[[], T | None], what: str, seconds: float = HANG_GUARD_SECONDS) -> T:
    """Wait for a condition of the outside world, and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError(f"in {seconds} s it did not come to this: {what}")


def ask(content: str = "Hi", **more: object) -> dict[str, object]:
    """A request for the fake engine's model."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


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


@attrs.define
class Stoker:
    """One that runs."""

    process: subprocess.Popen[bytes]
    home: Home
    output: Path

    @property
    def url(self) -> str:
        return str(json.loads(self.home.gateway.read_text())["url"])

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

    def manage(self, path: str) -> Any:
        """What the management side says."""
        headers = {"Authorization": f"Bearer {self.home.admin_token.read_text().strip()}"}
        return httpx2.get(f"{self.url}/v1/management{path}", headers=headers, timeout=HANG_GUARD_SECONDS).json()

    def chat(self, **more: object) -> httpx2.Response:
        """One small request, answered."""
        return httpx2.post(self.url + CHAT, json={**ask(max_tokens=2), **more}, timeout=HANG_GUARD_SECONDS)

    def serves(self) -> None:
        """Fail unless it lives and answers an innocent client."""
        assert self.process.poll() is None, self.said
        answer = self.chat()
        assert answer.status_code == 200, answer.text

    def engines(self) -> list[dict[str, Any]]:
        return list(self.manage("/engines")["data"])

    def engine_state(self, number: int = 0) -> dict[str, Any]:
        """What the fake engine says of itself."""
        url = self.engines()[number]["base_url"]
        return dict(httpx2.get(f"{url}/fake/state", timeout=HANG_GUARD_SECONDS).json())

    def engine_works(self) -> int:
        """How many requests the engine is at."""
        return int(self.engine_state()["active"])

    def footprint(self) -> Footprint:
        status = self.manage("/status")
        proc = Path(f"/proc/{self.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        return Footprint(
            descriptors=len(list((proc / "fd").iterdir())) - self._connections_to_engines(),
            rss_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            in_flight=status["queue"]["in_flight"],
            waiting=status["queue"]["waiting"],
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
    command = [sys.executable, "-m", "stoker.testing.fake_engine", "--host", "{host}", "--port", "{port}"]
    return f"""
[gateway]
listen = "127.0.0.1:0"
{gateway}
[[engine]]
model = "{MODEL}"
runtime = "command"
replicas = {replicas}
command = {json.dumps([*command, "--model", "{model}", *faults])}
env = {{ PYTHONPATH = "{SOURCES}" }}
stop_grace_seconds = 1
{engine}
"""


@contextlib.contextmanager
def running(folder: Path, toml: str, *arguments: str, ready: int = 1) -> Iterator[Stoker]:
    """`stoker up` with this configuration, until the block ends; in it, so many engines are READY."""
    home = Home(folder / "home")
    home.path.mkdir(parents=True)
    (folder / "stoker.toml").write_text(toml)
    output = folder / "output.txt"
    environ = {**os.environ, "STOKER_HOME": str(home.path), "NO_COLOR": "1", "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-m", "stoker", "up", "-c", str(folder / "stoker.toml"), *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environ)
    stoker = Stoker(process, home, output)
    try:
        until(lambda: _count_ready(stoker) >= ready, f"it is ready; it said: {output.read_text()}")
        yield stoker
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        process.kill()
        process.wait()
        proctable.send(proctable.members(None, lambda mark: mark.startswith(f"{home.digest}:")), signal.SIGKILL)


def _count_ready(stoker: Stoker) -> int:
    assert stoker.process.poll() is None, stoker.said
    try:
        return sum(engine["state"] == "READY" for engine in stoker.engines())
    except (OSError, httpx2.HTTPError, ValueError):
        return 0


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

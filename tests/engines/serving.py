"""A gateway in front of real engines, and what the tests do with it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import httpx2

from stoker.supervise import proctable
from stoker.testing.engines_contract import RUNNING
from tests import loopback
from tests.e2e.running import Program, until

from .families import Family

SECONDS = 120
MESSAGES = [{"role": "user", "content": "Tell me a very long story."}]


@attrs.frozen
class Served:
    """One family behind its gateway. The engines are called ``chat`` and ``embed``, and so are their models."""

    program: Program
    family: Family

    def engine(self, engine_id: str) -> Mapping[str, Any]:
        """An engine, as the management side shows it."""
        answer = self.program.manage("GET", f"/engines/{engine_id}")
        assert answer.status_code == httpx2.codes.OK, answer.text
        return dict(answer.json())

    def wait_for(self, engine_id: str, state: str, *, seconds: float | None = None) -> Mapping[str, Any]:
        """Wait until the engine is in ``state``."""

        def there() -> Mapping[str, Any] | None:
            engine = self.engine(engine_id)
            return engine if engine["state"] == state else None

        return until(there, f"{engine_id} is {state}", seconds or self.family.start_seconds)

    def running_requests(self, engine_id: str) -> float:
        """How many requests the engine itself says it is working on."""
        page = loopback.get(f"{self.engine(engine_id)['base_url']}/metrics", timeout=SECONDS).text
        found = RUNNING.findall(page)
        assert found, "the engine's metrics tell no number of running requests"
        return sum(map(float, found))

    def chat(self, **more: object) -> httpx2.Response:
        """One short chat request."""
        body = {"model": "chat", "messages": MESSAGES, "max_tokens": 4, **more}
        return loopback.post(f"{self.program.url}/v1/chat/completions", json=body, timeout=SECONDS)

    @contextlib.contextmanager
    def streaming(self, tokens: int, **more: object) -> Iterator[Iterator[str]]:
        """A stream of that many tokens, as the data of its events. The first one has come when the block begins."""
        body = {"model": "chat", "messages": MESSAGES, "max_tokens": tokens, "ignore_eos": True, "stream": True, **more}
        url = f"{self.program.url}/v1/chat/completions"
        with loopback.stream("POST", url, json=body, timeout=SECONDS) as answer:
            assert answer.status_code == httpx2.codes.OK, answer.read()
            events = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            first = next(events)
            assert "error" not in json.loads(first), first
            yield events

    def processes_of(self, engine_id: str) -> list[proctable.ProcessEntry]:
        """The living processes of an engine: by their marker, and those that descend from them or share a session.

        A process that writes a title for itself, as vLLM's do, has no marker any more.
        """
        owner = f":{engine_id}:"
        return proctable.members(None, lambda mark: mark.startswith(f"{self.family.home.digest}:") and owner in mark)


def left_of(processes: Sequence[proctable.ProcessEntry]) -> list[proctable.ProcessEntry]:
    """What still lives of them, or of their sessions; orphans without a marker too."""
    sessions = {entry.session for entry in processes}
    alike = [entry for entry in proctable.process_table() if entry.session in sessions and not entry.gone]
    return [*proctable.still_there(processes), *alike]


def until_cut(events: Iterator[str]) -> list[str]:
    """What comes of a stream that does not end as it should: its connection is closed in the middle."""
    found: list[str] = []
    with contextlib.suppress(httpx2.RemoteProtocolError):
        found.extend(events)
        raise AssertionError(f"the stream ended as if it were whole, with {found[-1:]}")
    return found


def to_the_end(events: Iterator[str]) -> list[str]:
    """What comes of a stream whose engine may say an error and then, as vLLM does, ``[DONE]``; or may be cut."""
    found: list[str] = []
    with contextlib.suppress(httpx2.RemoteProtocolError):
        found.extend(events)
    return found


def tree(root: int) -> str:
    """A process and its descendants, as names with their depth: for the eyes of whoever reads a failure."""
    table = {entry.pid: entry for entry in proctable.process_table() if not entry.gone}

    def lines(pid: int, depth: int) -> Iterator[str]:
        yield f"{'  ' * depth}{pid} {name_of(pid)}"
        for entry in table.values():
            if entry.parent == pid:
                yield from lines(entry.pid, depth + 1)

    return "\n".join(lines(root, 0))


def name_of(pid: int) -> str:
    """What a process calls itself, as vLLM's do; else its command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - no Path for what is no file
            words = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"
    return re.sub(r"\s+", " ", words)[:100]

"""The loads: what is asked, how an answer is checked, and which figures come of it.

A figure is one number of one proxy in one round. ``None`` for the process means the engine itself, asked directly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .machine import cpu_seconds, resident_bytes
from .running import LoadClient, Running, answer

ENGINE = "engine"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
LETTER = (
    'She asked: "What does it cost, per request?" - and nobody knew.\n'
    "So they measured it, once a round, each after the other, and wrote down what they found.\n"
    "Naïve guesses (there were many) came out 30 % too low.\n\n"
)
QUESTION = "Hello, who are you and what can you do for me today?"
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A line of the table: one figure of a load."""

    key: str
    label: str
    unit: str
    bound: str = ""
    digits: int = 1
    compared: bool = False
    """Whether the ratio to vllm-router means something."""


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    client: LoadClient
    engine_port: int
    folder: Path
    seconds: int

    def run(self, port: int, request: Request, *arguments: str, rewritten: bool = False) -> dict[str, Any]:
        """Put ``request`` on a port. Raises WrongAnswerError if an answer is not the engine's."""
        return self.client.run(*self.arguments(port, request, rewritten=rewritten), *arguments)

    def arguments(self, port: int, request: Request, *, rewritten: bool = False) -> list[str]:
        """What tells the load client of a request and the right answer to it."""
        body = self.folder / f"{request.name}.request.json"
        if not body.exists():
            body.write_bytes(request.body)
        if request.events:
            check = ["--events", str(request.events)]
        elif rewritten:
            check = ["--contains", request.contains]
        else:
            check = ["--answer", str(self._right_answer(request))]
        return ["--port", str(port), "--path", request.path, "--body", str(body), *check]

    def _right_answer(self, request: Request) -> Path:
        file = self.folder / f"{request.name}.answer.json"
        if not file.exists():
            status, body = answer(self.engine_port, "POST", request.path, request.body)
            assert status == 200, body
            file.write_bytes(body)
        return file


@dataclass(frozen=True)
class Request:
    """One request that is made again and again. ``events`` is how many a stream has, 0 where it is none."""

    name: str
    path: str
    document: Mapping[str, object]
    events: int = 0
    contains: str = "How can I help you today?"

    @cached_property
    def body(self) -> bytes:
        """As a client would write it."""
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()


def chat(name: str, text: str) -> Request:
    """A chat completion."""
    messages = [SYSTEM, {"role": "user", "content": text}]
    return Request(name, CHAT, {"model": "m", "messages": messages, "max_tokens": 16, "temperature": 0.7})


def stream(name: str, rate: int, events: int) -> Request:
    """A streamed one of ``events`` chunks, ``rate`` a second; 0 is as many as there can be."""
    messages = [SYSTEM, {"role": "user", "content": f"{QUESTION} [rate={rate}]"}]
    document = {"model": "m", "messages": messages, "max_tokens": events, "temperature": 0.7, "stream": True}
    return Request(f"{name}-{events}", CHAT, document, events)


SMALL = chat("chat", QUESTION)
LARGE = chat("prompts", (LETTER * 400)[: 64 * 1024])
EMBEDDING = Request(
    "embeddings", EMBEDDINGS, {"model": "e", "input": "[bytes=1048576]"}, contains="-0.0123456789,-0.0123456789"
)


@dataclass(frozen=True)
class Load:
    """One way to use a proxy."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Bench, Running | None, bool], Figures]
    """With the process (None: the engine itself) and whether it rewrites answers."""
    directly: bool = False
    """Measured at the engine as well."""
    once: bool = False
    """Only in the first round, on proxies that have seen nothing else."""
    too_much_for: tuple[str, ...] = ()


def port_of(bench: Bench, process: Running | None) -> int:
    """Where a load goes."""
    return process.port if process else bench.engine_port


def cost(request: Request, connections: int, per: str = "requests") -> Callable[[Bench, Running | None, bool], Figures]:
    """CPU time for each request, or for each event; with the rate and the latencies that came with it."""

    def measure(bench: Bench, process: Running | None, rewritten: bool) -> Figures:
        before = cpu_seconds(process.pid) if process else 0.0
        load = ["--connections", str(connections), "--seconds", str(bench.seconds)]
        found = bench.run(port_of(bench, process), request, *load, rewritten=rewritten)
        spent = cpu_seconds(process.pid) - before if process else 0.0
        return {
            "cpu_us": 1e6 * spent / found[per],
            "rate": found["requests"] / found["seconds"],
            "p50_ms": found["latency_us"]["p50"] / 1e3,
            "p99_ms": found["latency_us"]["p99"] / 1e3,
        }

    return measure


def latency(bench: Bench, process: Running | None, rewritten: bool) -> Figures:
    """At one connection, in milliseconds. What the engine itself takes is subtracted when the round is complete."""
    found = bench.run(port_of(bench, process), SMALL, "--seconds", str(bench.seconds), rewritten=rewritten)
    return {"p50_ms": found["latency_us"]["p50"] / 1e3, "p99_ms": found["latency_us"]["p99"] / 1e3}


def gaps(connections: int) -> Callable[[Bench, Running | None, bool], Figures]:
    """The time between two events of a stream as the client sees it, with many streams at once."""

    def measure(bench: Bench, process: Running | None, rewritten: bool) -> Figures:
        request = stream("gaps", 20, 20 * max(bench.seconds, 2))
        load = ["--connections", str(connections), "--requests", str(connections)]
        before = cpu_seconds(process.pid) if process else 0.0
        found = bench.run(port_of(bench, process), request, *load, rewritten=rewritten)
        spent = cpu_seconds(process.pid) - before if process else 0.0
        times = {f"{name}_ms": found["gap_us"][name] / 1e3 for name in ("p50", "p99", "max")}
        return {**times, "cpu_us": 1e6 * spent / found["events"]}

    return measure


def idle(connections: int) -> Callable[[Bench, Running | None, bool], Figures]:
    """What an idle keep-alive connection that had one answer keeps in memory.

    That is what ``connections`` of them add to others: the first ones take what the process had lying around.
    """

    def measure(bench: Bench, process: Running | None, rewritten: bool) -> Figures:
        assert process is not None
        arguments = bench.arguments(process.port, SMALL, rewritten=rewritten)
        with bench.client.holding(*arguments, "--connections", str(connections // 4)):
            before = settled_bytes(process)
            with bench.client.holding(*arguments, "--connections", str(connections)):
                grown = settled_bytes(process) - before
        return {"kb": grown / 1024 / connections}

    return measure


def settled_bytes(process: Running) -> int:
    """Resident memory, after a second for what is put off until there is nothing else to do."""
    time.sleep(1)
    return resident_bytes(process.pid)


def loads() -> dict[str, Load]:
    """All that are measured at every proxy, in the order in which a round has them."""
    us, aims = "µs of CPU", "at most 1.0 x vllm-router"
    cannot = ("litellm",)
    every = [
        Load(
            "idle", (Row("kb", "1,000 idle keep-alive connections, each", "KB", "under 30 KB"),), idle(1000), once=True
        ),
        Load(
            "chat",
            (
                Row("cpu_us", "small chat, 32 connections, per request", us, f"{aims}; aim 0.75 x", compared=True),
                Row("rate", "- answers", "per second", digits=0),
                Row("p50_ms", "- latency, p50", "ms", digits=2),
                Row("p99_ms", "- latency, p99", "ms", digits=2),
            ),
            cost(SMALL, 32),
        ),
        Load(
            "stream",
            (
                Row(
                    "cpu_us",
                    "64 streams x 200 chunks/s, per chunk",
                    us,
                    "at most 1.2 x vllm-router; aim 1.0 x",
                    compared=True,
                ),
            ),
            cost(stream("stream", 200, 200), 64, "events"),
            too_much_for=cannot,
        ),
        Load(
            "gaps",
            (
                Row("p50_ms", "1,000 streams x 20 chunks/s, gap between chunks, p50", "ms"),
                Row("p99_ms", "- p99", "ms", "no error, under 2 x the engine's"),
                Row("max_ms", "- longest", "ms"),
                Row("cpu_us", "- per chunk", us, compared=True),
            ),
            gaps(1000),
            directly=True,
            too_much_for=cannot,
        ),
        Load(
            "prompts",
            (Row("cpu_us", "prompts of 64 KB, 16 connections, per request", us, aims, compared=True),),
            cost(LARGE, 16),
        ),
        Load(
            "embeddings",
            (
                Row(
                    "cpu_us", "embedding answers of 1 MB, 8 connections, per request", us, aims, digits=0, compared=True
                ),
            ),
            cost(EMBEDDING, 8),
        ),
        Load(
            "latency",
            (
                Row("p50_ms", "added latency at 1 connection, p50", "ms", "under 0.25 ms", digits=3, compared=True),
                Row("p99_ms", "- p99", "ms", digits=3),
            ),
            latency,
            directly=True,
        ),
    ]
    return {load.name: load for load in every}

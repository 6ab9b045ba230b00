"""A run: every load at every proxy, round by round, so that a drift of the machine's speed meets all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .loads import ENGINE, Bench, Figures, Load, stream
from .machine import resident_bytes
from .proxies import BASELINE, STOKER, Proxy
from .running import Running, WrongAnswerError

ENDURANCE_STREAMS = 64
ENDURANCE_PARTS = 10
SLOW = {"litellm": 2}  # seconds: a hundred answers are enough for a median

Say = Callable[[str], None]


@dataclass
class Results:
    """The figures of all rounds, by load, row and proxy; and what went wrong."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    endurance: list[int] = field(default_factory=list)
    """Resident bytes: when it was warm, and after each tenth of the chunks."""

    def add(self, load: str, proxy: str, figures: Figures) -> None:
        """Keep what a round gave."""
        for row, value in figures.items():
            self.figures.setdefault(load, {}).setdefault(row, {}).setdefault(proxy, []).append(value)

    def of(self, load: str, row: str, proxy: str) -> Sequence[float]:
        """The figure, round by round; empty where it was not measured."""
        if (load, proxy) in self.failures:
            return ()
        return self.figures.get(load, {}).get(row, {}).get(proxy, ())

    def median(self, load: str, row: str, proxy: str) -> float | None:
        """Over the rounds; None where it was not measured."""
        values = self.of(load, row, proxy)
        return statistics.median(values) if values else None

    def ratio(self, load: str, row: str, proxy: str = STOKER, to: str = BASELINE) -> float | None:
        """The median of the rounds' ratios, so that both figures of a ratio are neighbours in time."""
        pairs = zip(self.of(load, row, proxy), self.of(load, row, to), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True)
class Run:
    """What is measured: each of ``processes`` with each of ``loads``, ``rounds`` times."""

    bench: Bench
    engine: Running
    proxies: Mapping[str, Proxy]
    processes: Mapping[str, Running]
    loads: Sequence[Load]
    rounds: int
    say: Say

    def measure(self, results: Results) -> None:
        """All of it. A wrong answer is said and kept, and ends the measuring of that load at that proxy."""
        for number in range(1, self.rounds + 1):
            for load in self.loads:
                if number == 1 or not load.once:
                    self._load(results, load, number)

    def _load(self, results: Results, load: Load, number: int) -> None:
        measured: dict[str, Figures] = {}
        for name in [*([ENGINE] if load.directly else []), *self.processes]:
            if name in load.too_much_for or (load.name, name) in results.failures:
                continue
            try:
                if number == 1 and not load.once:
                    self._one(load, name, replace(self.bench, seconds=1))  # its own connections, its own code: warm
                measured[name] = self._one(load, name, self.bench)
            except WrongAnswerError as error:
                results.failures[load.name, name] = str(error)
                self.say(f"WRONG: {load.name} at {name}: {error}")
        for name, figures in subtracted(load, measured).items():
            results.add(load.name, name, figures)
            told = "  ".join(f"{row.key} {figures[row.key]:.2f}" for row in load.rows)
            self.say(f"{number}/{self.rounds}  {load.name:11s}{name:15s}{told}")
        self._say_ratio(load, measured)

    def _one(self, load: Load, name: str, bench: Bench) -> Figures:
        if name in SLOW:
            bench = replace(bench, seconds=min(bench.seconds, SLOW[name]))
        rewrites = name in self.proxies and self.proxies[name].rewrites_answers
        said = self.engine.log.stat().st_size
        figures = load.measure(bench, self.processes.get(name), rewrites)
        if self.engine.log.stat().st_size > said:
            raise WrongAnswerError(f"the engine refused what was forwarded: {self.engine.said()}")
        return figures

    def _say_ratio(self, load: Load, measured: Mapping[str, Figures]) -> None:
        row = load.rows[0].key
        if load.rows[0].compared and STOKER in measured and BASELINE in measured:
            ratio = measured[STOKER][row] / measured[BASELINE][row]
            self.say(f"     {load.name}: {STOKER} / {BASELINE} = {ratio:.2f}")


def subtracted(load: Load, measured: Mapping[str, Figures]) -> Mapping[str, Figures]:
    """Latencies at one connection as what the proxy adds to the engine's own."""
    if load.name != "latency" or ENGINE not in measured:
        return measured
    own = measured[ENGINE]
    added = {
        name: {row: max(value - own[row], 0.0) for row, value in figures.items()}
        for name, figures in measured.items()
        if name != ENGINE
    }
    return {ENGINE: own, **added}


def endure(bench: Bench, process: Running, chunks: int, say: Say) -> list[int]:
    """Relay ``chunks`` chunks as fast as they come; resident bytes when it is warm, and after each tenth.

    It is warm when it has relayed another tenth.
    """
    load = ["--connections", str(ENDURANCE_STREAMS), "--requests", str(ENDURANCE_STREAMS)]
    request = stream("endurance", 0, math.ceil(chunks / ENDURANCE_PARTS / ENDURANCE_STREAMS))
    bench.run(process.port, request, *load)
    readings = [resident_bytes(process.pid)]
    for part in range(1, ENDURANCE_PARTS + 1):
        found = bench.run(process.port, request, *load)
        readings.append(resident_bytes(process.pid))
        rate = found["events"] / found["seconds"]
        megabytes, grown = readings[-1] / 2**20, (readings[-1] - readings[0]) / 2**20
        say(f"endurance  {part}/{ENDURANCE_PARTS}  {rate:.0f} chunks/s  resident {megabytes:.1f} MB, {grown:+.1f} MB")
    return readings

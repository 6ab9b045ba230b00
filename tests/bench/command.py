"""The command line, and the order of things: build, start, measure, write."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from . import proxies as known
from .building import build_program, install
from .loads import ENGINE, Bench, loads
from .machine import ROOT, BenchError, about_commit, about_machine, free_port, pinned
from .measuring import Results, Run, endure
from .proxies import STOKER, Places, Proxy, about_stoker, find_proxies
from .running import LoadClient, Running, WrongAnswerError, answers, running
from .table import table, write

PAGE = ROOT / "docs" / "explanation" / "performance.md"
ENDURANCE = "endurance"
BUSY = 0.5  # of load average: somebody else is at work here


def say(line: str) -> None:
    """Say it now: a run takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """The options."""
    about = "Measure Stoker against nginx, vllm-router, sglang-router and litellm, whichever are installed."
    new = argparse.ArgumentParser(prog="tests/bench/run.py", description=about)
    names = [*loads(), ENDURANCE]
    new.add_argument("--only", type=_names(names), default=names, metavar="LOAD,…", help=f"of {', '.join(names)}")
    new.add_argument("--proxies", metavar="NAME,…", help="measure only these; stoker is one of them")
    new.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    new.add_argument("--seconds", type=int, default=3, help="of each measurement (3)")
    new.add_argument("--chunks", type=int, default=10_000_000, help="of the endurance load (10 million)")
    new.add_argument("--quick", action="store_true", help="one round, a second each, 200,000 chunks; writes nothing")
    new.add_argument("--in-step", action="store_true", help="the engine sends the chunks of all streams at once")
    new.add_argument("--install", action="store_true", help="install what comes from the package index first")
    new.add_argument(
        "--environment", type=Path, action="append", metavar="DIR", help="where (build/bench/venv); repeatable"
    )
    new.add_argument("--stoker", metavar="FILE", help="measure this one instead of building dist/stoker.pyz")
    new.add_argument("--source", action="store_true", help="run the sources with what --python has installed")
    new.add_argument("--python", default=sys.executable, metavar="PYTHON", help="runs Stoker (this one)")
    new.add_argument("--cpus", default="0,1", metavar="PROXY,LOAD", help="where they run (0,1)")
    new.add_argument("--no-write", action="store_true", help=f"leave {PAGE.relative_to(ROOT)} as it is")
    new.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds there, too")
    return new


def _names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there are {', '.join(allowed)}")
        return names

    return read


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code: 1 when something failed or an answer was wrong."""
    options = parser().parse_args(arguments)
    options.part = options.only != [*loads(), ENDURANCE] or options.proxies is not None
    if options.quick:
        options.rounds, options.seconds, options.chunks, options.no_write = 1, 1, 200_000, True
    try:
        return measure(options)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def measure(options: argparse.Namespace) -> int:
    """Build, start, measure, and write what came of it."""
    proxy_cpu, load_cpu = cpus(options.cpus)
    raise_file_limit()
    chosen = choose(options)
    about = describe(options, chosen)
    results = Results()
    with (
        tempfile.TemporaryDirectory(prefix="stoker-bench-") as name,
        pinned({load_cpu}),
        start_engine(Path(name), load_cpu, in_step=options.in_step) as engine,
    ):
        folder = Path(name)
        client = LoadClient(build_program("load", folder), load_cpu)
        bench = Bench(client, engine.port, folder, options.seconds)
        if options.only != [ENDURANCE]:
            compare(bench, engine, chosen, options, results, about, proxy_cpu)
        if ENDURANCE in options.only and STOKER in chosen:
            alone = folder / "alone"
            alone.mkdir()
            with chosen[STOKER].started(engine.port, proxy_cpu, alone) as process:
                about["Stoker's lanes"] = about_stoker(process)
                try:
                    results.endurance = endure(bench, process, options.chunks, say)
                except WrongAnswerError as error:
                    results.failures[ENDURANCE, STOKER] = str(error)
                    say(f"WRONG: {ENDURANCE}: {error}")
    finish(options, chosen, results, about)
    return 1 if results.failures else 0


def compare(
    bench: Bench,
    engine: Running,
    chosen: Mapping[str, Proxy],
    options: argparse.Namespace,
    results: Results,
    about: dict[str, str],
    cpu: int,
) -> None:
    """All proxies side by side."""
    selected = [load for name, load in loads().items() if name in options.only]
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, proxy in chosen.items():
            say(f"starting {name} {proxy.version}")
            processes[name] = stack.enter_context(proxy.started(engine.port, cpu, bench.folder))
        if STOKER in processes:
            about["Stoker's lanes"] = about_stoker(processes[STOKER])
        Run(bench, engine, chosen, processes, selected, options.rounds, say).measure(results)


def finish(
    options: argparse.Namespace, chosen: Mapping[str, Proxy], results: Results, about: Mapping[str, str]
) -> None:
    """Print the table, and write what is to be written."""
    selected = [load for name, load in loads().items() if name in options.only]
    text = table(selected, [*chosen, ENGINE], results, about)
    say(f"\n{text}")
    if options.json:
        failures = {f"{load} at {name}": reason for (load, name), reason in results.failures.items()}
        figures = {"figures": results.figures, "endurance_resident_bytes": results.endurance, "failures": failures}
        options.json.write_text(json.dumps({"about": about, **figures}, indent=2) + "\n")
    if options.no_write:
        return
    if options.part:
        say(f"{PAGE.name} is left as it is: this was a part of the loads or of the proxies")
    elif any(name == STOKER for _, name in results.failures):
        say(f"{PAGE.name} is left as it is: stoker gave wrong answers")
    else:
        write(PAGE, text)
        say(f"written to {PAGE.relative_to(ROOT)}")


def choose(options: argparse.Namespace) -> dict[str, Proxy]:
    """The proxies to measure, Stoker first. Raises BenchError for one that was named and isn't there."""
    default = ROOT / "build" / "bench" / "venv"
    if options.install:
        install(default)
    others, missing = find_proxies(Places([*(options.environment or []), default]))
    for line in missing:
        say(line)
    wanted = options.proxies.split(",") if options.proxies else [STOKER, *(proxy.name for proxy in others)]
    found = {proxy.name: proxy for proxy in others}
    if absent := set(wanted) - {STOKER, *found}:
        raise BenchError(f"not installed, or not known here: {', '.join(sorted(absent))}")
    if STOKER in wanted:
        found[STOKER] = known.stoker(options.python, options.stoker, from_source=options.source)
    return {name: found[name] for name in sorted(wanted, key=lambda name: (name != STOKER, wanted.index(name)))}


def describe(options: argparse.Namespace, chosen: Mapping[str, Proxy]) -> dict[str, str]:
    """What stands above the table."""
    load = os.getloadavg()[0]
    if load > BUSY:
        say(f"the machine is busy (load average {load:.1f}): the figures will be noisy")
    return {
        "machine": about_machine() + (f" (busy with other work: load average {load:.1f})" if load > BUSY else ""),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": f"not known, {Path(options.stoker).name} was given" if options.stoker else about_commit(),
        "Python": known.python_version(options.python),
        "versions": ", ".join(f"{name} {proxy.version}" for name, proxy in chosen.items()),
        "rounds": f"{options.rounds} of {options.seconds} s for each load; medians",
        "chunks of the endurance load": f"{options.chunks:,}",
        "chunks leave the engine": "all streams' at once" if options.in_step else "spread over the interval",
    }


@contextlib.contextmanager
def start_engine(folder: Path, cpu: int, *, in_step: bool) -> Iterator[Running]:
    """The fake engine, answering."""
    port = free_port()
    command = [str(build_program("engine", folder)), "--port", str(port), *(["--in-step"] if in_step else [])]
    with running("engine", command, {}, port, cpu, folder) as engine:
        engine.wait_until(lambda: answers(port, "/v1/models"), 10)
        yield engine


def cpus(text: str) -> tuple[int, int]:
    """The CPU of the proxies and that of the load. Raises BenchError if there are not two."""
    try:
        proxy, load = map(int, text.split(","))
    except ValueError:
        raise BenchError(f"--cpus {text}: two numbers are needed, as in 0,1") from None
    if proxy == load or not {proxy, load} <= os.sched_getaffinity(0):
        usable = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise BenchError(
            f"--cpus {text}: two CPUs are needed, one for the proxies and one for the load; usable: {usable}"
        )
    return proxy, load


def raise_file_limit() -> None:
    """A thousand streams are two thousand sockets, for every proxy alike."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

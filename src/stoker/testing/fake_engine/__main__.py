"""The command ``python -m stoker.testing.fake_engine``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

import attrs
import trio

from stoker.testing.fake_engine import openai
from stoker.testing.fake_engine.faults import Faults, UnknownFault, flag_of
from stoker.testing.fake_engine.leftovers import leave_processes
from stoker.testing.fake_engine.server import FakeEngine


def build_parser() -> argparse.ArgumentParser:
    """The flags: where and what to serve, and one for each fault."""
    parser = argparse.ArgumentParser(prog="python -m stoker.testing.fake_engine", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--model", default="fake", help="the model's name")
    parser.add_argument("--name", action="append", default=[], help="another name of the model")
    parser.add_argument("--kind", choices=sorted(openai.PATHS), default="llm")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin is closed, as by a dead parent")
    group = parser.add_argument_group("faults")
    for field in attrs.fields(Faults):
        meaning = field.metadata["meaning"].replace("%", "%%")
        if field.default is False:
            group.add_argument(flag_of(field.name), action="store_true", help=meaning)
        else:
            group.add_argument(flag_of(field.name), default=field.default, metavar="N", help=meaning)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one fake engine until it is told to stop, or fails as it was told to."""
    parser = build_parser()
    options = parser.parse_args(argv)
    try:
        faults = Faults().changed({field.name: getattr(options, field.name) for field in attrs.fields(Faults)})
    except UnknownFault as wrong:
        parser.error(str(wrong))
    children = leave_processes(faults)
    if faults.message:
        print(faults.message, file=sys.stderr, flush=True)  # noqa: T201 - its log
    if faults.exit_at_start is not None:
        time.sleep(faults.start_delay_seconds)
        return faults.exit_at_start
    names = tuple(dict.fromkeys((options.model, *options.name)))
    engine = FakeEngine(names=names, kind=options.kind, faults=faults, children=children)
    failures: list[str] = []
    try:
        trio.run(partial(engine.run, options.host, options.port, stop_with_stdin=options.stop_with_stdin))
    except* OSError as failed:
        failures.extend(str(reason) for reason in _leaves(failed))
    for failure in failures:
        print(f"can't listen on {options.host}:{options.port}: {failure}", file=sys.stderr)  # noqa: T201 - its log
    return 1 if failures else 0


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())

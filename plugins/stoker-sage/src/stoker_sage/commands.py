"""The tree of ``sage``. Each command says to Stoker's own command line what was said to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from stoker.errors import StokerError
from stoker_sage.translation import EMBEDDED, RUNTIME_VARIABLE, address, engine_start

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

PATIENCE_SECONDS = 1.0

Call = Callable[[Sequence[str]], object]
Port = Annotated[int | None, Parameter(("--port", "-p"), help="The port to listen on; else 8000.")]
Host = Annotated[str | None, Parameter("--host", help="The address to listen on; else 127.0.0.1.")]
Follow = Annotated[bool, Parameter(("--follow", "-f"), help="Go on with what is added, until Ctrl-C.")]
Lines = Annotated[int, Parameter(("--lines", "-n"), help="How many of the last lines to show (200).")]
AsJson = Annotated[bool, Parameter("--json", help="Print JSON, for programs.")]


def make_app(cli: App) -> App:
    """``sage``, whose commands are carried out by ``cli``."""
    app = App(name="sage", help="The commands of the SAGE gateway, on Stoker.")
    app.command(_gateway(cli))
    app.command(_llm(cli))
    return app


def _engine_ids(_: CompletionContext) -> list[tuple[str, str]]:
    """What a shell completes; nothing where no gateway answers soon: somebody has pressed a key and waits."""
    from stoker.client import UnifiedInferenceClient

    try:
        with UnifiedInferenceClient.create() as client:
            patience = Timer(PATIENCE_SECONDS, client.close)
            patience.start()
            try:
                return [(each.engine_id, f"{each.state}, {each.model}") for each in client.engines()]
            finally:
                patience.cancel()
    except (StokerError, RuntimeError):  # that of a client that was closed
        return []


def _gateway(cli: Call) -> App:
    gateway = App(name="gateway", help="Run the gateway in the background.")

    @gateway.command
    def start(*, port: Port = None, host: Host = None) -> object:
        """Start it in the background and wait until it answers."""
        return cli(["gateway", "start", *address(host, port)])

    @gateway.command
    def stop(*, now: Annotated[bool, Parameter(help="Don't wait for requests that are under way.")] = False) -> object:
        """Stop it and its engines, and wait until they are gone."""
        return cli(["gateway", "stop", *(["--now"] if now else [])])

    @gateway.command
    def restart() -> object:
        """Replace it by what its file is by now; engines run on."""
        return cli(["gateway", "restart"])

    @gateway.command
    def status(*, as_json: AsJson = False) -> object:
        """Show whether it runs, and where."""
        return cli(["gateway", "status", *(["--json"] if as_json else [])])

    @gateway.command
    def logs(*, follow: Follow = False, lines: Lines = 200) -> object:
        """Show what it logged."""
        return cli(["gateway", "logs", "--tail", str(lines), *(["--follow"] if follow else [])])

    return gateway


def _llm(cli: Call) -> App:
    llm = App(name="llm", help="Manage engines.")

    @llm.command
    def gpu(*, as_json: AsJson = False) -> object:
        """Show the GPUs of this machine and who uses them."""
        return cli(["gpu", *(["--json"] if as_json else [])])

    llm.command(_engine(cli))
    return llm


def _engine(cli: Call) -> App:
    engine = App(name="engine", help="List, start and stop engines.")

    @engine.command(name="list")
    def listing(*, as_json: AsJson = False) -> object:
        """List all engines."""
        return cli(["engine", "list", *(["--json"] if as_json else [])])

    @engine.command
    def start(
        model: Annotated[str, Parameter(help="What the engine loads, such as Qwen/Qwen2.5-0.5B-Instruct.")],
        /,
        *arguments: Annotated[str, Parameter(help="After --: arguments for the engine itself.")],
        engine_kind: Annotated[Literal["llm", "embedding"], Parameter(help="llm, or embedding.")] = "llm",
        label: Annotated[str | None, Parameter(help="A name for the engine; its id is made of it.")] = None,
        engine_port: Annotated[int | None, Parameter(help="A fixed port; else any free one.")] = None,
        tensor_parallel: Annotated[
            int, Parameter(("--tensor-parallel", "-tp"), help="Over how many GPUs each layer is split (1).")
        ] = 1,
        pipeline_parallel: Annotated[
            int,
            Parameter(("--pipeline-parallel", "-pp"), help="Over how many groups of GPUs the layers are split (1)."),
        ] = 1,
        max_concurrent: Annotated[int | None, Parameter(help="How many requests it is given at once.")] = None,
        use_gpu: Annotated[
            bool | None,
            Parameter(negative="--no-gpu", help="Whether it gets GPUs; else an LLM does, an embedding engine doesn't."),
        ] = None,
        runtime: Annotated[str | None, Parameter(help=f"What runs it; else {RUNTIME_VARIABLE}, else vllm.")] = None,
    ) -> object:
        """Start an engine and wait until it is READY."""
        chosen = runtime or os.environ.get(RUNTIME_VARIABLE) or None
        words = engine_start(
            model,
            kind=engine_kind,
            runtime=chosen,
            label=label,
            port=engine_port,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            max_concurrent=max_concurrent,
            use_gpu=use_gpu,
            arguments=arguments,
        )
        if chosen == EMBEDDED:
            print(f"{words[0]}, which comes with the embedded runtime, answers as {model}", file=sys.stderr)
        return cli(["engine", "start", *words])

    @engine.command
    def stop(
        engine_id: Annotated[
            str, Parameter(help="The id of the engine, as `llm engine list` shows it.", completer=_engine_ids)
        ],
        /,
        *,
        drain: Annotated[bool, Parameter(negative="--no-drain", help="Let it finish its requests.")] = True,
    ) -> object:
        """Stop an engine, and take it off the list."""
        return cli(["engine", "stop", engine_id, *([] if drain else ["--no-drain"]), "--forget"])

    return engine

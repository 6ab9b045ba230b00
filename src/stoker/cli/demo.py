"""``stoker demo``: from nothing to an answer of a real model."""

from __future__ import annotations

import logging
import os
from typing import Annotated

from cyclopts import Parameter

from stoker import config
from stoker.cli.finding import read_gateway
from stoker.cli.invocation import program
from stoker.cli.options import ListenAt, PluginPath, Strict
from stoker.cli.outside import INTERRUPTED
from stoker.cli.plugins import load_plugins
from stoker.cli.runtime import make_sure
from stoker.cli.up import log_to_stderr
from stoker.config.listen import parse_listen
from stoker.errors import ConflictError
from stoker.home import Home
from stoker.model import EngineSpec
from stoker.settings import Settings

RUNTIME = "embedded"
CHAT = EngineSpec(model="HuggingFaceTB/SmolLM2-135M-Instruct", names=("smollm2",), label="smollm2", runtime=RUNTIME)
EMBEDDING = EngineSpec(
    model="sentence-transformers/all-MiniLM-L6-v2",
    names=("all-minilm-l6-v2",),
    label="all-minilm-l6-v2",
    runtime=RUNTIME,
    kind="embedding",
)


def demo(
    *,
    listen: ListenAt = None,
    plugin_path: PluginPath = (),
    strict: Strict = False,
    exit_after: Annotated[bool, Parameter("--exit", help="End after the answer, instead of at Ctrl-C.")] = False,
) -> int:
    """Run a small chat model and an embedding model, and let one answer a question.

    It installs the embedded runtime if that is missing, prints the answer as it comes, and stays until Ctrl-C.
    With --exit it ends after the answer: with 0 if there was one.
    """
    settings = Settings(engines=(CHAT, EMBEDDING))
    if listen is not None:
        settings = config.with_listen(settings, listen)
    home = Home.from_environment(os.environ)
    if running := read_gateway(home):
        raise ConflictError(
            f"a gateway runs already at {running.url}; stop it with: {program()} gateway stop\n"
            "or give the demo a STOKER_HOME of its own"
        )
    from stoker.app import run
    from stoker.cli.question import Question
    from stoker.listening import listen_on

    # Who can't have the port should learn it before anything is installed.
    listen_on(parse_listen(settings.gateway.listen)).close()
    registry = load_plugins(plugin_path, strict=strict)
    make_sure(home, registry, RUNTIME)
    log_to_stderr(logging.ERROR)
    question = Question(home, [spec.all_names[-1] for spec in settings.engines], stay=not exit_after)
    code = run(settings, home, registry, companion=question.ask, strict=strict)
    return INTERRUPTED if exit_after and not question.answered and code == 0 else code

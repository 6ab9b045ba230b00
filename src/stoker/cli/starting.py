"""``stoker engine start|register|restart``: what ends with an engine that is READY, or with the reason why not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.activity import Activity, warn
from stoker.cli.client import Client, connect, engine_path
from stoker.cli.completing import completing
from stoker.cli.engine import drain_order
from stoker.cli.following import HEADING
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, EngineId
from stoker.cli.output import print_json
from stoker.errors import ConfigError, ConflictError, Mistake, NotFoundError, NotRunningError, StokerError

OPTIONS: Mapping[str, str] = MappingProxyType({"names": "--name", "engine_id": "--id", "args": "--", "command": "--"})
_MEMBER = re.compile(r"(?<=^  )(?P<member>[a-z_]+)(?=[:.\[])", re.MULTILINE)

Wait = Annotated[bool, Parameter(negative="--no-wait", help="Wait until it is READY, and say what goes on.")]
Names = Annotated[
    tuple[str, ...],
    Parameter("--name", metavar="NAME", help="What clients may call the model, besides MODEL; repeatable."),
]
Kind = Annotated[str | None, Parameter(metavar="KIND", help="llm, embedding, rerank, …; else llm.")]
Limit = Annotated[
    int | None,
    Parameter("--max-concurrency", metavar="N", help="How many requests it is given at once; else any number."),
]
Policy = Annotated[
    str | None,
    Parameter(
        "--policy",
        metavar="NAME",
        help="What chooses among the engines of the model; else the gateway's own.",
        completer=completing("policies"),
    ),
]


def start(
    model: Annotated[str, Parameter(help="What the engine loads: a name, or a path (./model.gguf).")],
    /,
    *args: Annotated[str, Parameter(help="After --: arguments for the engine; with `--runtime command`, the command.")],
    runtime: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            help="Which runtime starts it, else vllm; see `runtime list`.",
            completer=completing("runtimes"),
        ),
    ] = None,
    name: Names = (),
    kind: Kind = None,
    gpus: Annotated[int | None, Parameter(metavar="N", help="How many GPUs it gets; else none.")] = None,
    label: Annotated[
        str | None, Parameter(metavar="LABEL", help="A name for the engine; its id is made of it.")
    ] = None,
    port: Annotated[int | None, Parameter(metavar="PORT", help="A fixed port; else any free one.")] = None,
    replicas: Annotated[int | None, Parameter(metavar="N", help="How many of them to start; else one.")] = None,
    max_concurrency: Limit = None,
    policy: Policy = None,
    env: Annotated[
        tuple[str, ...], Parameter(metavar="KEY=VALUE", help="A variable of its environment; repeatable.")
    ] = (),
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Start an engine and wait until it is READY.

    This always makes another engine: one that is on the list already, stopped or failed, is started again by
    `engine restart`. What follows -- goes to the engine as it is. With `--runtime command` it is the command, in
    which {port}, {host}, {model}, {names} and {gpus} are replaced, and it runs in the current folder, unless
    STOKER_URL names the gateway, which may be on another machine.

    Meanwhile it shows how far the engine is, as far as its log tells. One that does not become READY stays on the
    list: its own error and the end of its log are shown, and the exit code is 1. Ctrl-C leaves the engine to
    itself.
    """
    if runtime == "command" and not args:
        raise ConfigError("--runtime", [Mistake("", "command takes the command after --: -- my-server --port {port}")])
    environment = _environment(env)
    with connect() as client:
        if runtime is None:
            _require_no_engine(client, model)
        spec = {
            "model": _absolute(model) if client.address.local else model,
            "runtime": runtime,
            "names": list(name) or None,
            "kind": kind,
            "gpus": gpus,
            "label": label,
            "port": port,
            "replicas": replicas,
            "max_concurrency": max_concurrency,
            "policy": policy,
            "env": environment or None,
            "cwd": str(Path.cwd()) if runtime == "command" and not client.address.named else None,
            "command" if runtime == "command" else "args": list(args) or None,
        }
        answer = _order(client, "/engines/start", spec, {**OPTIONS, "model": "MODEL"})
        _follow_up(client, answer, wait=wait, as_json=as_json)


def register(
    url: Annotated[str, Parameter(help="Where the engine answers, such as http://127.0.0.1:9001.")],
    /,
    *,
    model: Annotated[str, Parameter(metavar="MODEL", help="The model's name at that engine.")],
    name: Names = (),
    kind: Kind = None,
    max_concurrency: Limit = None,
    policy: Policy = None,
    engine_id: Annotated[
        str | None, Parameter("--id", metavar="ID", help="The id it gets; else one is made of the model.")
    ] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Route to an engine that runs already, by its URL."""
    spec = {
        "url": url,
        "model": model,
        "names": list(name) or None,
        "kind": kind,
        "max_concurrency": max_concurrency,
        "policy": policy,
        "engine_id": engine_id,
    }
    with connect() as client:
        answer = _order(client, "/engines/register", spec, {**OPTIONS, "url": "URL"})
        _follow_up(client, answer, wait=wait, as_json=as_json)


def restart(
    engine_id: EngineId,
    /,
    *,
    drain: Annotated[bool, Parameter(negative="--no-drain", help="Let it finish its requests.")] = True,
    drain_timeout: Annotated[
        float | None, Parameter(metavar="SECONDS", help="Seconds it has for that; else what its spec says.")
    ] = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Drain, stop and start an engine, and wait until it is READY.

    One that is stopped is just started.
    """
    with connect() as client:
        order = drain_order(drain=drain, drain_timeout=drain_timeout)
        answer = client.post(engine_path(engine_id, "restart"), order)
        _follow_up(client, answer, wait=wait, as_json=as_json)


def _order(client: Client, path: str, spec: Mapping[str, Any], options: Mapping[str, str]) -> Mapping[str, Any]:
    """The answer to what of ``spec`` was given. Complaints of its members speak of the ``options`` they came from."""

    def option(match: re.Match[str]) -> str:
        member = match["member"]
        return options.get(member, f"--{member.replace('_', '-')}")

    try:
        return client.post(path, {key: value for key, value in spec.items() if value is not None})
    except (ConflictError, NotFoundError, NotRunningError):
        raise
    except StokerError as error:
        told = str(error).replace("the request: ", "the command line: ", 1)
        raise StokerError(_MEMBER.sub(option, told)) from None


def _follow_up(client: Client, answer: Mapping[str, Any], *, wait: bool, as_json: bool) -> None:
    engine_ids = [str(each) for each in answer.get("engine_ids") or [answer["engine_id"]]]
    if wait:
        wait_until_ready(client, engine_ids)
    if as_json:
        print_json([client.get(engine_path(engine_id)) for engine_id in engine_ids])
        return
    for engine_id in engine_ids:
        print(f"{engine_id} is {'READY' if wait else 'starting'}")


def wait_until_ready(client: Client, engine_ids: Iterable[str]) -> None:
    """Return when all of them are READY. Raises StokerError, with the engine's own error, when one is not to be."""
    waiting = list(engine_ids)
    try:
        with Activity(f"starting {', '.join(waiting)}") as activity:
            while infos := [info for engine_id in waiting if (info := _unready(client, engine_id, activity))]:
                waiting = [info["engine_id"] for info in infos]
                _tell(client, infos[0], activity)
                activity.pause()
    except KeyboardInterrupt:
        for engine_id in waiting:
            warn(f"{engine_id} goes on starting; stop it with: {program()} engine stop {engine_id}")
        raise


def _unready(client: Client, engine_id: str, activity: Activity) -> dict[str, Any] | None:
    """What there is to say of an engine that starts; None for one that is READY."""
    info = client.get(engine_path(engine_id))
    match info["state"]:
        case "READY":
            return None
        case "ERROR":
            reason = f" ({info['reason']})" if info.get("reason") else ""
            raise StokerError(
                f"engine {engine_id!r} did not become READY{reason}: {info['last_error']}\n"
                + (f"Its whole log: {program()} engine logs {engine_id}\n" if _last_words(client, engine_id) else "")
                + f"Try again: {program()} engine restart {engine_id}; "
                f"take it off the list: {program()} engine stop {engine_id} --forget"
            )
        case "STOPPED":
            raise StokerError(f"engine {engine_id!r} was stopped before it was READY")
    waits = info["reason"] if info["reason"].startswith("waits") else ""
    activity.say(f"{engine_id} is {info['state']}" + (f": it {waits}" if waits else ""))
    return info


def _tell(client: Client, info: Mapping[str, Any], activity: Activity) -> None:
    """How far it is; where its log tells nothing that anybody understands, the last line of that."""
    engine_id = info["engine_id"]
    if (progress := info.get("progress")) is None:
        words = _last_words(client, engine_id)
        activity.update("" if HEADING.match(words) else words)
        return
    activity.say(f"{engine_id}: {progress['phase']}")
    activity.update(info["reason"], progress["fraction"])


def _last_words(client: Client, engine_id: str) -> str:
    """The last line it logged."""
    return "".join(client.text(engine_path(engine_id, "logs"), tail=1)).strip()


def _require_no_engine(client: Client, model: str) -> None:
    """Raises ConflictError where ``model`` is the id of an engine: who types that means that engine."""
    with contextlib.suppress(NotFoundError):
        info = client.get(engine_path(model))
        raise ConflictError(
            f"there is an engine {model!r} already, and it is {info['state']}; to start that one again: "
            f"{program()} engine restart {model}; to start another one, name its --runtime"
        )


def _absolute(model: str) -> str:
    """``model``, made absolute if it is a path: the gateway runs in another folder."""
    path = Path(model).expanduser() if model.startswith("~/") else Path(model)
    return str(path.absolute()) if model.startswith(("./", "../", "~/")) or path.is_file() else model


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    wrong = [Mistake("", f"must be KEY=VALUE, not {pair!r}") for pair in pairs if not pair.partition("=")[1]]
    if wrong:
        raise ConfigError("--env", wrong)
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}

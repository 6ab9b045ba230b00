"""Writes the pages that are drawn from the code: ``python3 docs/generate.py``, after a change of what they show."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_overloads

import attrs
from surfaces import commands, endpoints

from stoker import client, hookspecs
from stoker.builtin.policies import AtRandom, LeastLoad, PowerOfTwo, PrefixAffinity, RoundRobin, SessionAffinity
from stoker.config.schema import reference
from stoker.contracts import Configurable, EngineRuntime, Explaining, GpuScheduler, Narrating, RoutingPolicy
from stoker.core.states import TRANSITIONS, mermaid
from stoker.model import (
    NOTHING,
    AdapterPaths,
    Candidate,
    EngineInfo,
    EngineLoad,
    EngineSpec,
    EnvironmentSpec,
    Gpu,
    GpuProcess,
    LaunchPlan,
    Placement,
    Refusal,
    RequestRecord,
    Reservation,
    Reservations,
    RouteRequest,
    SleepPaths,
    StartProgress,
    TokenProbe,
)
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings
from stoker.testing.comparing import compare

REFERENCE = Path(__file__).resolve().parent / "reference"
ROUTING = Path(__file__).resolve().parent / "explanation" / "routing.md"
SIMULATED = ("<!-- simulated: begin -->", "<!-- simulated: end -->")

ENGINE_STATES = """\
# Engine states

<!-- Drawn from src/stoker/core/states.py by docs/generate.py; change it there. -->

An engine is in one of five states. Whatever else there is to say about it stands beside the state, in the fields
`reason`, `last_error`, `last_exit`, `restart_at` and `consecutive_failures` of `GET /v1/management/engines`.

| state | meaning |
| --- | --- |
| STARTING | its process is being started, or its URL is being tried; it has not answered a readiness probe yet |
| READY | it answers, and gets requests |
| DRAINING | it gets no new requests, finishes those it has, and is then stopped |
| STOPPED | it was told to stop, and nothing of it is left |
| ERROR | it failed; `restart_at` says when it is started again, and is empty when it won't be |

```mermaid
{diagram}
```

| from | trigger | to |
| --- | --- | --- |
{table}

An event that the table does not have raises `IllegalTransition`: it would be a defect of Stoker, not of an engine.

- *Process exit* is seen at once, through a file descriptor of the process, not at the next probe.
- *Probes failed* means `probe_failures` of them in a row (three, unless the spec says otherwise). A probe that times
  out while the engine is busy and moving does not count.
- *Restart* follows a failure after a random delay of up to `restart_base_seconds`, doubled with each attempt and capped
  at `restart_cap_seconds`. After `restart_limit` attempts without a healthy period (`healthy_seconds`) between them the
  engine stays in ERROR until somebody starts it.
- *The verified stop*: SIGTERM to the process group, then, after `stop_grace_seconds`, SIGKILL to every process of the
  session. STOPPED is said only when all of them are gone.
- An engine that sleeps (`asleep`) stays READY: its process lives, answers its health path, and gets no requests until
  it is woken.
- ERROR to READY is for registered engines, the URLs somebody named: when one answers again, it is taken
  back; one that had stalled, when it has answered a request.
"""


CONFIGURATION = """\
# Configuration

<!-- The tables are drawn from src/stoker/config/rules.py by docs/generate.py; change them there. -->

`stoker up` reads the file that `-c` names, or `stoker.toml` in the current folder. It is TOML; nothing in
it is required.

```toml
[gateway]
listen = "127.0.0.1:8000"
policy = "least-load"

[[engine]]
model = "Qwen/Qwen2.5-0.5B-Instruct"       # what the engine loads
names = ["qwen"]                           # what clients may call it, besides
runtime = "vllm"
replicas = 2
gpus = 1
args = ["--max-model-len", "8192"]
max_concurrency = 64

[[engine]]
model = "m"
runtime = "remote"
url = "http://127.0.0.1:9001"

[runtime.vllm]
python = "/opt/vllm/bin/python"
```

- `stoker config check` names every mistake at once, each with its path (`engine[1].gpus`), and changes nothing.
- `stoker config show` prints the whole configuration with its defaults, as TOML.
- `stoker config schema` prints the JSON Schema of the file, for editors.
- `POST /v1/management/reload` reads the file again and touches only the engines that changed; other
  settings that changed are named in `at_next_start`, and count from the next start on.

Values are taken as they are written: `"8"` is not `8`, `true` is not `1`. Durations are seconds, with a fraction if you
like. Paths that begin with `./`, `../` or `~/`, and relative `python` and `cwd`, start at the folder of the file. One
name can't mean two models; two `[[engine]]` tables with the same `model` are replicas of it, and can't name two
policies. Two engines can't have the same `label` or `port`.

## The top of the file

Settings without a table of their own stand before the first table.

{settings}

## `[gateway]`

Only this machine may connect as long as there are no API keys: an address that others can reach is refused. Use an SSH
tunnel, or a reverse proxy that checks who asks, and name it in `allowed_hosts`.

{gateway}

## `[sessions]`

[Keep conversations](../how-to/keep-conversations.md) says what these are about.

{sessions}

## `[[engine]]`

`required_memory_gb` (GiB, a fraction is fine) may stand for `required_memory_bytes`.

{engine}

## `[runtime.NAME]`

{runtime}

## `[policy.NAME]`

What may stand there is the policy's own affair: its page, or its plugin's, says it, and `stoker config check` tells
what it has against it. All models that go by a policy share it and its options. The policies that come with Stoker are
described in [how requests are routed](../explanation/routing.md).

```toml
[gateway]
policy = "least-load"                      # for models that name none

[[engine]]
model = "Qwen/Qwen2.5-0.5B-Instruct"
replicas = 4
policy = "session-affinity"                # for this one

[policy.session-affinity]
header = "x-conversation"
```

A reload takes up another `policy` of an engine for the requests that come after it, and restarts nothing; options count
from the next start on. `stoker route explain MODEL` says which engine a request would get, and why.

A policy that raises, or chooses an engine that it was not offered, costs no answer: `least-load` chooses then. It is
named in the log once, and counted in [`stoker_policy_failures_total`](metrics.md). One that takes more than 5 ms three
times within an hour holds up everybody, and is taken out of service: its models go by `least-load` until Stoker is
started again, and `stoker status` says so. The first slow call is logged. Accidents of a busy machine are no reason:
after the first slow call those don't count in which the processor was taken away, and a hundred quick calls in a row
make up for those in which it may have been another thread of Stoker's.

## The same over HTTP

`POST /v1/management/engines/start` takes an engine's settings as a JSON object, by the same names; null means "not
given", and `cwd` must be absolute. It also understands older names:

| older | today |
| --- | --- |
| `model_id` | `model` |
| `engine_kind` | `kind` |
| `extra_args` | `args`; may also be one text, which is split as a shell would split it (no shell is run) |
| `engine_label` | `label` |
| `max_concurrent_requests` | `max_concurrency` |
| `use_gpu` | `gpus`: true means `tensor_parallel_size` times `pipeline_parallel_size` of them (1 without), false none |
"""


def table() -> str:
    """The transitions as rows of a Markdown table."""
    return "\n".join(
        f"| {before or '(new)'} | {trigger.value} | {after} |" for (before, trigger), after in TRANSITIONS.items()
    )


def routing(page: str) -> str:
    """``page`` with how the built-in policies do on the simulated fleet. Those of chance are seeded."""
    policies: list[Callable[[], RoutingPolicy]] = [
        RoundRobin,
        lambda: AtRandom(random.Random(1)),  # noqa: S311
        LeastLoad,
        lambda: PowerOfTwo(random.Random(1)),  # noqa: S311
        SessionAffinity,
        PrefixAffinity,
    ]
    begin, end = SIMULATED
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{compare(policies)}\n\n{end}{after}"


HOOKS = """\
# Hooks

<!-- Drawn from src/stoker/hookspecs.py, contracts.py and model by docs/generate.py; change it there. -->

A plugin is a module or an object with functions of the names below, marked with `stoker.hookspecs.hookimpl`.
[How to write one](../how-to/write-a-plugin.md) goes through it step by step. The built-in runtimes, policies and
schedulers come through the same hooks.

Plugins are looked for, in this order, in

1. the places that `--plugin-path` names (it may be repeated), then those in `STOKER_PLUGIN_PATH` (separated by
   colons). A place is a module (`mine.py`) or a package that has hooks, a wheel, a folder with the sources of a
   distribution (its `pyproject.toml` names the plugin), or a folder of any of these and of what `pip install --target`
   leaves. In a folder only those modules and packages count in which `hookimpl` occurs, and no `test_….py`;
2. the folder `stoker-plugins` beside `stoker.pyz`, unless somebody else owns, or may write to, anything in it that
   could be imported, or may rename the folder or one above it. What is hidden does not count;
3. the entry-point group `stoker` of the running interpreter.

They are imported after Stoker and its libraries, whose modules they can't hide; what they print meanwhile goes to
standard error. A plugin that is found twice counts once; another one that has its name is left out. So is, whole, one
that can't be read or imported, raises, misspells a hook or makes it async, lacks a part of a contract or provides a
name that is taken: a line on standard error and `stoker plugin list` say why, and with `--strict` the command fails
instead. A place that is not there at all is an error in any case, except where help is asked for, or a command that is
none of Stoker's own: there it is only said.

{hooks}

# Contracts

What the hooks return has these shapes: `stoker.contracts`. Except for `EngineRuntime.plan` all of it is called on the
event loop, and must return at once.

{contracts}

# Records

What goes in and out: `stoker.model`. Those that you make are made with the names of their fields (`Placement(gpus=…)`),
and fields with a default may be left out.

{records}
"""

CONTRACTS = (EngineRuntime, Narrating, RoutingPolicy, Explaining, Configurable, GpuScheduler)
RECORDS = (
    EngineSpec,
    Placement,
    LaunchPlan,
    TokenProbe,
    SleepPaths,
    AdapterPaths,
    EnvironmentSpec,
    EngineLoad,
    StartProgress,
    RouteRequest,
    Candidate,
    Gpu,
    GpuProcess,
    Reservation,
    Reservations,
    Refusal,
    EngineInfo,
    RequestRecord,
)


def hooks() -> str:
    """The page of hooks."""
    specs = [value for name, value in vars(hookspecs).items() if name.startswith("stoker_")]
    return HOOKS.format(
        hooks="\n\n".join(f"## {each.__name__}\n\n{_signature(each)}\n\n{_prose(each)}" for each in specs),
        contracts="\n\n".join(map(_contract, CONTRACTS)),
        records="\n\n".join(map(_record, RECORDS)),
    )


def _contract(contract: type) -> str:
    parts = [f"## {contract.__name__}\n\n{_prose(contract)}"]
    for name, member in vars(contract).items():
        if isinstance(member, property):
            parts.append(f"**`{name}`**: `{_annotation(member.fget, 'return')}`\n\n{_prose(member)}")
        elif inspect.isfunction(member) and not name.startswith("_"):
            parts.append(f"**{_signature(member)}**\n\n{_prose(member)}")
    return "\n\n".join(parts)


def _record(record: type[attrs.AttrsInstance]) -> str:
    fields = [
        f"`{field.name}: {record.__annotations__[field.name]}{_default(field)}`" for field in attrs.fields(record)
    ]
    derived = [
        f"- {_signature(member)}: {_prose(member)}" if inspect.isfunction(member) else f"- `{name}`: {_prose(member)}"
        for name, member in vars(record).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]
    return "\n\n".join(filter(None, [f"## {record.__name__}", _prose(record), ", ".join(fields), "\n".join(derived)]))


def _default(field: attrs.Attribute[object]) -> str:
    if field.default is attrs.NOTHING:
        return ""
    if field.default is NOTHING:
        return " = {}"
    return f" = {field.default!r}"


def _signature(function: Callable[..., object]) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"`{function.__name__}({', '.join(names)}) -> {_annotation(function, 'return')}`"


def _annotation(function: object, name: str) -> str:
    return str(getattr(function, "__annotations__", {}).get(name, ""))


def _prose(thing: object) -> str:
    """A docstring as Markdown."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return re.sub(r":\w+:`[~.]?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")


CLIENT = """\
# The Python client

<!-- Drawn from src/stoker/client by docs/generate.py; change it there. -->

`stoker.client`; the two clients can also be imported from `stoker`. [The guide](../how-to/use-the-python-client.md)
says what to do with them. Every example on this page is run by the tests.

{classes}

# Errors

{tree}

{errors}
"""


def client_page() -> str:
    """The page of the Python client."""
    things = [getattr(client, name) for name in client.__all__]
    failures = [thing for thing in things if issubclass(thing, Exception)]
    first = (client.UnifiedInferenceClient, client.AsyncUnifiedInferenceClient)
    others = [thing for thing in things if thing not in failures and thing not in first]
    tree = inspect.cleandoc(client.errors.__doc__ or "").partition("::\n\n")[2]
    return CLIENT.format(
        classes="\n\n".join(map(_class, (*first, *others))),
        tree="```\n{}\n```".format(inspect.cleandoc(tree).replace("``", "")),
        errors="\n\n".join(f"## {each.__name__}\n\n{_prose(each)}" for each in failures),
    )


def _class(kind: type) -> str:
    if attrs.has(kind):
        return _record(kind)
    parts = [f"## {kind.__name__}", _with_examples(kind)]
    for base in [base for base in kind.__mro__ if base.__module__.startswith("stoker.client")]:
        for name, member in vars(base).items():
            plain = member.__func__ if isinstance(member, classmethod) else member
            if name.startswith("_"):
                continue
            if isinstance(plain, property):
                parts += [f"**`{name}`**: `{_annotation(plain.fget, 'return')}`", _with_examples(plain)]
            elif inspect.isfunction(plain):
                parts += [f"**{_call(plain)}**", _with_examples(plain)]
    return "\n\n".join(parts)


def _call(function: Callable[..., object]) -> str:
    """How a method is called, and what it returns: all it may return, where that depends on how it is called."""
    overloads = get_overloads(function)
    shown = overloads[0] if overloads else function
    words: list[str] = []
    for parameter in inspect.signature(shown).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        words += [star + parameter.name] if parameter.name not in ("self", "cls") else []
    returned = [_annotation(each, "return") for each in overloads or [function]]
    results = " | ".join(each for each in dict.fromkeys(returned) if each != "Any" or len(returned) == 1)
    kind = "async " if inspect.iscoroutinefunction(function) else ""
    return f"`{kind}{function.__name__}({', '.join(words)}) -> {results}`"


def _with_examples(thing: object) -> str:
    """A docstring as Markdown, its examples fenced."""
    fenced = re.sub(
        r"^>>>.*\n?(?:.+\n?)*", lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", _prose(thing), flags=re.MULTILINE
    )
    return fenced.rstrip()


COMMANDS_PAGE = """\
<!-- Drawn from the code by docs/generate.py. -->

# Commands and options

Every command, with all that can be given to it. [The command line](cli.md) says how they are used.

{commands}"""

ENDPOINTS_PAGE = """\
<!-- Drawn from the code by docs/generate.py. -->

# Endpoints

Every path, its methods, and the statuses that it may answer with. [HTTP](http.md) says how they are used;
`/openapi.json` of a running gateway has parameters, bodies and answers besides.

| path | method | what | statuses |
| --- | --- | --- | --- |
{endpoints}
"""


def pages() -> Mapping[Path, str]:
    """Every generated page: where it stands, and what it should say."""
    configuration = CONFIGURATION.format(
        settings=reference(Settings),
        gateway=reference(GatewaySettings),
        sessions=reference(SessionSettings),
        engine=reference(EngineSpec),
        runtime=reference(RuntimeSettings),
    )
    return {
        REFERENCE / "engine-states.md": ENGINE_STATES.format(diagram=mermaid(), table=table()),
        REFERENCE / "configuration.md": configuration,
        REFERENCE / "hooks.md": hooks(),
        REFERENCE / "client.md": client_page(),
        REFERENCE / "commands.md": COMMANDS_PAGE.format(commands=commands()),
        REFERENCE / "endpoints.md": ENDPOINTS_PAGE.format(endpoints=endpoints()),
        ROUTING: routing(ROUTING.read_text()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)

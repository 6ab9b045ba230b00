"""The tree of commands: their names, what each is for in one line, and where it is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from cyclopts import App, Parameter

from stoker import __version__
from stoker.cli.outside import epilogue

HELP = ("--help", "-h")
COMPLETE = "__complete"  # what the scripts of `completion` call
ABOUT = "Keeps inference engines running and puts one OpenAI-compatible address in front of them."

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "up": ("up:up", "Run the gateway and the engines of stoker.toml in the foreground."),
        "demo": ("demo:demo", "Run a small chat model and an embedding model, and let one answer a question."),
        "chat": ("chat:chat", "Chat with a model at the terminal, or ask it one question."),
        "status": ("status:status", "Show how the gateway is and what its engines do."),
        "doctor": ("doctor:doctor", "Look for what is wrong here, and for processes that nobody watches."),
        "audit": ("audit:audit", "Show who changed what through management."),
        "gpu": ("gpu:gpu", "Show the GPUs of this machine and who uses them."),
        "completion": ("completion:completion", "Print what makes a shell complete commands, ids and models."),
    }
)

GROUPS: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = MappingProxyType(
    {
        "gateway": (
            "Run the gateway in the background.",
            {
                "start": ("gateway:start", "Start the gateway in the background and wait until it answers."),
                "stop": ("gateway:stop", "Stop the gateway and its engines, and wait until they are gone."),
                "restart": ("gateway:restart", "Replace the gateway by what its file is by now; engines run on."),
                "reload": ("gateway:reload", "Read stoker.toml again, do what changed in it, and say what."),
                "status": ("gateway:status", "Show whether the gateway runs, and where."),
                "logs": ("gateway:logs", "Show the end of what a gateway in the background logged."),
            },
        ),
        "engine": (
            "Manage engines.",
            {
                "list": ("engine:listing", "List all engines."),
                "show": ("engine:show", "Show one engine in detail."),
                "start": ("starting:start", "Start an engine and wait until it is READY."),
                "register": ("starting:register", "Route to an engine that runs already, by its URL."),
                "stop": ("engine:stop", "Drain and stop an engine, and wait until nothing of it is left."),
                "restart": ("starting:restart", "Drain, stop and start an engine, and wait until it is READY."),
                "prune": ("pruning:prune", "Forget engines that have ended, and end processes that nobody watches."),
                "sleep": ("tending:sleep", "Let an engine finish its requests, and put it to sleep."),
                "wake": ("tending:wake", "Wake an engine."),
                "logs": ("engine:logs", "Show the end of what an engine printed."),
            },
        ),
        "route": (
            "Look at routing.",
            {"explain": ("route:explain", "Say which engine a request would get, and why, without sending it.")},
        ),
        "config": (
            "Look at stoker.toml.",
            {
                "check": ("config:check", "Name every mistake in stoker.toml, each with its path; change nothing."),
                "show": ("config:show", "Show all of the configuration, with the defaults."),
                "schema": ("config:print_schema", "Print the JSON Schema of stoker.toml."),
            },
        ),
        "runtime": (
            "Install what engines need, in environments of their own.",
            {
                "list": ("runtime:listing", "List the runtimes and their environments."),
                "install": (
                    "runtime:install",
                    "Install a runtime's environment, or complete one that was interrupted.",
                ),
                "remove": ("runtime:remove", "Remove a runtime's environment."),
            },
        ),
        "key": (
            "Manage API keys.",
            {
                "create": ("key:create", "Make an API key and print it; it can't be shown again."),
                "list": ("key:listing", "List the keys: what each may do, and whether it still does."),
                "revoke": ("key:revoke", "Revoke a key, at once and for good."),
            },
        ),
        "session": (
            "Look after stored conversations.",
            {
                "list": ("session:listing", "List the sessions, the one last used first."),
                "show": ("session:show", "Show a session, and what was said in it."),
                "export": ("session:export", "Print all of a session as one JSON document."),
                "import": ("session:take_in", "Make a session of an export, and print its id."),
                "rename": ("session:rename", "Give a session another title."),
                "clear": ("session:clear", "Forget what was said in a session, and keep the session."),
                "delete": ("session:delete", "Forget sessions, and all that was said in them."),
                "cleanup": ("session:cleanup", "Forget the sessions in which nothing happened for long."),
            },
        ),
        "plugin": ("Look at plugins.", {"list": ("plugin:listing", "List the plugins and what they provide.")}),
    }
)

# Groups within groups: by the name of the outer one.
SUBGROUPS: Mapping[str, Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]]] = MappingProxyType(
    {
        "engine": {
            "adapter": (
                "Change the LoRA adapters of an engine that runs.",
                {
                    "list": (
                        "tending:adapters",
                        "List the LoRA adapters that were loaded into an engine while it runs.",
                    ),
                    "load": ("tending:load", "Load a LoRA adapter; clients can ask for it until the engine ends."),
                    "unload": ("tending:unload", "Unload a LoRA adapter."),
                },
            )
        }
    }
)


def is_ours(word: str) -> bool:
    """Whether a word on the command line is one of Stoker's own commands or groups."""
    return word in COMMANDS or word in GROUPS


def paths() -> Iterator[str]:
    """Every command of ours as it is typed: ``up``, ``engine list``, ``engine adapter list``."""
    yield from COMMANDS
    for group, (_, names) in GROUPS.items():
        yield from (f"{group} {name}" for name in names)
        for inner, (_, inner_names) in SUBGROUPS.get(group, {}).items():
            yield from (f"{group} {inner} {name}" for name in inner_names)


def wants_plugins(arguments: Sequence[str]) -> bool:
    """Whether a command line is about something that only plugins may know: the list of all commands, or another.

    A shell that completes a word has no time for them, unless the word belongs to a command of theirs.
    """
    if arguments[:1] == [COMPLETE]:
        return len(arguments) > 2 and wants_plugins(arguments[1:2])
    if not arguments or arguments[0] in HELP:
        return True
    return not (arguments[0].startswith("-") or is_ours(arguments[0]))


def whole(app: App) -> str:
    """All that one of our commands, imported, says of itself: its docstring, a line for each paragraph."""
    paragraphs = inspect.cleandoc(app.default_command.__doc__ or app.help).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class Commands(App):
    """The tree, which shows on the page of one command all it says of itself. Lists have the line that stands here."""

    def help_print(
        self,
        tokens: Annotated[str | Iterable[str] | None, Parameter(show=False)] = None,
        *,
        console: Annotated[Any, Parameter(parse=False)] = None,
    ) -> None:
        """Print the page of what ``tokens`` name."""
        chain, apps, _ = self.parse_commands(tokens)
        if " ".join(chain) in paths():
            apps[-1].help = whole(apps[-1])
        super().help_print(tokens, console=console)


def make_app() -> App:
    """All commands of Stoker's own, none imported yet. Calling the app returns the command's exit code or None."""
    app = Commands(
        name="stoker",
        help=ABOUT,
        help_epilogue=epilogue(),
        help_format="plaintext",
        help_formatter="default" if sys.stdout.isatty() else "plain",
        version=f"stoker {__version__}",
        version_flags=["--version", "-V"],
        default_parameter=Parameter(negative=(), show_default=False),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    _add(app, COMMANDS)
    for name, (about, commands) in GROUPS.items():
        group = _group(name, about, commands)
        for inner, (inner_about, inner_commands) in SUBGROUPS.get(name, {}).items():
            group.command(_group(inner, inner_about, inner_commands))
        app.command(group)
    return app


def _group(name: str, about: str, commands: Mapping[str, tuple[str, str]]) -> App:
    group = App(name=name, help=about, help_epilogue="")
    _add(group, commands)
    return group


def _add(app: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for name, (where, about) in commands.items():
        app.command(f"stoker.cli.{where}", name=name, help=about, help_epilogue="")

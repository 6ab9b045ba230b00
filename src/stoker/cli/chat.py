"""``stoker chat``: a conversation with a model at a terminal, or one question and its answer."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from stoker.cli.activity import warn
from stoker.cli.chatting.conversation import Conversation, Ending
from stoker.cli.chatting.editing import open_lines
from stoker.cli.chatting.gateway import Gateway
from stoker.cli.chatting.loop import Chat, Loop, about_session, model_names
from stoker.cli.chatting.plain_text import one_line, sound
from stoker.cli.chatting.screen import Screen
from stoker.cli.chatting.typed import completions
from stoker.cli.completing import completing
from stoker.cli.finding import find_gateway
from stoker.cli.outside import INTERRUPTED
from stoker.cli.terminal import console
from stoker.errors import ConfigError, Mistake
from stoker.home import Home


def chat(
    model: Annotated[
        str | None,
        Parameter(help="Whom to ask; may be left out where there is only one.", completer=completing("models")),
    ] = None,
    /,
    *,
    message: Annotated[
        str | None,
        Parameter(("--message", "-m"), metavar="TEXT", help="Ask this, print the answer and nothing else, and end."),
    ] = None,
    system: Annotated[str, Parameter("--system", metavar="TEXT", help="What the model is told before all else.")] = "",
    session: Annotated[
        str | None,
        Parameter(
            "--session",
            metavar="ID",
            help="The id of a stored conversation to go on with.",
            completer=completing("sessions"),
        ),
    ] = None,
    new_session: Annotated[
        str | None, Parameter("--new-session", metavar="TITLE", help="Begin a stored conversation with this title.")
    ] = None,
    temperature: Annotated[
        float | None, Parameter("--temperature", metavar="N", help="How freely it chooses its words.")
    ] = None,
    top_p: Annotated[
        float | None, Parameter("--top-p", metavar="N", help="From how much of the likeliest it chooses.")
    ] = None,
    max_tokens: Annotated[
        int | None, Parameter("--max-tokens", metavar="N", help="How long an answer may get.")
    ] = None,
    seed: Annotated[int | None, Parameter("--seed", metavar="N", help="For answers that can be had again.")] = None,
) -> int:
    """Chat with a model at the terminal, or ask it one question.

    With --message, or where standard input or output is no terminal, it asks one question, and prints the answer
    and nothing else. The question is read from standard input unless --message is given. In a chat, /help says
    what else there is.
    """
    if session is not None and new_session is not None:
        raise ConfigError("--session", [Mistake("", "and --new-session are one too many; give one of them")])
    at_a_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    question = None if message is None and at_a_terminal else _question(message)
    home = Home.from_environment(os.environ)
    gateway = Gateway(find_gateway(home, os.environ))
    fields = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
    chatting = _begun(gateway, model if model and question else gateway.chosen(model), sound(system), fields)
    if new_session is not None:
        begun = gateway.begin_session(new_session, system)
        chatting.session_id = str(begun["session_id"])
        if question is not None:
            warn(f"the session is {chatting.session_id}")
    elif session is not None:
        chatting.session_id = str(gateway.session(session)["session_id"])
    return _answered(chatting, question) if question is not None else _talk(chatting, home)


def _begun(gateway: Gateway, model: str, system: str, fields: dict[str, Any]) -> Chat:
    conversation = Conversation(system=system)
    return Chat(gateway=gateway, screen=Screen.standard(), model=model, fields=fields, conversation=conversation)


def _question(message: str | None) -> str:
    """What is asked where nobody types. Raises ConfigError where that is nothing."""
    if message is None:
        message = "" if sys.stdin is None else sys.stdin.buffer.read().decode(errors="replace")
    if not message.strip():
        raise ConfigError("--message", [Mistake("", "it must have a question in it, where standard input has none")])
    return sound(message)


def _answered(chatting: Chat, question: str) -> int:
    """Print what is answered, and nothing else."""
    chatting.screen.styled = False
    heard = chatting.ask(question, thoughts=False)
    if heard.error is not None:
        raise heard.error
    if heard.ending is Ending.STOPPED:
        return INTERRUPTED
    return 0


def _talk(chatting: Chat, home: Home) -> int:
    screen, gateway = chatting.screen, chatting.gateway
    names = model_names(gateway)
    lines = open_lines(
        home.chat_history,
        styled=screen.styled,
        dumb=console().is_dumb_terminal,
        complete=lambda begun: completions(begun, names() if begun.startswith("/model ") else ()),
    )
    screen.note(f"{one_line(chatting.model)} at {gateway.address.url}; /help lists what else there is, Ctrl-D ends it")
    if chatting.session_id is not None:
        screen.note(about_session(gateway.session(chatting.session_id)))
    return Loop(chat=chatting, lines=lines, screen=screen).run()

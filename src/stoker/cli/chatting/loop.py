"""The chat itself: reads what is typed, does it, and goes on whatever comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.cli.chatting import saving
from stoker.cli.chatting.conversation import Conversation, Ending, Turn
from stoker.cli.chatting.editing import Lines
from stoker.cli.chatting.gateway import Gateway
from stoker.cli.chatting.hearing import Asked, Heard, hear
from stoker.cli.chatting.plain_text import sound
from stoker.cli.chatting.screen import Screen, measured
from stoker.cli.chatting.typed import Draft, Mistake, Order, Question, help_lines
from stoker.cli.invocation import as_typed
from stoker.cli.outside import DONE, INTERRUPTED
from stoker.errors import StokerError

PROMPT, GOING_ON = "> ", ". "


@attrs.define(kw_only=True)
class Chat:
    """A conversation with ``model``. With a ``session_id`` the gateway keeps what is said, else this does."""

    gateway: Gateway
    screen: Screen
    model: str
    fields: Mapping[str, Any]
    conversation: Conversation
    session_id: str | None = None

    def ask(self, question: str, *, thoughts: bool = True) -> Heard:
        """Ask, show what is answered as it comes, and keep it. ``thoughts`` says whether to show what it thinks."""
        address = self.gateway.address
        asked = Asked(
            url=address.url,
            key=address.token,
            model=self.model,
            messages=self.conversation.asking(question, kept_elsewhere=self.session_id is not None),
            fields={**self.fields, "session_id": self.session_id},
        )
        heard = hear(asked, self.screen.piece, self.screen.thought if thoughts else lambda _: None)
        self.screen.end_line()
        if heard.error is not None:
            heard.error = self.gateway.in_our_words(heard.error)
        turn = Turn(question=question, answer=heard.text, model=self.model, ending=heard.ending)
        self.conversation = self.conversation.and_then(turn)
        return heard

    def take_back(self) -> str | None:
        """Forget the last turn, and return its question; None where there is none."""
        last = self.conversation.last
        question = None if last is None else last.question
        if self.session_id is not None:
            question = self._take_back_from(self.session_id, last)
        if last is not None:
            self.conversation = self.conversation.without_last()
        return question

    def record(self) -> saving.Record:
        """All that was said."""
        if self.session_id is None:
            return saving.record_of(self.conversation)
        session = self.gateway.session(self.session_id)
        return saving.record_of_session(session, self.gateway.messages(self.session_id))

    def _take_back_from(self, session_id: str, last: Turn | None) -> str | None:
        kept = self.gateway.last_turn(session_id)
        if last is None:
            if kept is None:
                return None
            if kept.question is None:
                raise StokerError("the last question was more than text, and can't be asked from here")
            self.gateway.forget_turn(session_id, kept.number)
            return kept.question
        # Of what an engine refused nothing is kept: then the last turn there is another one, and stays.
        if kept and kept.question == last.question and (kept.aborted or last.ending is Ending.WHOLE):
            self.gateway.forget_turn(session_id, kept.number)
        return last.question


@attrs.define(kw_only=True)
class Loop:
    """Talks to somebody at a terminal until that one has enough."""

    chat: Chat
    lines: Lines
    screen: Screen
    _orders: dict[str, Callable[[Order], None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._orders = {
            "help": lambda _: self.screen.lines(help_lines()),
            "model": self._model,
            "system": self._system,
            "retry": self._retry,
            "save": self._save,
            "session": self._session,
            "clear": self._clear,
        }

    def run(self) -> int:
        """The exit code: 0 for an end, 130 for Ctrl-C twice."""
        draft, interrupted = Draft(), False
        while True:
            try:
                line = self.lines.read(GOING_ON if draft.begun else PROMPT)
                interrupted = False
                self.lines.remember(line)
                typed = draft.with_line(sound(line))
                draft = typed if isinstance(typed, Draft) else Draft()
                if typed == Order("exit"):
                    return DONE
                if typed is not None and not isinstance(typed, Draft):
                    self._do(typed)
            except EOFError:
                self.screen.lines([""])
                return DONE
            except KeyboardInterrupt:
                if interrupted:
                    self.screen.lines([""])
                    return INTERRUPTED
                draft, interrupted = Draft(), True
                self.screen.note("\nCtrl-C again ends it; so does Ctrl-D")

    def _do(self, typed: Question | Order | Mistake) -> None:
        """Whatever goes wrong is told in a line, and the chat goes on."""
        try:
            match typed:
                case Question(text):
                    self._ask(text)
                case Mistake(message):
                    self.screen.problem(message)
                case Order(name):
                    self._orders[name](typed)
        except StokerError as error:
            self.screen.problem(as_typed(str(error)))

    def _ask(self, question: str) -> None:
        heard = self.chat.ask(question)
        if heard.error is not None:
            self.screen.problem(as_typed(str(heard.error)))
        elif line := measured(heard):
            self.screen.note(line)

    def _model(self, order: Order) -> None:
        if order.argument:
            self.chat.model = self.chat.gateway.chosen(order.argument)
            self.screen.note(f"{self.chat.model} answers from now on")
            return
        models = self.chat.gateway.models()
        rows = [
            f"{'*' if self.chat.model in each.names else ' '} {', '.join(each.names)}"
            + ("" if each.ready else "  (not READY)")
            for each in models
        ]
        self.screen.lines(rows or ["there is no model to chat with"])

    def _system(self, order: Order) -> None:
        chat = self.chat
        if order.argument == "-":
            chat.conversation = chat.conversation.told("")
            stays = chat.session_id is not None
            self.screen.note("the session's own instructions hold" if stays else "it is told nothing from now on")
        elif order.argument:
            chat.conversation = chat.conversation.told(order.argument)
            self.screen.note("it is told so from the next question on")
        else:
            self.screen.lines([chat.conversation.system or self._instructions() or "it is told nothing"])

    def _instructions(self) -> str:
        if self.chat.session_id is None:
            return ""
        instructions = self.chat.gateway.session(self.chat.session_id)["instructions"]
        return "\n".join(str(each.get("content", "")) for each in instructions)

    def _retry(self, _: Order) -> None:
        question = self.chat.take_back()
        if question is None:
            self.screen.problem("nothing was asked yet")
            return
        self.screen.note(f"{PROMPT}{question}")
        self._ask(question)

    def _save(self, order: Order) -> None:
        if not order.argument:
            raise StokerError("say where: /save FILE, which ends in .md or .json")
        path = Path(order.argument).expanduser()
        text = saving.written(self.chat.record(), path)
        if text is None:
            raise StokerError(f"{path} must end in .md (for people) or .json (for programs, and session import)")
        try:
            with path.open("w" if order.forced else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise StokerError(f"{path} is there already; /save! {path} replaces it") from None
        except OSError as error:
            raise StokerError(f"{path} can't be written: {error.strerror}") from error
        self.screen.note(f"the conversation is in {path}")

    def _session(self, order: Order) -> None:
        chat = self.chat
        word, _, title = order.argument.partition(" ")
        match word:
            case "":
                self._show_session()
                return
            case "none":
                chat.session_id = None
            case "new":
                chat.session_id = str(chat.gateway.begin_session(title.strip())["session_id"])
            case _:
                chat.session_id = str(chat.gateway.session(word)["session_id"])
        chat.conversation = chat.conversation.cleared()
        self._show_session()

    def _show_session(self) -> None:
        if self.chat.session_id is None:
            self.screen.note("no session: what is said here is kept nowhere else, and forgotten at the end")
            return
        self.screen.note(about_session(self.chat.gateway.session(self.chat.session_id)))

    def _clear(self, _: Order) -> None:
        if self.chat.session_id is not None:
            self.chat.gateway.clear(self.chat.session_id)
        self.chat.conversation = self.chat.conversation.cleared()
        self.screen.note("all that was said is forgotten")


def about_session(session: Mapping[str, Any]) -> str:
    """A session in a line."""
    title = f" {session['title']!r}" if session["title"] else ""
    return f"session {session['session_id']}{title}, {session['message_count']} messages"


def model_names(gateway: Gateway) -> Callable[[], tuple[str, ...]]:
    """What gives all names of models, and none where nobody can be asked."""

    def names() -> tuple[str, ...]:
        try:
            return tuple(name for model in gateway.models() for name in model.names)
        except StokerError:
            return ()

    return names

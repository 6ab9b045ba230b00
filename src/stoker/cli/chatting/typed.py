"""What somebody typed: lines become an input, and an input a question, an order, or a mistake. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from stoker.suggesting import meant

QUOTES = '"""'

ORDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "help": ("", "Show this."),
        "model": ("[NAME]", "List the models, or go on with another one."),
        "system": ("[TEXT]", "Show its instructions, or set them; - for none."),
        "retry": ("", "Drop the last answer and ask again."),
        "save": ("FILE", "Save as .md or .json; /save! replaces a file."),
        "session": ("[ID|new [TITLE]|none]", "Show the session; take another one, or none."),
        "clear": ("", "Forget what was said."),
        "exit": ("", "End. So does Ctrl-D."),
    }
)
"""Every order: what it takes, and what it does."""

_ALSO = {"quit": "exit", "bye": "exit", "?": "help"}


@attrs.frozen
class Question:
    """Something for the model."""

    text: str


@attrs.frozen
class Order:
    """Something for the program. ``forced`` is true where a ``!`` stands behind its name."""

    name: str
    argument: str = ""
    forced: bool = False


@attrs.frozen
class Mistake:
    """Something that is neither. ``message`` says what to do."""

    message: str


@attrs.frozen
class Draft:
    """The lines of an input so far. Lines that end in a backslash go on; so does what stands in triple quotes."""

    lines: tuple[str, ...] = ()
    quoted: bool = False

    @property
    def begun(self) -> bool:
        """Whether there is something in it."""
        return self.quoted or bool(self.lines)

    def with_line(self, line: str) -> Draft | Question | Order | Mistake | None:
        """What it comes to with one more line: another draft, something whole, or None for nothing at all."""
        if self.quoted:
            return _in_quotes(self, line)
        if not self.lines and line.lstrip().startswith(QUOTES):
            return _in_quotes(Draft(quoted=True), line.lstrip().removeprefix(QUOTES))
        if line.endswith("\\"):
            return attrs.evolve(self, lines=(*self.lines, line.removesuffix("\\")))
        return understood("\n".join((*self.lines, line)))


def _in_quotes(draft: Draft, line: str) -> Draft | Question | None:
    before, end, after = line.rpartition(QUOTES)
    if not end or after.strip():
        return attrs.evolve(draft, lines=(*draft.lines, line))
    text = "\n".join((*draft.lines, before)).strip("\n")
    return Question(text) if text.strip() else None


def understood(text: str) -> Question | Order | Mistake | None:
    """What an input means; None where it is empty. ``//`` begins a question that begins with ``/``."""
    said = text.strip()
    if not said:
        return None
    if not said.startswith("/"):
        return Question(said)
    if said.startswith("//"):
        return Question(said[1:])
    word, *rest = said[1:].split(maxsplit=1) or [""]
    name = word.removesuffix("!").lower()
    name = _ALSO.get(name, name)
    forced = word.endswith("!")
    if name in ORDERS and (not forced or name == "save"):
        return Order(name, "".join(rest), forced)
    near = meant(name, tuple(ORDERS))
    hint = f"did you mean /{near[0]}?" if near else "/help lists those there are"
    return Mistake(f"there is no /{word}; {hint} (to say it to the model, type //{word})")


def completions(begun: str, models: tuple[str, ...]) -> list[str]:
    """What a line that begins so may go on as: the whole of its last word."""
    if begun.startswith("/model "):
        word = begun.removeprefix("/model ")
        return [name for name in models if name.startswith(word)]
    if begun.startswith("/") and " " not in begun:
        heads = {f"/{name}": " " if takes else "" for name, (takes, _) in ORDERS.items()}
        return [head + space for head, space in heads.items() if head.startswith(begun)]
    return []


def help_lines() -> list[str]:
    """The orders for people, and how to type."""
    heads = {name: f"/{name} {takes}".rstrip() for name, (takes, _) in ORDERS.items()}
    wide = max(map(len, heads.values()))
    return [
        *(f"{heads[name].ljust(wide)}  {does}" for name, (_, does) in ORDERS.items()),
        "",
        "A line that ends in \\ goes on in the next one.",
        f"{QUOTES} begins and ends a text of several lines.",
        "A line that begins with a space is not kept in the history.",
        "Ctrl-C stops an answer.",
    ]

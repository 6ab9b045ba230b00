"""The pages of this repository, and what stands in them to be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page for places in ("*.md", "docs/**/*.md", "plugins/*/*.md", "examples/**/*.md") for page in ROOT.glob(places)
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = frozenset({"sh", "console"})
SHOWN = frozenset({"", "json", "mermaid", "nginx", "text", "yaml"})
"""Languages of what is there to look at."""

_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_ENDS = frozenset({"|", "&&", ";", "||"})


@attrs.frozen
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> Sequence[str]:
        """What a shell is given, each command with the lines that it goes on over."""
        lines = self.text.splitlines(keepends=True)
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        joined = "".join(lines).replace("\\\n", "\0")
        found = (line.replace("\0", "\\\n") for line in joined.splitlines())
        return [line for line in found if line.strip() and not line.startswith("#")]

    @property
    def shown(self) -> Sequence[str]:
        """What a ``console`` block says that its commands print."""
        lines = self.text.splitlines() if self.language == "console" else []
        return [line for line in lines if not line.startswith("$ ")]


def blocks(pages: Iterable[Path] = PAGES, languages: Iterable[str] = TYPED) -> list[Block]:
    """Every block in one of these languages."""
    wanted = frozenset(languages)
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for page in pages
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
        if found[1] in wanted
    ]


def said_to_stoker(command: str) -> Iterator[list[str]]:
    """The arguments of every ``stoker …`` in a line, however it is called there."""
    part: list[str] = []
    for word in [*_words(command), ";"]:
        if word not in _ENDS:
            part.append(word)
            continue
        while part and _ASSIGNMENT.fullmatch(part[0]):
            del part[0]
        yield from _arguments(part)
        part = []


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _arguments(words: Sequence[str]) -> Iterator[list[str]]:
    match words:
        case ["stoker", *rest] | ["python3" | "python", "-m", "stoker", *rest]:
            yield rest
        case ["sage", *_]:
            yield list(words)
        case ["python3", "zipapp.py", "--run", *rest]:
            yield rest
        case ["python3", file, *rest] if file.endswith("stoker.pyz"):
            yield rest
        case ["runuser", *rest] if "python3" in rest:
            yield from _arguments(rest[rest.index("python3") :])
        case ["podman", "run", *rest]:  # the last "stoker" is the image, whose entry point is Stoker
            arguments = rest[len(rest) - rest[::-1].index("stoker") :]
            yield from [arguments] if arguments else []

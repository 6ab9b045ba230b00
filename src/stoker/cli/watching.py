"""Shows something again and again, as it changes, until Ctrl-C: on a screen of its own, in lines, or as JSON."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeVar

import attrs
import httpx2
import trio
from rich.console import Console, Group
from rich.screen import Screen as RichScreen
from rich.text import Text

from stoker.cli.activity import warn
from stoker.cli.client import CONNECT_SECONDS, MANAGEMENT, headers, verification
from stoker.cli.finding import find_gateway
from stoker.cli.pages import Page, drawable, json_line, plain_lines
from stoker.cli.terminal import can_redraw, console
from stoker.errors import ConfigError, Mistake, StokerError
from stoker.home import Home

SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 86400.0
REST_SECONDS = 0.2  # between two looks, however much happens
MOVING = frozenset({"uptime_seconds", "last_heartbeat", "consecutive_failures"})  # with every look or probe: no change
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Shown(Protocol[T_contra]):
    """Where what was found goes."""

    def show(self, found: T_contra) -> None:
        """What there is now."""
        ...

    def trouble(self, message: str) -> None:
        """Why there is nothing now."""
        ...


def keep_showing(
    look: Callable[[], T], page: Callable[[T], Page], *, as_json: bool, seconds: float, events: bool
) -> None:
    """Return when Ctrl-C or SIGTERM ends it. Raises what the first ``look`` raises; later troubles are shown."""
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ConfigError("--watch", [Mistake("", f"must be from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g}")])
    first = look()
    screen = console()
    if as_json:
        trio.run(_watch, look, first, Written(_as_json), seconds, events)
    elif not can_redraw(screen):
        trio.run(_watch, look, first, Written(_as_lines(page), between="\n"), seconds, events)
    else:
        with screen.screen(hide_cursor=True):  # the one with what was typed comes back in the end
            trio.run(_watch, look, first, Screen(screen, page, seconds), seconds, events)


Writing = Callable[[Any], tuple[object, str]]
"""How what was found is written, and what of it has to be another one for it to be written anew."""


def _as_json(found: object) -> tuple[object, str]:
    return _at_rest(found), json_line(found)


def _as_lines(page: Callable[[Any], Page]) -> Writing:
    def write(found: object) -> tuple[object, str]:
        text = "\n".join(plain_lines(page(found)))
        return text, text

    return write


def _at_rest(found: object) -> object:
    """What there is of it besides what always moves."""
    match found:
        case dict():
            return {name: _at_rest(value) for name, value in found.items() if name not in MOVING}
        case list() | tuple():
            return [_at_rest(each) for each in found]
    return found


@attrs.define
class Written:
    """Where nothing can be drawn over: all of it whenever it is another, with something ``between`` two."""

    _write: Writing
    _between: str = ""
    _told: object = None

    def show(self, found: object) -> None:
        """Print it, if it is another."""
        essence, text = self._write(found)
        if essence != self._told:
            if self._told is not None:
                print(end=self._between)
            self._told = essence
            print(text, flush=True)

    def trouble(self, message: str) -> None:
        """Say it on standard error, once; whatever comes then is new."""
        if self._told != (trouble := ("trouble", message)):
            self._told = trouble
            warn(f"stoker: {message}")


@attrs.define
class Screen:
    """The terminal, drawn over at every look."""

    _console: Console
    _page: Callable[..., Page]
    _seconds: float
    _found: object = None
    _trouble: str = ""

    def show(self, found: object) -> None:
        """Draw it."""
        self._found, self._trouble = found, ""
        self.draw()

    def trouble(self, message: str) -> None:
        """Draw what was there last, and why it is no longer known."""
        self._trouble = message
        self.draw()

    def draw(self) -> None:
        """Draw it at the size the terminal has now."""
        width, height = self._console.size
        what = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
        head = Text(f"{what}, every {self._seconds:g} s: {time.strftime('%H:%M:%S')}; Ctrl-C ends it", style="dim")
        head.truncate(width, overflow="ellipsis")
        top = [head, Text(self._trouble, style="bold red") if self._trouble else Text("")]
        lines = self._console.render_lines(Group(*top, *drawable(self._page(self._found), width)), pad=False)
        if len(lines) > height:
            more = len(lines) - height + 1
            lines = [*lines[: height - 1], self._console.render_lines(Text(f"… {more} lines more", style="dim"))[0]]
        text = Text("\n").join(
            Text.assemble(*((piece.text, piece.style or "") for piece in line if not piece.control)) for line in lines
        )
        self._console.print(RichScreen(text), end="")


async def _watch(look: Callable[[], T], first: T, shown: Shown[T], seconds: float, events: bool) -> None:
    """Look and show, until a signal ends it. What ends it otherwise rises as it is, in no group."""
    heard = Bell()
    failure: OSError | None = None
    # The signals come first: whoever sees something may end it.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_a_signal, signals, nursery.cancel_scope)
            if isinstance(shown, Screen):
                nursery.start_soon(_draw_anew, shown)
            if events:
                nursery.start_soon(_listen, heard, seconds)
            try:
                shown.show(first)
                await _look_for_ever(look, shown, seconds, heard)
            except OSError as error:  # nobody reads what is printed any more
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _look_for_ever(look: Callable[[], T], shown: Shown[T], seconds: float, heard: Bell) -> None:
    while True:
        await trio.sleep(min(seconds, REST_SECONDS))
        with trio.move_on_after(max(0.0, seconds - REST_SECONDS)):
            await heard.wait()
        heard.still()
        try:
            found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        except StokerError as error:
            shown.trouble(str(error))
        else:
            shown.show(found)


@attrs.define
class Bell:
    """Rings until it is told to be still."""

    _rung: trio.Event = attrs.field(factory=trio.Event)

    def ring(self) -> None:
        """Something changed."""
        self._rung.set()

    def still(self) -> None:
        """That was heard."""
        self._rung = trio.Event()

    async def wait(self) -> None:
        """Return when it rings."""
        await self._rung.wait()


async def _end_at_a_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _draw_anew(screen: Screen) -> None:
    with trio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            screen.draw()


async def _listen(heard: Bell, seconds: float) -> None:
    """Ring at every change that the gateway tells of. Where it tells nothing, there is the interval."""
    while True:
        try:
            address = find_gateway(Home.from_environment(os.environ), os.environ)
            timeout = httpx2.Timeout(CONNECT_SECONDS, read=None)
            async with (
                httpx2.AsyncClient(
                    base_url=address.url,
                    headers=headers(address),
                    timeout=timeout,
                    trust_env=not address.local,
                    verify=verification(address),
                ) as client,
                client.stream("GET", f"{MANAGEMENT}/events") as response,
            ):
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        heard.ring()
        except (StokerError, httpx2.HTTPError, OSError):
            pass  # the next look says what is wrong
        await trio.sleep(seconds)

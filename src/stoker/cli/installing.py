"""Shows how an installation goes on: a bar on a terminal, a line for each step elsewhere. All on standard error."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from stoker.cli.invocation import as_typed
from stoker.cli.output import cell
from stoker.cli.terminal import can_redraw, console
from stoker.environments import Progress as Step

# A closed terminal or a stopped session ends an installation as Ctrl-C does: with pip and its compilers.
INTERRUPTING = (signal.SIGTERM, signal.SIGHUP)


class Display:
    """A context manager in the main thread; :meth:`show` takes each step as it comes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last_step = ""
        self._last_text = ""
        self._handlers: dict[
            signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object] | int | None
        ] = {}

    def __enter__(self) -> Display:
        for number in INTERRUPTING:
            self._handlers[number] = signal.signal(number, signal.default_int_handler)
        if can_redraw(self._console):
            self._task = self._bars.add_task(f"{self._name}: installing", total=None)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._task is not None:
            self._bars.stop()
            if error is not None:  # the bar is wiped away, but where it ended is worth knowing
                self._say(self._last_text)

    def show(self, step: Step) -> None:
        """One step of the installation."""
        text = self._last_text = cell(step.text)
        if self._task is not None:
            room = max(20, self._console.width - 40)
            self._bars.update(self._task, description=f"{self._name}: {text}"[:room])
            # None would mean "unchanged" to rich; a total of None is what makes the bar pulse.
            self._bars.update(self._task, completed=step.fraction or 0.0)
            self._bars.tasks[0].total = None if step.fraction is None else 1.0
        elif step.step != self._last_step:
            self._last_step = step.step
            self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(f"{self._name}: {as_typed(text)}", markup=False, soft_wrap=True)

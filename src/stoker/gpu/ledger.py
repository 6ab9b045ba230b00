"""What engines were measured to use of their GPUs, remembered between runs in a small file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import cattrs
import trio

from stoker.errors import StokerError
from stoker.model import EngineSpec, Gpu

log = logging.getLogger("stoker.gpu")

MOST_ENTRIES = 512
MIB = 1024 * 1024

_Key = tuple[str, str, tuple[str, ...], int, str, int]


@attrs.frozen(kw_only=True)
class Entry:
    """What engines that are started alike used of each GPU of one kind, at most: ``used`` bytes in the last run,
    ``used_before`` in the one before it. ``args`` is everything of the spec that is handed to the engine.
    """

    runtime: str
    model: str
    args: tuple[str, ...]
    gpus: int
    gpu: str
    gpu_memory: int
    used: int
    used_before: int = 0
    measured_at: float

    @property
    def needed(self) -> int:
        """Bytes to promise to the next one: the maximum of two runs, so that a mistaken measurement is forgotten."""
        return max(self.used, self.used_before)

    @property
    def key(self) -> _Key:
        """What makes two engines alike."""
        return self.runtime, self.model, self.args, self.gpus, self.gpu, self.gpu_memory


@attrs.define(eq=False)
class Ledger:
    """The measurements. Looking up and noting are quick; :meth:`load` and :meth:`save` see to the file.

    The file is worth little: whatever is wrong with it costs the measurements, and is logged.
    """

    path: Path | None = None
    clock: Callable[[], float] = time.time
    _entries: dict[_Key, Entry] = attrs.field(factory=dict)
    _unsaved: bool = False
    _complained: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, the latest last."""
        return tuple(self._entries.values())

    def needed(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Bytes that an engine like this was measured to use of a GPU like this; None: never measured."""
        entry = self._entries.get(_key(spec, gpu))
        return None if entry is None else entry.needed

    def measured(self, spec: EngineSpec, gpu: Gpu, used: int, *, anew: bool) -> None:
        """An engine of ``spec`` uses that much of ``gpu``. ``anew`` is said by the first measurement of a run."""
        used = -(-used // MIB) * MIB  # the file need not be written for every page
        key = _key(spec, gpu)
        entry = self._entries.get(key)
        if used <= 0 or (entry is not None and not anew and used <= entry.used):
            return
        before = 0 if entry is None else entry.used if anew else entry.used_before
        runtime, model, args, gpus, name, total = key
        self._entries.pop(key, None)  # so that it comes last
        self._entries[key] = Entry(
            runtime=runtime,
            model=model,
            args=args,
            gpus=gpus,
            gpu=name,
            gpu_memory=total,
            used=used,
            used_before=before,
            measured_at=round(self.clock(), 3),
        )
        while len(self._entries) > MOST_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._unsaved = True

    def load(self) -> None:
        """Read the file. Blocks. One that can't be understood is set aside, beside it."""
        if self.path is None:
            return
        try:
            entries = read_ledger(self.path)
        except OSError as error:
            log.warning("what engines were measured to use of GPUs can't be read: %s", error)
            return
        except StokerError:
            aside = self.path.with_suffix(".broken")
            log.warning("%s can't be understood; it is set aside as %s, and measured anew", self.path, aside.name)
            self._move(aside)
            return
        self._entries = {entry.key: entry for entry in entries[-MOST_ENTRIES:]}

    async def save(self) -> None:
        """Write the file if anything changed, whole or not at all. Cancelled, it is written all the same."""
        if self.path is None or not self._unsaved:
            return
        self._unsaved = False
        try:
            await trio.to_thread.run_sync(_write, self.path, self.entries)
            self._complained = False
        except OSError as error:
            self._unsaved = True
            if not self._complained:
                log.warning("what engines were measured to use of GPUs can't be kept in %s: %s", self.path, error)
            self._complained = True

    def _move(self, aside: Path) -> None:
        assert self.path is not None
        try:
            self.path.replace(aside)
        except OSError as error:
            log.warning("%s can't be moved: %s", self.path, error)


def read_ledger(path: Path) -> tuple[Entry, ...]:
    """What a ledger's file holds; nothing where there is none. Blocks.

    Raises OSError where it can't be read, and StokerError where it can't be understood.
    """
    try:
        return cattrs.structure(json.loads(path.read_bytes())["entries"], tuple[Entry, ...])
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError, RecursionError, cattrs.BaseValidationError) as error:
        raise StokerError(f"{path} can't be understood; the gateway sets it aside when it starts") from error


def _key(spec: EngineSpec, gpu: Gpu) -> _Key:
    sizes = {"tensor_parallel_size": spec.tensor_parallel_size, "pipeline_parallel_size": spec.pipeline_parallel_size}
    args = (spec.kind, *spec.command, *spec.args, *(f"{name}={size}" for name, size in sizes.items() if size))
    return spec.runtime, spec.model, args, spec.gpus, gpu.name, gpu.memory_total


def _write(path: Path, entries: Iterable[Entry]) -> None:
    plain: list[dict[str, Any]] = [cattrs.unstructure(entry) for entry in entries]
    unfinished = path.with_suffix(".new")
    with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="utf-8") as file:
        json.dump({"entries": plain}, file, indent=1)
    unfinished.replace(path)

"""Other ways to say a setting: GiB for bytes, and the older names that clients still send over HTTP."""

from __future__ import annotations

import shlex
from typing import Any

import attrs

from stoker.config.rules import GIB, OLDER
from stoker.config.values import describe, join
from stoker.errors import Mistake


@attrs.define
class Spelling:
    """A table under translation. ``spelled`` maps the names of today to the ones its writer used.

    A value that is wrong is left out of ``values`` and stands in ``mistakes``.
    """

    path: str
    values: dict[str, Any]
    spelled: dict[str, str] = attrs.field(factory=dict)
    mistakes: list[Mistake] = attrs.field(factory=list)

    def wrong(self, key: str, message: str) -> None:
        """Note a mistake about ``key``, as its writer spelled it."""
        self.mistakes.append(Mistake(join(self.path, key), message))

    def memory(self) -> None:
        """``required_memory_gb`` (GiB, a fraction is fine) becomes ``required_memory_bytes``."""
        if not self._take("required_memory_gb", "required_memory_bytes"):
            return
        amount = self.values.pop("required_memory_bytes")
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            self.wrong("required_memory_gb", f"must be a number of GiB, not {describe(amount)}")
        elif not 0 <= amount <= 2**20:  # nan is not either
            self.wrong("required_memory_gb", f"must be from 0 to {2**20} GiB, not {describe(amount)}")
        else:
            self.values["required_memory_bytes"] = round(amount * GIB)

    def older(self) -> None:
        """The names that older clients send, and ``use_gpu``."""
        for old, new in OLDER.items():
            self._take(old, new)
        if isinstance(self.values.get("args"), str) and "args" in self.spelled:
            self._split_args()
        if "use_gpu" in self.values:
            self._use_gpu(self.values.pop("use_gpu"))

    def _take(self, old: str, new: str) -> bool:
        if old not in self.values:
            return False
        value = self.values.pop(old)
        if new in self.values:
            self.wrong(old, f"is another spelling of {new}, which is given too; keep {new}")
            return False
        self.values[new] = value
        self.spelled[new] = old
        return True

    def _split_args(self) -> None:
        try:
            self.values["args"] = shlex.split(self.values["args"])
        except ValueError as error:
            self.wrong("extra_args", f"can't be split into arguments ({str(error).lower()}); send a list")
            del self.values["args"]

    def _use_gpu(self, use_gpu: object) -> None:
        gpus = self.values.get("gpus", 0)
        if not isinstance(use_gpu, bool):
            self.wrong("use_gpu", f"must be true or false, not {describe(use_gpu)}")
        elif use_gpu and not gpus:
            self.values["gpus"] = self._size("tensor_parallel_size") * self._size("pipeline_parallel_size")
        elif not use_gpu and gpus:
            self.wrong("use_gpu", "is false, but gpus asks for some; keep gpus alone")

    def _size(self, field: str) -> int:
        size = self.values.get(field, 1)
        return size if isinstance(size, int) and 1 <= size <= 1024 else 1  # a wrong one is reported by its own rule

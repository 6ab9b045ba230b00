"""Readings of this machine's GPUs for the event loop: never more than one at a time, and with a limit."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs
import trio

from stoker.gpu.nvml import read_gpus
from stoker.model import GpuReport

PATIENCE_SECONDS = 10.0


@attrs.define(eq=False)
class Inventory:
    """Reads the GPUs in a thread. Calls to NVML may hang, for seconds or for ever: then the report says so.

    The thread of a reading that hangs can't be ended. No other is started before it comes back, so there is never more
    than one.
    """

    look: Callable[[], GpuReport] = read_gpus
    patience_seconds: float = PATIENCE_SECONDS
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    _thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _latest: GpuReport = attrs.field(factory=GpuReport)
    _latest_began: float = -inf
    _hangs_since: float | None = None

    async def read(self) -> GpuReport:
        """The GPUs as they are: a reading that began after this call, shared by all who ask meanwhile.

        Takes at most twice ``patience_seconds``. Cancelling gives up the waiting; the reading ends by itself.
        """
        asked = trio.current_time()
        async with self._turn:
            if self._latest_began <= asked:
                began = trio.current_time()
                self._latest = await self._read()
                self._latest_began = began
            return self._latest

    async def _read(self) -> GpuReport:
        if self._hangs_since is not None and self._thread.borrowed_tokens:
            return self._hung(self._hangs_since)
        began = trio.current_time()
        with trio.move_on_after(self.patience_seconds):
            report = await trio.to_thread.run_sync(self.look, abandon_on_cancel=True, limiter=self._thread)
            self._hangs_since = None
            return report
        self._hangs_since = began
        return self._hung(began)

    def _hung(self, since: float) -> GpuReport:
        seconds = trio.current_time() - since
        return GpuReport(reason=f"the NVIDIA driver has not answered for {seconds:.0f} s", incomplete=True)

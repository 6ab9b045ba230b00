"""The management methods of the client that awaits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from stoker.client.managing import Managing, register_order
from stoker.client.steps import Steps
from stoker.model import EngineInfo, EngineState, GpuReport

T = TypeVar("T")


class AsyncEngineMethods:
    """As ``EngineMethods`` of the client that blocks, to be awaited."""

    _managing: Managing

    async def _run(self, steps: Steps[T]) -> T:
        raise NotImplementedError

    async def engines(self) -> list[EngineInfo]:
        """As ``UnifiedInferenceClient.engines``."""
        return await self._run(self._managing.engines())

    async def engine(self, engine_id: str) -> EngineInfo:
        """As ``UnifiedInferenceClient.engine``."""
        return await self._run(self._managing.engine(engine_id))

    async def get_engine_state(self, engine_id: str) -> EngineState:
        """As ``UnifiedInferenceClient.get_engine_state``."""
        return (await self.engine(engine_id)).state

    async def start_engine(
        self, model: str | None = None, *, wait: bool = False, timeout: float | None = None, **spec: Any
    ) -> EngineInfo:
        """As ``UnifiedInferenceClient.start_engine``."""
        whole = spec if model is None else {"model": model, **spec}
        return await self._run(self._managing.start(whole, wait=wait, timeout=timeout))

    async def stop_engine(
        self,
        engine_id: str,
        *,
        drain: bool = True,
        drain_timeout_seconds: float | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> EngineInfo:
        """As ``UnifiedInferenceClient.stop_engine``."""
        return await self._run(
            self._managing.stop(
                engine_id, drain=drain, drain_timeout_seconds=drain_timeout_seconds, wait=wait, timeout=timeout
            )
        )

    async def register_engine(
        self,
        model: str,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        names: Sequence[str] = (),
        wait: bool = False,
        timeout: float | None = None,
        **more: Any,
    ) -> EngineInfo:
        """As ``UnifiedInferenceClient.register_engine``."""
        order = register_order(model, url, host, port, names, more)
        return await self._run(self._managing.register(order, wait=wait, timeout=timeout))

    async def unregister_engine(
        self, engine_id: str, *, drain: bool = True, wait: bool = False, timeout: float | None = None
    ) -> None:
        """As ``UnifiedInferenceClient.unregister_engine``."""
        await self._run(self._managing.unregister(engine_id, drain=drain, wait=wait, timeout=timeout))

    async def status(self) -> Mapping[str, Any]:
        """As ``UnifiedInferenceClient.status``."""
        return await self._run(self._managing.call("GET", "/status"))

    async def gpu(self) -> GpuReport:
        """As ``UnifiedInferenceClient.gpu``."""
        return await self._run(self._managing.gpus())

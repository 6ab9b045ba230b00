"""The core of the management calls: what is sent, and what the answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import cattrs

from stoker.client import answers
from stoker.client import errors as e
from stoker.client.asking import Asking
from stoker.client.steps import Pause, Send, Steps
from stoker.model import EngineInfo, EngineState, GpuReport

T = TypeVar("T")

ANSWER_SECONDS = 30.0
_POLL_SECONDS = 0.1


@attrs.define(eq=False)
class Managing:
    """Makes management calls of one client."""

    asking: Asking
    _converter: cattrs.Converter = attrs.field(factory=cattrs.Converter)

    def engines(self) -> Steps[list[EngineInfo]]:
        """All engines."""
        reply = self.asking.replied((yield self._send("GET", "/engines")), ANSWER_SECONDS)
        return [self._record(entry, EngineInfo) for entry in answers.listing(reply, self.asking.where)]

    def engine(self, engine_id: str) -> Steps[EngineInfo]:
        """One engine."""
        return self._record((yield from self.call("GET", _path(engine_id))), EngineInfo)

    def start(self, spec: Mapping[str, Any], *, wait: bool, timeout: float | None) -> Steps[EngineInfo]:
        """Start what ``spec`` describes."""
        path = "/engines/start?wait=ready" if wait else "/engines/start"
        return self._record((yield from self.call("POST", path, spec, timeout if wait else ANSWER_SECONDS)), EngineInfo)

    def stop(
        self, engine_id: str, *, drain: bool, drain_timeout_seconds: float | None, wait: bool, timeout: float | None
    ) -> Steps[EngineInfo]:
        """Stop an engine."""
        order = _without_nothing({"drain": drain, "drain_timeout_seconds": drain_timeout_seconds})
        path = _path(engine_id, "stop") + ("?wait=stopped" if wait else "")
        return self._record(
            (yield from self.call("POST", path, order, timeout if wait else ANSWER_SECONDS)), EngineInfo
        )

    def register(self, order: Mapping[str, Any], *, wait: bool, timeout: float | None) -> Steps[EngineInfo]:
        """Route to a URL; ``wait`` for its first good answer."""
        began_at = self.asking.clock()
        info = self._record((yield from self.call("POST", "/engines/register", _without_nothing(order))), EngineInfo)
        while wait and info.state is EngineState.STARTING:
            if timeout is not None and self.asking.clock() - began_at > timeout:
                raise e.Timeout(f"engine {info.engine_id!r} was not READY within {timeout:g} s: {info.last_error}")
            yield Pause(_POLL_SECONDS)
            info = yield from self.engine(info.engine_id)
        if wait and info.state is not EngineState.READY:
            raise e.EngineUnavailable(
                f"engine {info.engine_id!r} is {info.state}: {info.last_error or info.reason}", engine=info.engine_id
            )
        return info

    def unregister(self, engine_id: str, *, drain: bool, wait: bool, timeout: float | None) -> Steps[None]:
        """Stop and forget an engine, or a URL."""
        path = _path(engine_id) + ("?wait=stopped" if wait else "")
        yield from self.call("DELETE", path, {"drain": drain}, timeout if wait else ANSWER_SECONDS)

    def gpus(self) -> Steps[GpuReport]:
        """The GPUs."""
        return self._record((yield from self.call("GET", "/gpu")), GpuReport)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float | None = ANSWER_SECONDS
    ) -> Steps[Mapping[str, Any]]:
        """The JSON object that the management side answers."""
        reply = self.asking.replied((yield self._send(method, path, body, timeout)), timeout)
        return answers.json_object(reply, self.asking.where)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float | None = ANSWER_SECONDS
    ) -> Send:
        return Send(request=self.asking.manage(method, path, body), timeout_seconds=timeout)

    def _record(self, entry: Mapping[str, Any], kind: type[T]) -> T:
        try:
            return self._converter.structure(entry, kind)
        except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as wrong:
            message = f"{self.asking.where} describes a {kind.__name__} in a way that this client doesn't know: {wrong}"
            raise e.UnexpectedAnswer(message) from wrong


def register_order(
    model: str,
    url: str | None,
    host: str | None,
    port: int | None,
    names: Sequence[str],
    more: Mapping[str, Any],
) -> Mapping[str, Any]:
    """What is sent to register an engine."""
    return {"model": model, "url": url, "host": host, "port": port, "names": list(names) or None, **more}


def _without_nothing(order: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in order.items() if value is not None}


def _path(engine_id: str, action: str = "") -> str:
    if not isinstance(engine_id, str) or not engine_id:
        raise ValueError(f"engine_id must be the id of an engine, as engines() lists them, not {engine_id!r}")
    return f"/engines/{quote(engine_id, safe='')}" + (f"/{action}" if action else "")

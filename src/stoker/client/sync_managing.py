"""The management methods of the client that blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from stoker.client.managing import Managing, register_order
from stoker.client.steps import Steps
from stoker.model import EngineInfo, EngineState, GpuReport

T = TypeVar("T")


class EngineMethods:
    """What a client does with engines. All of it needs the admin token, or a key of the scope ``admin``."""

    _managing: Managing

    def _run(self, steps: Steps[T]) -> T:
        raise NotImplementedError

    def engines(self) -> list[EngineInfo]:
        """Every engine, in the order they came.

        >>> [(engine.engine_id, str(engine.state)) for engine in client.engines()]
        [('fake', 'READY'), ('vectors', 'READY')]
        """
        return self._run(self._managing.engines())

    def engine(self, engine_id: str) -> EngineInfo:
        """One engine. Raises EngineNotFound.

        >>> client.engine("fake").names
        ('fake', 'quick')
        """
        return self._run(self._managing.engine(engine_id))

    def get_engine_state(self, engine_id: str) -> EngineState:
        """The state of one engine. Raises EngineNotFound.

        >>> client.get_engine_state("fake")
        <EngineState.READY: 'READY'>
        >>> client.get_engine_state("nobody")
        Traceback (most recent call last):
        stoker.client.errors.EngineNotFound: there is no engine 'nobody'; there are: fake, vectors
        """
        return self.engine(engine_id).state

    def start_engine(
        self, model: str | None = None, *, wait: bool = False, timeout: float | None = None, **spec: Any
    ) -> EngineInfo:
        """Start an engine, and return it (of several replicas, the first).

        ``spec`` are the settings of an ``[[engine]]`` table: ``runtime``, ``args``, ``gpus``, ``label`` and so on. With
        ``wait`` it is READY when this returns, which may take as long as it takes, or ``timeout`` seconds.

        Raises BadRequest for settings that can't be, Conflict for a label that is taken; with ``wait`` also
        EngineUnavailable, with its last error, for one that does not become READY.

        >>> started = client.start_engine("extra", runtime="command", command=command, wait=True)
        >>> started.engine_id, str(started.state)
        ('extra', 'READY')
        """
        whole = spec if model is None else {"model": model, **spec}
        return self._run(self._managing.start(whole, wait=wait, timeout=timeout))

    def stop_engine(
        self,
        engine_id: str,
        *,
        drain: bool = True,
        drain_timeout_seconds: float | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> EngineInfo:
        """Let an engine finish its requests, and stop it. It stays on the list, and can be started again.

        Without ``drain`` its requests are cut off; ``drain_timeout_seconds`` is how long it has for them. With ``wait``
        nothing of it is left when this returns. Raises EngineNotFound.

        >>> str(client.stop_engine("extra", wait=True).state)
        'STOPPED'
        """
        return self._run(
            self._managing.stop(
                engine_id, drain=drain, drain_timeout_seconds=drain_timeout_seconds, wait=wait, timeout=timeout
            )
        )

    def register_engine(
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
        """Have requests for ``model`` routed to a server that runs already, at ``url`` or at ``host`` and ``port``.

        ``more`` are ``kind``, ``engine_id``, ``metadata``, ``max_concurrency`` and other settings of an ``[[engine]]``
        table. With ``wait`` it has answered when this returns. Raises Conflict for one that is registered already,
        PermissionDenied for an address outside ``register_hosts``; with ``wait`` EngineUnavailable and Timeout.

        >>> client.register_engine("fake", fake_url, engine_id="elsewhere", wait=True).base_url == fake_url
        True
        """
        order = register_order(model, url, host, port, names, more)
        return self._run(self._managing.register(order, wait=wait, timeout=timeout))

    def unregister_engine(
        self, engine_id: str, *, drain: bool = True, wait: bool = False, timeout: float | None = None
    ) -> None:
        """Let an engine finish its requests and forget it. A server that was registered runs on; any other is stopped.

        Raises EngineNotFound.

        >>> client.unregister_engine("elsewhere", wait=True)
        >>> client.unregister_engine("extra", wait=True)
        """
        self._run(self._managing.unregister(engine_id, drain=drain, wait=wait, timeout=timeout))

    def status(self) -> Mapping[str, Any]:
        """What the gateway says of itself: version, uptime, policies, queue, counts, plugins.

        >>> client.status()["policy"]
        'least-load'
        """
        return self._run(self._managing.call("GET", "/status"))

    def gpu(self) -> GpuReport:
        """The GPUs of the gateway's machine, or the reason why there are none to see.

        >>> report = client.gpu()
        >>> bool(report.gpus or report.reason)
        True
        """
        return self._run(self._managing.gpus())

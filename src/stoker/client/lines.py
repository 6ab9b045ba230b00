"""Connections of the shell that blocks, which end what goes over them: in time, and when another thread says so.

httpx2 limits each single read, so that an answer which drips takes as long as it likes; and what closes a socket does
not wake who reads from it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore2
import httpx2

from stoker.client.wire import LIMITS


class Group:
    """Threads that read and write for somebody who may end all of it."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._lock = threading.Lock()
        self._busy: set[_Line] = set()
        self._over = False

    def check(self) -> None:
        """Raises RuntimeError once it was ended."""
        if self._over:
            raise RuntimeError(self._why)

    def end(self) -> None:
        """Wake everybody who reads or writes. What comes later fails. May be done again."""
        with self._lock:
            self._over = True
            for line in self._busy:
                line.shut()

    @contextlib.contextmanager
    def using(self, line: _Line) -> Iterator[None]:
        """Something is read or written in this block. Raises as :meth:`check` does."""
        with self._lock:
            self.check()
            self._busy.add(line)
        try:
            yield
        finally:
            with self._lock:  # so that nobody shuts what is closed by now, and has become another
                self._busy.discard(line)


class Lines(httpcore2.NetworkBackend):
    """All connections of one client. ``everybody`` ends with it; what else counts is each thread's own."""

    def __init__(self) -> None:
        self.everybody = Group("the client is closed")
        self._dial = httpcore2.SyncBackend()
        self._thread = threading.local()

    @contextlib.contextmanager
    def until(self, deadline: float | None) -> Iterator[None]:
        """What this thread reads and writes in the block ends by then, in monotonic seconds, with a time-out."""
        before = getattr(self._thread, "deadline", None)
        self._thread.deadline = deadline
        try:
            yield
        finally:
            self._thread.deadline = before

    @contextlib.contextmanager
    def within(self, group: Group) -> Iterator[None]:
        """What this thread does in the block may be ended by ``group``."""
        self._thread.group = group
        try:
            yield
        finally:
            self._thread.group = None

    def check(self) -> None:
        """Raises RuntimeError where this thread is to do nothing more."""
        group: Group | None = getattr(self._thread, "group", None)
        if group is not None:
            group.check()

    def left(self, timeout: float | None) -> float | None:
        """How long it may take that httpx2 gives ``timeout``. Raises ReadTimeout."""
        deadline: float | None = getattr(self._thread, "deadline", None)
        if deadline is None:
            return timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("no whole answer")
        return left if timeout is None else min(left, timeout)

    @contextlib.contextmanager
    def using(self, line: _Line) -> Iterator[None]:
        """Something is read or written in this block, by whichever thread this is."""
        group: Group | None = getattr(self._thread, "group", None)
        with self.everybody.using(line), group.using(line) if group is not None else contextlib.nullcontext():
            yield

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection. Nobody can end this but its time, which is short."""
        self.everybody.check()
        self.check()
        return _Line(self, self._dial.connect_tcp(host, port, self.left(timeout), local_address, socket_options))

    def transport(self, verify: ssl.SSLContext | bool) -> httpx2.BaseTransport:
        """What httpx2 sends over these connections."""
        context = httpx2.create_ssl_context() if verify is True else verify or None
        return _Transport(
            httpcore2.ConnectionPool(
                ssl_context=context,
                max_connections=LIMITS.max_connections,
                max_keepalive_connections=LIMITS.max_keepalive_connections,
                keepalive_expiry=LIMITS.keepalive_expiry,
                network_backend=self,
            )
        )


class _Line(httpcore2.NetworkStream):
    """One connection."""

    def __init__(self, lines: Lines, stream: httpcore2.NetworkStream) -> None:
        self._lines = lines
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._lines.using(self):
            return self._stream.read(max_bytes, self._lines.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._lines.using(self):
            self._stream.write(buffer, self._lines.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Line(self._lines, self._stream.start_tls(ssl_context, server_hostname, self._lines.left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def shut(self) -> None:
        """Wake who reads or writes; nothing comes any more."""
        with contextlib.suppress(OSError):  # the other side has done it
            # Not that of an SSLSocket: it would first take away what the other thread reads with.
            socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


class _Transport(httpx2.BaseTransport):
    """As httpx2 has it, which knows no way to give its pool a backend."""

    def __init__(self, pool: httpcore2.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        assert isinstance(request.stream, httpx2.SyncByteStream)
        asked = httpcore2.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _in_terms_of_httpx2():
            answer = self._pool.handle_request(asked)
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _in_terms_of_httpx2():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextlib.contextmanager
def _in_terms_of_httpx2() -> Iterator[None]:
    """The two name their errors alike."""
    try:
        yield
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProxyError, httpcore2.ProtocolError) as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error
    except httpcore2.UnsupportedProtocol as error:
        raise httpx2.UnsupportedProtocol(str(error)) from error

"""Opens connections to engines: TCP, and TLS where the URL says so."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

import attrs
import trio

from stoker.gateway.failures import Exhausted, NotConnected
from stoker.gateway.hub import Hub
from stoker.gateway.sockets import PIECE, Channel

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EADDRNOTAVAIL})
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


@attrs.frozen
class Origin:
    """Where an engine's ``base_url`` points: the address, the ``Host`` it expects, and what its paths begin with."""

    url: str
    tls: bool
    host: str
    port: int
    authority: bytes
    prefix: bytes

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises :class:`NotConnected` for one that leads nowhere."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            authority = parts.netloc.rpartition("@")[2].encode("ascii")
            prefix = parts.path.rstrip("/").encode("ascii")
        except ValueError as wrong:
            raise NotConnected(f"the engine's address {url!r} can't be read: {wrong}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise NotConnected(f"the engine's address {url!r} is not an http or https URL")
        tls = parts.scheme == "https"
        shown = f"{parts.scheme}://{(authority + prefix).decode()}"  # without credentials
        return cls(shown, tls, host, port or (443 if tls else 80), authority, prefix)

    def target(self, target: bytes) -> bytes:
        """The target of a request below the prefix. A prefix that ends in ``/v1`` does not repeat that of the path."""
        if self.prefix.endswith(b"/v1") and target.startswith(b"/v1/"):
            target = target.removeprefix(b"/v1")
        return self.prefix + target


class SecureTransport:
    """TLS over a socket that Trio waits for: the hub can't relay what it can't read."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._socket = stream.transport_stream.socket

    async def receive(self) -> bytes:
        """The next bytes; empty at the end. Raises OSError where the connection broke."""
        try:
            return bytes(await self._stream.receive_some(PIECE))
        except trio.BrokenResourceError as broken:
            raise ConnectionError(str(broken)) from broken

    async def send_both(self, head: bytes, body: bytes) -> None:
        """Send. Raises OSError where the connection broke."""
        try:
            await self._stream.send_all(head + body)
        except trio.BrokenResourceError as broken:
            raise ConnectionError(str(broken)) from broken

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent has been written: it is, when sending returns."""
        return True

    @property
    def is_stale(self) -> bool:
        """Whether there is something to read on it, be it its end."""
        return self._socket.is_readable()

    def shut_down(self) -> None:
        """Nothing more is sent or received: whoever waits for it is at the end."""
        with suppress(OSError):  # it is so already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once."""
        self._socket.close()


class Dialler:
    """Opens connections, each within ``timeout_seconds``, over channels of ``hub``, but none to a ``barred`` address.

    That a name was looked at when the engine came does not help: it may mean another address by now.
    """

    def __init__(
        self,
        hub: Hub,
        timeout_seconds: float,
        make_ssl_context: Callable[[], ssl.SSLContext],
        barred: Callable[[str], bool],
    ) -> None:
        self._barred = barred
        self._hub = hub
        self._timeout_seconds = timeout_seconds
        self._make_ssl_context = make_ssl_context
        self._ssl_context: ssl.SSLContext | None = None

    async def dial(self, origin: Origin) -> Channel | SecureTransport:
        """A fresh connection. Raises NotConnected, or Exhausted where it is our own fault."""
        try:
            with trio.fail_after(self._timeout_seconds):
                stream = await trio.open_tcp_stream(origin.host, origin.port)
                self._look_at(stream, origin)
                notice_vanished_peer(stream.socket)
                if origin.tls:
                    return await self._secure(stream, origin)
                return self._hub.watch(plain_socket(stream))
        except trio.TooSlowError:
            message = f"no connection to {origin.url} within {self._timeout_seconds:g} seconds"
            raise NotConnected(message) from None
        except (OSError, UnicodeError) as wrong:  # UnicodeError: a host name that IDNA can't write
            cause = _root(wrong)
            if isinstance(cause, OSError) and cause.errno in _OURS:
                raise Exhausted(f"can't open another connection to {origin.url}: {cause.strerror}") from wrong
            reason = (isinstance(cause, OSError) and cause.strerror) or str(cause)
            raise NotConnected(f"can't connect to {origin.url}: {reason}") from wrong

    def _look_at(self, stream: trio.SocketStream, origin: Origin) -> None:
        address = stream.socket.getpeername()[0]
        if self._barred(address):
            stream.socket.close()
            what = f"{origin.url} leads to {address}, where no engine can be"
            raise NotConnected(f"{what}; if it is one, name that address in register_hosts of [gateway]")

    async def _secure(self, stream: trio.SocketStream, origin: Origin) -> SecureTransport:
        if self._ssl_context is None:  # reads every certificate authority there is
            self._ssl_context = await trio.to_thread.run_sync(self._make_ssl_context)
        secured = trio.SSLStream(stream, self._ssl_context, server_hostname=origin.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except BaseException as wrong:
            stream.socket.close()
            if isinstance(wrong, trio.BrokenResourceError):
                raise NotConnected(f"no TLS with {origin.url}: {wrong.__cause__ or wrong}") from wrong
            raise
        return SecureTransport(secured)


def plain_socket(stream: trio.SocketStream) -> socket.socket:
    """The socket of a stream as the standard library has it, taken away from Trio."""
    return socket.socket(fileno=stream.socket.detach())


def notice_vanished_peer(sock: socket.socket | trio.socket.SocketType) -> None:
    """Have the system probe a silent peer: an answer may take hours, that of a vanished host never comes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not all of them everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _root(error: BaseException) -> BaseException:
    """The first true cause within Trio's "all attempts failed"."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error

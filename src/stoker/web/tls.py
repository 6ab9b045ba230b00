"""TLS at the front door: taken off in a task for each connection, so that both lanes see plain sockets.

Behind it stands one end of a pair of sockets, which the server treats as any connection; HTTP/2, which clients agree
upon within TLS, is recognised there by its preface.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from stoker.errors import StokerError

HANDSHAKE_SECONDS = 10.0
PARTING_SECONDS = 10.0  # for what was said last, once nobody says more
LINGER_SECONDS = 2.0  # for the client to hang up, once all was said
_PIECE = 64 * 1024
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@attrs.frozen
class Ends:
    """The addresses of a connection that comes through something: the client's, and the one it came to."""

    client: tuple[str, int] | None
    server: tuple[str, int] | None


class Handshake:
    """A connection until TLS is agreed upon, which takes it no longer than ``HANDSHAKE_SECONDS``."""

    is_idle = False
    is_arriving = True

    def __init__(self) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_SECONDS)

    @property
    def deadline(self) -> float:
        """When it is given up."""
        return self.scope.deadline

    def make_way(self) -> bool:
        """Give it up at once, for others. Says that it does."""
        self.scope.cancel()
        return True

    def close_if_idle(self) -> None:
        """Nothing: who has just connected could not know of a shutdown, and may ask something."""

    def keep_time(self, now: float) -> None:
        """Nothing: its scope has a deadline."""


Serve = Callable[[trio.SocketStream, Ends], Awaitable[None]]


def server_context(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    """What the gateway proves itself with. Blocks. Raises :class:`StokerError` for files that can't be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])

    def no_password() -> str:
        raise StokerError(f"the key in {keyfile or certfile} is encrypted, and there is nobody to ask; decrypt it")

    try:
        context.load_cert_chain(certfile, keyfile, no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = f"the certificate {certfile}" + (f" with the key {keyfile}" if keyfile else "")
        raise StokerError(f"{files} can't be used: {getattr(error, 'strerror', None) or error}") from error
    return context


@attrs.frozen
class Terminator:
    """Takes TLS off connections. ``context`` is a server's."""

    context: ssl.SSLContext

    async def serve(self, stream: trio.SocketStream, serve: Serve, handshake: Handshake) -> None:
        """Serve what is said within ``stream``, and close it. A client that can't agree on TLS just finds it closed.

        As long as it has not, ``handshake`` stands for it.

        Raises what ``serve`` raises, in a group, and OSError where there are no descriptors for another pair.
        """
        try:
            ends = Ends(_address(stream.socket.getpeername()), _address(stream.socket.getsockname()))
            secured = trio.SSLStream(_HalfClosing(stream), self.context, server_side=True, https_compatible=True)
            with handshake.scope:
                await secured.do_handshake()
        except _GONE:
            stream.socket.close()
            return
        except BaseException:
            stream.socket.close()
            raise
        if handshake.scope.cancelled_caught:
            stream.socket.close()
            return
        try:
            await self._relay(secured, ends, serve)
        finally:
            stream.socket.close()

    async def _relay(self, secured: trio.SSLStream[_HalfClosing], ends: Ends, serve: Serve) -> None:
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_bring_in, secured, ours)
                nursery.start_soon(_take_out, ours, secured, nursery.cancel_scope)
                await serve(theirs, ends)
                nursery.cancel_scope.deadline = min(
                    nursery.cancel_scope.deadline, trio.current_time() + PARTING_SECONDS
                )
        finally:
            ours.socket.close()
            theirs.socket.close()


class _HalfClosing(trio.abc.Stream):
    """The connection below TLS. Closing it only says that no more is said: what the client still sends is let in.

    A connection that is closed with something unread is reset, and then the client may never see the end of its answer.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        with suppress(*_GONE):
            await self._stream.send_eof()


async def _bring_in(secured: trio.SSLStream[_HalfClosing], ours: trio.SocketStream) -> None:
    """What the client says, to its end."""
    with suppress(*_GONE):
        while data := await secured.receive_some(_PIECE):
            await ours.send_all(data)
    with suppress(*_GONE):
        await ours.send_eof()


async def _take_out(
    ours: trio.SocketStream, secured: trio.SSLStream[_HalfClosing], connection: trio.CancelScope
) -> None:
    """What it is answered, to the end; then it has a moment to hang up."""
    with suppress(*_GONE):
        while data := await ours.receive_some(_PIECE):
            await secured.send_all(data)
        await secured.aclose()
    connection.deadline = min(connection.deadline, trio.current_time() + LINGER_SECONDS)


def _address(name: object) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None

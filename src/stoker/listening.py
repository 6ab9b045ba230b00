"""The socket that clients connect to, and room for all that come."""

from __future__ import annotations

import resource
import socket
import ssl

from stoker.config import Listen
from stoker.errors import StokerError

MOST_DESCRIPTORS = 65536


def allow_many_descriptors() -> None:
    """Raise the soft limit of open files towards the hard one: two for each request that is under way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen_on(address: Listen) -> socket.socket:
    """A listening socket. Raises :class:`StokerError` when the address can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise StokerError(
            f"can't listen on {address}: {error.strerror}; stop what listens there, or choose another address "
            "with --listen (port 0 takes any free one)"
        ) from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library takes it so
    return listener


def url_of(listener: socket.socket, tls: ssl.SSLContext | None = None) -> str:
    """The address that clients use for what listens there."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - whoever listens everywhere does so here
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

"""A network of a test's own: whatever listens on a port elsewhere on this machine, there it is free."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

# Brings loopback up, says so, and keeps the network until nobody wants it any more.
KEEPER = """
import fcntl, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
print("up", flush=True)
sys.stdin.read()
"""
AS_ROOT = (["unshare", "--net"], ["--net"])
AS_ANYBODY = (["unshare", "--map-root-user", "--net"], ["--net", "--user", "--preserve-credentials"])


class NoNetworkError(Exception):
    """This machine does not let us have one; the message is what it said."""


@contextlib.contextmanager
def network() -> Iterator[Sequence[str]]:
    """Makes a network with a loopback and nothing else, and yields the words before a command that is to run in it.

    Raises NoNetworkError.
    """
    make, enter = AS_ROOT if os.geteuid() == 0 else AS_ANYBODY
    words = [*make, sys.executable, "-c", KEEPER]
    try:
        keeper = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise NoNetworkError(str(error)) from error
    with keeper:  # which closes what it reads, and it ends
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        if keeper.stdout.readline() != "up\n":
            raise NoNetworkError(keeper.stderr.read().strip())
        yield ["nsenter", "--target", str(keeper.pid), *enter, "--"]

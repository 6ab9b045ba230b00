"""Which of many sockets have become readable, told once for each time (edge-triggered)."""

from __future__ import annotations

import select
import sys

MOST_EVENTS = 256

if sys.platform == "linux":

    class Poller:
        """By epoll. A peer that hung up, also only half, is seen while there is unread data before its end."""

        HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

        def __init__(self) -> None:
            self._epoll = select.epoll()

        def add(self, fd: int) -> None:
            """Watch a socket. Does nothing once the poller is closed."""
            if not self._epoll.closed:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

        def remove(self, fd: int) -> None:
            """Watch it no longer. Does nothing once the poller is closed."""
            if not self._epoll.closed:
                self._epoll.unregister(fd)

        def poll(self) -> list[tuple[int, int]]:
            """The sockets that became readable, each with flags: ``HUNG_UP`` if its peer did. Returns at once."""
            return self._epoll.poll(0, MOST_EVENTS)

        def fileno(self) -> int:
            """What becomes readable itself when there is something to poll."""
            return self._epoll.fileno()

        def close(self) -> None:
            """Watch nothing any more."""
            self._epoll.close()

else:

    class Poller:
        """By kqueue, on macOS and the BSDs."""

        HUNG_UP = select.KQ_EV_EOF

        def __init__(self) -> None:
            self._kqueue = select.kqueue()

        def add(self, fd: int) -> None:
            """Watch a socket. Does nothing once the poller is closed."""
            if not self._kqueue.closed:
                event = select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD | select.KQ_EV_CLEAR)
                self._kqueue.control([event], 0)

        def remove(self, fd: int) -> None:
            """Watch it no longer. Does nothing once the poller is closed."""
            if not self._kqueue.closed:
                self._kqueue.control([select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_DELETE)], 0)

        def poll(self) -> list[tuple[int, int]]:
            """The sockets that became readable, each with flags: ``HUNG_UP`` if its peer did. Returns at once."""
            return [(event.ident, event.flags) for event in self._kqueue.control(None, MOST_EVENTS, 0)]

        def fileno(self) -> int:
            """What becomes readable itself when there is something to poll."""
            return self._kqueue.fileno()

        def close(self) -> None:
            """Watch nothing any more."""
            self._kqueue.close()

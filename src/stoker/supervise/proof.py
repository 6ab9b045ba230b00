"""Whether it is the engine that answers at its port.

Between the moment in which a port was found to be free and the one in which the engine listens there, somebody else may
have taken it, and be in the best of health. So an engine proves itself once, before it is READY: by owning the socket
that listens, or by a model list that names its model. The second is for engines that no process of ours listens for: a
container's port is held by the container runtime. Whoever is seen to be another engine of Stoker's is believed nothing.
Where nothing can be seen (no ``/proc``, a process of another user among the engine's own), it is taken at its word.
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Awaitable, Callable, Collection

import attrs
import trio

from stoker.core.events import Endpoint
from stoker.model import EngineSpec
from stoker.supervise import ports, proctable
from stoker.supervise.process import EngineProcess
from stoker.supervise.shortage import is_shortage

log = logging.getLogger("stoker.supervise")


class Owner(enum.Enum):
    """Whose the listening socket is, as far as the process table tells."""

    ENGINE = "one of the engine's own processes listens"
    ANOTHER_ENGINE = "an engine of Stoker's listens, and it is not this one"
    STRANGER = "none of the engine's processes listens, and so somebody else does"
    UNSEEN = "it can't be seen"


@attrs.frozen
class Sight:
    """What was seen at a port. ``who`` names the holder of the socket, where it is not the engine."""

    owner: Owner
    who: str = ""


@attrs.frozen
class Claim:
    """An engine says that it answers at ``host`` and ``port``. Its processes are known by ``session`` and ``mark``."""

    host: str
    port: int
    session: int
    mark: str
    names: Collection[str]

    @classmethod
    def of(cls, process: EngineProcess, endpoint: Endpoint, spec: EngineSpec) -> Claim | None:
        """What an engine of ``spec`` claims; None where it has no port."""
        if endpoint.host is None or endpoint.port is None:
            return None
        names = {*spec.all_names, *(endpoint.names or ())}
        return cls(endpoint.host, endpoint.port, process.pid, process.mark, names)

    async def doubt(self, list_models: Callable[[], Awaitable[Collection[str]]]) -> str | None:
        """Why it can't be believed; empty where it is proven, None where a shortage of ours kept us from looking."""
        try:
            sight = await trio.to_thread.run_sync(look, self, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
        except OSError as error:
            if is_shortage(error):
                return None
            sight = Sight(Owner.UNSEEN, str(error))
        if sight.owner is Owner.ENGINE:
            return ""
        taken = f"port {self.port} is not the engine's: {sight.who} listens there"
        if sight.owner is Owner.ANOTHER_ENGINE:
            return taken
        listed = await list_models()
        if set(listed) & set(self.names):
            return ""
        if sight.owner is Owner.UNSEEN:
            log.warning("who listens at port %d can't be seen (%s); it is taken for the engine", self.port, sight.who)
            return ""
        return f"{taken}, and its model list {_described(listed)}"


def look(claim: Claim) -> Sight:
    """See who listens. Blocks. Raises OSError."""
    if not proctable.HAS_PROC:
        return Sight(Owner.UNSEEN, "there is no /proc")
    wanted = ports.listeners(claim.host, claim.port)
    if not wanted:  # a packet filter may send it elsewhere
        return Sight(Owner.UNSEEN, "no socket of this machine listens")
    theirs = [ports.sockets_of(entry.pid) for entry in proctable.members(claim.session, claim.mark.__eq__)]
    if wanted <= frozenset().union(*filter(None, theirs)):
        return Sight(Owner.ENGINE)
    if None in theirs:
        return Sight(Owner.UNSEEN, "a process of the engine is another user's")
    return _stranger(wanted, claim.mark)


def _stranger(wanted: frozenset[int], mark: str) -> Sight:
    for entry in proctable.process_table():
        if wanted & (ports.sockets_of(entry.pid) or frozenset()):
            theirs = proctable.read_mark(entry.pid)
            owner = Owner.STRANGER if theirs in (None, mark) else Owner.ANOTHER_ENGINE
            return Sight(owner, f"process {entry.pid} ({_name(entry.pid)})")
    return Sight(Owner.STRANGER, "another user's process")


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return proctable.read_file(pid, "comm").decode(errors="replace").strip()
    return "gone by now"


def _described(listed: Collection[str]) -> str:
    if not listed:
        return "can't be had"
    return f"has only {', '.join(map(repr, sorted(listed)[:5]))}"

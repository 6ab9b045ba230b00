"""The state table: which trigger takes an engine from which state to which. Data, so that docs and tests read it too.

The theory (after h11's ``_state.py``): the five states are the public contract. An event that arrives is first turned
into a trigger by :mod:`stoker.core.fleet`, which knows the details beside the state (probe counts, deadlines, what is
left of the process); the table alone then says what state follows. A pair that is not in it raises.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from stoker.errors import IllegalTransition
from stoker.model import EngineState


class Trigger(enum.Enum):
    """Why a state changes. The value is the words the diagram shows."""

    START_REQUESTED = "start requested"
    REGISTERED = "registered"
    ADOPTED = "adopted"
    KEPT = "kept as stopped"
    PROBE_SUCCEEDED = "probe succeeded"
    START_TIMED_OUT = "start-up time-out"
    LAUNCH_FAILED = "spawn failure"
    PROCESS_EXITED = "process exit"
    PROBES_FAILED = "probes failed"
    STOP_REQUESTED = "stop requested"
    STOP_VERIFIED = "idle or time-out, then the verified stop"
    RESTART_DUE = "restart allowed, after its backoff"


_S, _T = EngineState, Trigger

TRANSITIONS: Mapping[tuple[EngineState | None, Trigger], EngineState] = MappingProxyType(
    {
        (None, _T.START_REQUESTED): _S.STARTING,
        (None, _T.REGISTERED): _S.STARTING,
        (None, _T.ADOPTED): _S.STARTING,
        (None, _T.KEPT): _S.STOPPED,
        (_S.STARTING, _T.PROBE_SUCCEEDED): _S.READY,
        (_S.STARTING, _T.START_TIMED_OUT): _S.ERROR,
        (_S.STARTING, _T.LAUNCH_FAILED): _S.ERROR,
        (_S.STARTING, _T.PROCESS_EXITED): _S.ERROR,
        (_S.STARTING, _T.STOP_REQUESTED): _S.DRAINING,
        (_S.READY, _T.PROBES_FAILED): _S.ERROR,
        (_S.READY, _T.PROCESS_EXITED): _S.ERROR,
        (_S.READY, _T.STOP_REQUESTED): _S.DRAINING,
        (_S.DRAINING, _T.STOP_REQUESTED): _S.DRAINING,
        (_S.DRAINING, _T.PROCESS_EXITED): _S.DRAINING,
        (_S.DRAINING, _T.STOP_VERIFIED): _S.STOPPED,
        (_S.STOPPED, _T.STOP_REQUESTED): _S.STOPPED,
        (_S.STOPPED, _T.START_REQUESTED): _S.STARTING,
        (_S.ERROR, _T.STOP_REQUESTED): _S.DRAINING,
        (_S.ERROR, _T.PROBE_SUCCEEDED): _S.READY,
        (_S.ERROR, _T.RESTART_DUE): _S.STARTING,
        (_S.ERROR, _T.START_REQUESTED): _S.STARTING,
    }
)


def next_state(state: EngineState | None, trigger: Trigger) -> EngineState:
    """The state that follows. Raises :class:`IllegalTransition` for a pair the table does not have."""
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise IllegalTransition(f"{trigger.value!r} can't happen to an engine that is {state or 'new'}") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram, for ``docs/reference/engine-states.md``."""
    arrows = (f"    {before or '[*]'} --> {after}: {trigger.value}" for (before, trigger), after in TRANSITIONS.items())
    return "\n".join(["stateDiagram-v2", *arrows])

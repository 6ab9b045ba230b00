"""What can go wrong with an engine: one record, read from flags and from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs


class UnknownFault(ValueError):  # noqa: N818 - it is told to a person, not to a program
    """There is no fault of that name, or its value can't be one. The message says what there is."""


def _switch(meaning: str) -> Any:
    return attrs.field(default=False, metadata={"meaning": meaning, "read": _read_switch})


def _count(meaning: str) -> Any:
    return attrs.field(default=None, metadata={"meaning": meaning, "read": _read_count})


def _seconds(meaning: str) -> Any:
    return attrs.field(default=0.0, metadata={"meaning": meaning, "read": _read_seconds})


def _text(meaning: str) -> Any:
    return attrs.field(default="", metadata={"meaning": meaning, "read": str})


def _read_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnknownFault(f"must be true or false, not {value!r}")
    return value


def _read_count(value: Any) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UnknownFault(f"must be a whole number, not {value!r}") from None
    if number < 0:
        raise UnknownFault(f"must not be negative, not {value!r}")
    return number


def _read_seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UnknownFault(f"must be seconds, not {value!r}") from None
    if not 0 <= number < 1e9:
        raise UnknownFault(f"must be a number of seconds from 0 on, not {value!r}")
    return number


@attrs.frozen(kw_only=True)
class Faults:
    """Everything that can go wrong. A field's ``metadata["meaning"]`` is its documentation, shown by ``--help``.

    The first group matters at the start only. ``*_after_chunks`` count the events of one stream; 0 is "right after the
    head of the answer".
    """

    start_delay_seconds: float = _seconds("wait so long before listening")
    exit_at_start: int | None = _count("exit with this code instead of listening (after the delay)")
    message: str = _text("write this to stderr at the start")
    child: bool = _switch("leave a child, in the same process group")
    setsid_grandchild: bool = _switch("leave a child whose own child has a session of its own")
    double_fork: bool = _switch("leave a daemon: forked twice, in a session of its own, no longer a descendant")

    load_seconds: float = _seconds("listen, but be unhealthy (503) so long")
    never_ready: bool = _switch("listen, but never become healthy")
    health_fails: bool = _switch("/health answers 500")
    health_hangs: bool = _switch("/health never answers")
    refuse_connections: bool = _switch("close the listening socket; only SIGUSR1 opens it again")
    ignore_sigterm: bool = _switch("SIGTERM does nothing (to the children neither)")
    lose_first_sigterm: bool = _switch("the first SIGTERM does nothing")
    sigterm_waits: bool = _switch("after SIGTERM stop only when no request is active, as vLLM does")

    first_requests: int | None = _count("the faults below strike only the first so many inference requests")
    exit_after_requests: int | None = _count("exit with code 0 after so many answers")
    status: int | None = _count("answer with this status and an error")
    retry_after_seconds: int | None = _count("with a Retry-After of so many seconds")
    reset: bool = _switch("reset the connection instead of answering")
    hang: bool = _switch("read the request and never answer")
    garbage: bool = _switch("answer with bytes that are not HTTP")
    half_answer: bool = _switch("announce a whole answer, send half of it, and close")
    head_bytes: int | None = _count("send so many bytes more in the head of the answer")
    informational: bool = _switch("send informational answers (103) without an end")
    bomb_bytes: int | None = _count("answer with so many bytes of nothing, which gzip makes a thousandth of")
    first_token_seconds: float = _seconds("think so long before the first byte")
    token_seconds: float = _seconds("time between tokens of a stream")
    die_after_chunks: int | None = _count("SIGKILL itself in mid-stream")
    exit_after_chunks: int | None = _count("exit with code 0 in mid-stream")
    reset_after_chunks: int | None = _count("reset the connection in mid-stream")
    cut_after_chunks: int | None = _count("close the connection in the middle of the next event")
    end_after_chunks: int | None = _count("end the stream properly, but without [DONE]")
    error_after_chunks: int | None = _count("send an error event, then [DONE], as vLLM does when its core dies")
    stall_after_chunks: int | None = _count("send nothing any more, and stay healthy")

    def changed(self, changes: Mapping[str, object]) -> Faults:
        """These faults with ``changes``. Raises :class:`UnknownFault` for a name or value that can't be."""
        fields = attrs.fields_dict(Faults)
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in fields:
                raise UnknownFault(f"there is no fault {name!r}; there are: {', '.join(fields)}")
            read: Callable[[object], object] = fields[name].metadata["read"]
            try:
                values[name] = read(value)
            except UnknownFault as wrong:
                raise UnknownFault(f"fault {name!r} {wrong}") from None
        return attrs.evolve(self, **values)

    def flags(self) -> tuple[str, ...]:
        """These faults as arguments of the fake engine's command."""
        words: list[str] = []
        for name, field in attrs.fields_dict(Faults).items():
            value = getattr(self, name)
            if value != field.default:
                words.append(flag_of(name))
                if value is not True:
                    words.append(str(value))
        return tuple(words)


def flag_of(name: str) -> str:
    """How the fault of that name is written on the command line."""
    return f"--{name.replace('_', '-')}"

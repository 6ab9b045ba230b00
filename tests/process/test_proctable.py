"""The process table is read, and processes are signalled, without doing anything to strangers or to ourselves."""

from __future__ import annotations

import os
import sys

import pytest

from stoker.supervise import ports, proctable

pytestmark = pytest.mark.skipif(not proctable.HAS_PROC, reason="there is no /proc to look into")


def test_a_look_at_the_table_interns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """pathlib does, every pid: the table of interned strings was built anew, 2 MB each time, in thread after thread."""
    interned: list[str] = []

    def intern(text: str) -> str:
        interned.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    assert os.getpid() in {entry.pid for entry in proctable.process_table()}
    assert proctable.members(None, "nobody's".__eq__) == []
    assert proctable.read_mark(os.getpid()) is None
    assert ports.sockets_of(os.getpid()) is not None
    assert interned == []

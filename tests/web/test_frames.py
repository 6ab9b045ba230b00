"""The budget of frames: floods are over it soon, and clients that mean no harm never are."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from stoker.web.frames import MOST_CREDIT, FrameBudget

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def written(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


@pytest.mark.parametrize(
    ("flood", "most"),
    [
        ([PingFrame(0, opaque_data=b"12345678")], MOST_CREDIT),
        ([SettingsFrame(0)], MOST_CREDIT),
        ([DataFrame(1, b"")], MOST_CREDIT),
        ([DataFrame(1, b"x")], MOST_CREDIT),
        ([WindowUpdateFrame(1, window_increment=1)], MOST_CREDIT),
        ([HeadersFrame(1, b"x" * 50), RstStreamFrame(1)], MOST_CREDIT // 6),
    ],
    ids=["PING", "SETTINGS", "empty DATA", "tiny DATA", "WINDOW_UPDATE", "rapid reset"],
)
def test_a_flood_is_over_the_budget_soon(flood: list[Frame], most: int) -> None:
    budget, count = FrameBudget(0.0), 0
    assert budget.allows(PREFACE, 0.0)
    while budget.allows(written(*flood), 0.0):
        count += 1
    assert count == most


def test_the_pieces_it_comes_in_make_no_difference() -> None:
    flood = PREFACE + written(*[PingFrame(0, opaque_data=b"12345678"), DataFrame(1, b"x" * 300)] * 1100)
    allowed = {}
    for size in (1, 7, 9, 1000, len(flood)):
        budget = FrameBudget(0.0)
        pieces = [flood[at : at + size] for at in range(0, len(flood), size)]
        allowed[size] = sum(len(piece) for piece in pieces if budget.allows(piece, 0.0))
    assert abs(allowed[1] - allowed[7]) < 20
    assert abs(allowed[1] - allowed[1000]) < 1000
    assert allowed[len(flood)] == 0


def test_a_body_pays_for_itself() -> None:
    budget = FrameBudget(0.0)
    assert all(budget.allows(written(DataFrame(1, b"x" * 16384)), 0.0) for _ in range(10_000))


def test_what_is_answered_earns_what_belongs_to_it() -> None:
    budget = FrameBudget(0.0)
    updates = written(*[WindowUpdateFrame(1, window_increment=100)] * 2)
    for _ in range(10_000):  # pieces of one stream, each acknowledged for the stream and for the connection
        budget.earn()
        assert budget.allows(updates, 0.0)


def test_credit_comes_back_with_time_and_is_not_hoarded() -> None:
    budget = FrameBudget(0.0)
    ping = written(PingFrame(0, opaque_data=b"12345678"))
    assert budget.allows(PREFACE, 0.0)
    assert all(budget.allows(ping, float(second)) for second in range(5000))
    assert not budget.allows(ping * (MOST_CREDIT + 2), 1e6)

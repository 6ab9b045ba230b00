"""What CUDA_VISIBLE_DEVICES leaves us."""

from __future__ import annotations

import pytest

from stoker.gpu.visible import Visible

UUIDS = ["GPU-aa11", "GPU-bb22", "GPU-cc33"]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        ("2,0", [0, 2]),
        (" 1 , 2 ", [1, 2]),
        ("0,-1,2", [0]),
        ("GPU-bb22", [1]),
        ("GPU-b", [1]),
        ("GPU-b,2", [1, 2]),
        ("nonsense", []),
        ("7", []),
        ("MIG-aa11", []),
    ],
)
def test_gpus_are_named_by_number_or_by_the_beginning_of_their_uuid(text: str | None, allowed: list[int]) -> None:
    visible = Visible.parse(text)
    assert [index for index, uuid in enumerate(UUIDS) if visible.allows(index, uuid)] == allowed


def test_a_gpu_that_can_not_tell_its_uuid_may_be_one_that_is_named_by_it() -> None:
    assert Visible.parse("GPU-bb22").may_allow(0)
    assert not Visible.parse("1").may_allow(0)
    assert Visible.parse(None).may_allow(0)

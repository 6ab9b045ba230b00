"""The fake engine passes the contract that real engines pass."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stoker.testing import engines_contract as contract
from stoker.testing.engines import RunningFakeEngine, open_fake_engine
from stoker.testing.engines_contract import CHAT_CHECKS, EMBEDDING_CHECKS, Check
from stoker.testing.fake_engine.faults import Faults


@pytest.fixture
async def chat() -> AsyncIterator[RunningFakeEngine]:
    async with open_fake_engine("tiny", names=("small",), faults=Faults(token_seconds=0.005)) as engine:
        yield engine


async def test_a_fake_chat_engine_keeps_the_contract(chat: RunningFakeEngine) -> None:
    for check in CHAT_CHECKS:
        await check(chat.base_url, "small")


async def test_a_fake_embedding_engine_keeps_the_contract() -> None:
    async with open_fake_engine("minilm", kind="embedding") as engine:
        for check in EMBEDDING_CHECKS:
            await check(engine.base_url, "minilm")


SPOILED: list[tuple[Check, Faults]] = [
    (contract.check_health, Faults(health_fails=True)),
    (contract.check_chat, Faults(status=500)),
    (contract.check_chat_stream, Faults(end_after_chunks=3)),
    (contract.check_chat_stream, Faults(error_after_chunks=3)),
    (contract.check_stream_usage, Faults(end_after_chunks=10)),
    (contract.check_completion, Faults(status=429)),
    (contract.check_completion_stream, Faults(end_after_chunks=1)),
    (contract.check_concurrent_chats, Faults(status=503)),
    (contract.check_disconnect_cancels, Faults(status=500)),
    (contract.check_disconnect_cancels, Faults(end_after_chunks=0)),
    (contract.check_bad_chat, Faults(status=500)),
]


@pytest.mark.parametrize(("check", "faults"), SPOILED, ids=lambda one: getattr(one, "__name__", ""))
async def test_the_contract_sees_what_an_engine_does_wrong(check: Check, faults: Faults) -> None:
    async with open_fake_engine("tiny", faults=faults) as engine:
        with pytest.raises((AssertionError, ExceptionGroup)) as raised:
            await check(engine.base_url, "tiny")
        _, others = _split(raised.value)
        assert others is None


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    if isinstance(error, BaseExceptionGroup):
        return error.split(AssertionError)
    return error, None


async def test_the_contract_misses_a_model_that_is_not_listed(chat: RunningFakeEngine) -> None:
    with pytest.raises(AssertionError, match="'large' is not among"):
        await contract.check_models(chat.base_url, "large")

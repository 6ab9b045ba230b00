"""Nothing is sent to addresses that engines can't have, whatever a name meant when it was looked at."""

from __future__ import annotations

import ipaddress

import pytest

from stoker.settings import GatewaySettings

from .conftest import running
from .scripted import Exchange, until


@pytest.fixture
def barred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if loopback were link-local: that is the only network there is everywhere."""
    monkeypatch.setattr("stoker.core.addresses.NEVER", (ipaddress.ip_network("127.0.0.0/8"),))


async def test_an_engine_whose_name_means_something_else_by_now_gets_nothing(barred: None) -> None:
    async with running(GatewaySettings(register_hosts=("10.0.0.0/8", "localhost"))) as world:
        engine = await world.engine("one")
        world.change("one", base_url=f"http://localhost:{engine.port}")
        answer = await world.ask({"model": "m"})
        assert answer.status == 502
        assert "leads to 127.0.0.1, where no engine can be" in answer.error["message"]
        assert "register_hosts" in answer.error["message"]
        await until(lambda: engine.open_connections == 0)
        assert engine.exchanges == []


async def test_one_that_is_named_by_its_address_does(barred: None) -> None:
    async with running(GatewaySettings(register_hosts=("127.0.0.1",))) as world:
        await world.engine("one")
        assert (await world.ask({"model": "m"})).status == 200


async def test_a_redirect_is_the_clients_to_follow_or_not() -> None:
    async with running() as world:
        other = await world.engine("other", model="other", names=("other",))

        async def elsewhere(exchange: Exchange) -> None:
            await exchange.reply(307, {}, [("location", f"http://127.0.0.1:{other.port}/v1/chat/completions")])

        await world.engine("one", elsewhere)
        answer = await world.ask({"model": "m"})
        assert (answer.status, answer.headers["location"]) == (
            307,
            f"http://127.0.0.1:{other.port}/v1/chat/completions",
        )
        assert other.exchanges == []

"""Which requests a web page could have sent, and which it couldn't."""

from __future__ import annotations

import json

import pytest
from tests.web.conftest import World, error_of

from stoker.web.guard import Guard

LOCAL = Guard.of("127.0.0.1:8000", ["Stoker.example", "proxy.example:8443", "10.1.2.3"])
PRIVATE = Guard.of("192.168.1.5:8000", [])
EVERYWHERE = Guard.of("0.0.0.0:8000", [])
EVERYWHERE_V6 = Guard.of("[::]:8000", [])


def ask(guard: Guard, *headers: tuple[str, str]) -> tuple[int, str] | None:
    """The status and the code of the refusal."""
    answer = guard([(name.encode(), value.encode("latin-1")) for name, value in headers])
    if answer is None:
        return None
    return answer.status, json.loads(answer.body)["error"]["code"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.0.0.1:1",
        "127.8.8.8:8000",
        "localhost",
        "LOCALHOST:8000",
        "localhost.:8000",
        "stoker.localhost:8000",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]",
        "stoker.example",
        "STOKER.example:99",
        "proxy.example",
        "10.1.2.3:8000",
    ],
)
def test_a_host_that_is_this_gateway_may_come_in(host: str) -> None:
    assert ask(LOCAL, ("host", host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "xstoker.example",
        "sub.stoker.example",
        "192.168.1.5:8000",
        "0.0.0.0:8000",
        "2130706433",
        "[::2]:8000",
        "\xe9vil.example",
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    assert ask(LOCAL, ("host", host)) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "host",
    ["a b", "user@127.0.0.1", "127.0.0.1:x", "127.0.0.1:", "http://127.0.0.1", "[::1", "::1", "a/b", "127.0.0.1:8000 "],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    assert ask(LOCAL, ("host", host)) == (400, "bad_host")


def test_two_hosts_are_refused_and_none_is_no_browser() -> None:
    assert ask(LOCAL, ("host", "127.0.0.1"), ("host", "127.0.0.1")) == (400, "bad_host")
    assert ask(LOCAL, ("accept", "*/*")) is None
    assert ask(LOCAL, ("host", "")) is None


def test_whoever_listens_on_one_address_is_called_by_it() -> None:
    assert ask(PRIVATE, ("host", "192.168.1.5:8000")) is None
    assert ask(PRIVATE, ("host", "192.168.1.6:8000")) == (403, "host_not_allowed")


@pytest.mark.parametrize("guard", [EVERYWHERE, EVERYWHERE_V6])
def test_whoever_listens_on_all_addresses_is_called_by_any_but_by_no_name(guard: Guard) -> None:
    assert ask(guard, ("host", "192.168.1.5:8000")) is None
    assert ask(guard, ("host", "[fd00::5]:8000")) is None
    assert ask(guard, ("host", "localhost:8000")) is None
    assert ask(guard, ("host", "evil.example:8000")) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://LOCALHOST:8000"),
        ("[::1]:8000", "http://[0::1]:8000"),
        ("localhost", "http://localhost"),
        ("stoker.example", "https://stoker.example"),
        ("stoker.example:443", "https://stoker.example"),
    ],
)
def test_a_page_of_the_gateways_own_may_use_it(host: str, origin: str) -> None:
    assert ask(LOCAL, ("host", host), ("origin", origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1:3000",
        "http://localhost:8000",
        "https://127.0.0.1:8000.evil.example",
        "http://127.0.0.1",
        "ftp://127.0.0.1:8000",
        "null",
        "",
        "file://",
        "chrome-extension://abcdef",
        "http://[",
        "127.0.0.1:8000",
        "http://a@127.0.0.1:8000",
    ],
)
def test_a_page_of_another_origin_may_not(origin: str) -> None:
    assert ask(LOCAL, ("host", "127.0.0.1:8000"), ("origin", origin)) == (403, "origin_not_allowed")


def test_two_origins_are_none_and_an_origin_needs_a_host() -> None:
    own = ("origin", "http://127.0.0.1:8000")
    assert ask(LOCAL, ("host", "127.0.0.1:8000"), own, own) == (403, "origin_not_allowed")
    assert ask(LOCAL, own) == (403, "origin_not_allowed")


async def test_the_app_is_behind_the_guard_with_all_it_has(world: World) -> None:
    for path in ("/health", "/v1/models", "/v1/management/engines", "/nowhere"):
        answer = await world.anyone.get(path, headers={"Host": "evil.example", "X-Request-ID": "mine"})
        assert answer.status_code == 403
        error = error_of(answer)
        assert error["code"] == "host_not_allowed"
        assert "put 'evil.example' into allowed_hosts of [gateway]" in error["message"]
        assert answer.headers["x-request-id"] == "mine"


async def test_a_page_can_not_stop_an_engine_even_if_it_knows_the_token(world: World) -> None:
    await world.start("m")
    answer = await world.api.post("/engines/m/stop", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "origin_not_allowed"
    assert world.supervisor.info("m").state == "READY"


async def test_the_name_of_a_reverse_proxy_can_be_allowed(world: World) -> None:
    assert (await world.anyone.get("/health", headers={"Host": "stoker.example"})).status_code == 200

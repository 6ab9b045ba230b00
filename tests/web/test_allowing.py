"""What may come over HTTP: no commands unless the configuration says so, and no engines just anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from tests.web.conftest import World, error_of

from stoker.settings import GatewaySettings

ELSEWHERE = ["http://8.8.8.8", "https://[2606:4700::1111]:8443/v1", "http://0x08080808"]
NEVER = [
    "http://169.254.169.254/latest",
    "http://[fe80::1]:80",
    "http://0.0.0.0:8000",
    "http://0",
    "http://[::ffff:169.254.169.254]",
    "http://2852039166",
    "http://224.0.0.1",
    "http://[fd00:ec2::254]",
]
HERE = [
    "http://127.0.0.1:9001",
    "http://localhost:9001/v1",
    "http://[::1]:1",
    "http://10.2.3.4:8000",
    "http://127.1:80",
]


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings()


async def register(world: World, url: str) -> tuple[int, str]:
    answer = await world.api.post("/engines/register", json={"model": "m", "url": url})
    return answer.status_code, "" if answer.is_success else error_of(answer)["message"]


@pytest.mark.parametrize("url", HERE)
async def test_this_machine_and_private_networks_may_be_registered(world: World, url: str) -> None:
    assert await register(world, url) == (201, "")


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_anywhere_else_has_to_be_named_first(world: World, url: str) -> None:
    status, message = await register(world, url)
    assert status == 403
    assert "add it to register_hosts of [gateway]" in message


@pytest.mark.parametrize("url", NEVER)
async def test_link_local_and_its_like_are_refused_however_they_are_spelt(world: World, url: str) -> None:
    status, message = await register(world, url)
    assert status == 403
    assert "no engine can be at" in message
    assert "[[engine]]" not in message, "it would not help"


async def test_a_start_with_a_url_is_looked_at_as_well(world: World) -> None:
    order = {"model": "m", "runtime": "remote", "url": "http://169.254.169.254"}
    answer = await world.api.post("/engines/start", json=order)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "engine_host_not_allowed")
    assert (await world.api.get("/engines")).json()["data"] == []


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1:1", "http://127.0.0.1\\@evil.example", "http://a@[::1]"])
async def test_a_url_with_credentials_is_refused_and_not_repeated(world: World, url: str) -> None:
    status, message = await register(world, url)
    assert status == 400
    assert "secret" not in message


SECRETS = ("AWS_SECRET_ACCESS_KEY", "STOKER_API_KEY", "STOKER_ENGINE", "stoker_engine_key", "XSTOKER_ENGINE_KEY")


@pytest.mark.parametrize("path", ["/engines/register", "/engines/start"])
@pytest.mark.parametrize("name", SECRETS)
async def test_no_secret_of_the_gateway_is_sent_to_a_url_of_somebodys_choice(
    world: World, path: str, name: str
) -> None:
    order = {"model": "m", "runtime": "remote", "url": HERE[0], "api_key_env": name}
    answer = await world.api.post(path, json=order)
    assert answer.status_code == 403
    refusal = error_of(answer)
    assert (refusal["code"], refusal["param"]) == ("api_key_variable_not_allowed", "api_key_env")
    assert "it may name: STOKER_ENGINE_*; give the key such a name, add its name to api_key_v" in refusal["message"]
    assert name not in refusal["message"].replace("STOKER_ENGINE_*", "")
    assert (await world.api.get("/engines")).json()["data"] == []


async def test_a_key_for_an_engine_has_a_name_that_says_so(world: World) -> None:
    order = {"model": "m", "url": HERE[0], "api_key_env": "STOKER_ENGINE_KEY"}
    assert (await world.api.post("/engines/register", json=order)).status_code == 201


class TestWhereVariablesAreNamed:
    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(api_key_variables=("TOGETHER_KEY", "OPENAI_*"))

    @pytest.mark.parametrize(
        ("name", "status"),
        [("TOGETHER_KEY", 201), ("OPENAI_API_KEY", 201), ("TOGETHER_KEY_2", 403), ("STOKER_ENGINE_KEY", 403)],
    )
    async def test_they_may_be_given_and_no_others(self, world: World, name: str, status: int) -> None:
        order = {"model": "m", "url": HERE[0], "api_key_env": name}
        assert (await world.api.post("/engines/register", json=order)).status_code == status


class TestWhereHostsAreNamed:
    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(register_hosts=("8.8.8.8", "engine.invalid"))

    async def test_they_may_be_registered_and_no_others(self, world: World) -> None:
        assert await register(world, "http://8.8.8.8") == (201, "")
        assert await register(world, "http://engine.invalid:8000") == (201, "")
        assert (await register(world, "http://127.0.0.1:9001"))[0] == 403


COMMANDS: list[dict[str, Any]] = [
    {"runtime": "command", "command": ["sh", "-c", "id"]},
    {"runtime": "command"},
    {"runtime": "vllm", "command": ["sh"]},
    {"env": {"LD_PRELOAD": "/tmp/x.so"}},
    {"env": {"PYTHONSTARTUP": "/tmp/x.py"}},
    {"env": {"HF_HOME": "/models", "PATH": "/tmp"}},
]


@pytest.mark.parametrize("order", COMMANDS)
async def test_a_token_is_no_shell(world: World, order: dict[str, Any]) -> None:
    answer = await world.api.post("/engines/start", json={"model": "m", **order})
    assert answer.status_code == 403
    error = error_of(answer)
    assert error["code"] == "commands_not_allowed"
    assert "allow_commands_over_http = true" in error["message"]
    assert world.supervisor.commands == []


async def test_arguments_and_other_variables_are_an_admins_to_choose(world: World) -> None:
    order = {"model": "m", "args": ["--max-model-len", "8192"], "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}}
    assert (await world.api.post("/engines/start", json=order)).status_code == 202


class TestWhereCommandsAreAllowed:
    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(allow_commands_over_http=True)

    async def test_they_get_to_their_runtime(self, world: World) -> None:
        answer = await world.api.post("/engines/start", json={"model": "m", "env": {"PATH": "/opt"}})
        assert answer.status_code == 202


# Nothing that is named in a path or a body leads out of its folder


@pytest.mark.parametrize("engine_id", ["../../etc/passwd", "..", ".", "a/b", "/etc/passwd", "a\\b", "a\0", "A", ""])
async def test_an_id_is_no_path(world: World, engine_id: str) -> None:
    for path in ("/engines/start", "/engines/register"):
        body = {"model": "m", "engine_id": engine_id, "url": "http://127.0.0.1:1", "runtime": "remote"}
        answer = await world.api.post(path, json=body)
        assert (answer.status_code, error_of(answer)["param"]) == (400, "engine_id")


@pytest.mark.parametrize("label", ["../../etc/passwd", "..a", "/etc/x", "a\\..\\b"])
async def test_a_label_makes_an_id_that_is_none(world: World, label: str) -> None:
    answer = await world.api.post("/engines/start", json={"model": "m", "label": label})
    assert answer.status_code == 202
    assert not set("/\\") & set(answer.json()["engine_id"])
    assert not answer.json()["engine_id"].startswith(".")


@pytest.mark.parametrize(
    "path",
    ["..%2f..%2fadmin-token", "..", "%2e%2e", "m%2f..%2f..%2fadmin-token", "..%5cx", "m/../../admin-token", "%00"],
)
async def test_a_log_is_that_of_an_engine_and_no_other_file(world: World, path: str) -> None:
    await world.start("m")
    for head in (f"GET /v1/management/engines/{path}/logs", f"GET /v1/management/engines/{path}/logs?follow=1"):
        authorization = world.api.headers["authorization"]
        request = f"{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
        status, _ = await world.send_raw(request.encode())
        assert status == 404

"""The endpoints of plugins stand beside Stoker's own, behind the same doors; what is wrong with them keeps them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from quart import Blueprint
from tests.web.conftest import BEARER, World

from stoker.errors import PluginError


@attrs.frozen
class Hook:
    """A plugin's hook that returns what the test says."""

    answer: Callable[[], object]
    plugin: str = "extra"

    def __call__(self, **arguments: object) -> Any:
        return self.answer()


async def answer() -> dict[str, str]:
    return {"hello": "world"}


async def on_error(_error: Exception) -> str:
    return "something else"


async def fail() -> str:
    raise ValueError("no such luck")


def page(
    path: str = "/extra", view: Callable[..., Any] = answer, name: str = "extra", methods: tuple[str, ...] = ("GET",)
) -> Blueprint:
    blueprint = Blueprint(name, __name__)
    blueprint.add_url_rule(path, view_func=view, methods=list(methods))
    return blueprint


def of_the_whole_app() -> Blueprint:
    blueprint = page()
    blueprint.before_app_request(answer)
    return blueprint


def catching_all_errors() -> Blueprint:
    blueprint = page()
    blueprint.app_errorhandler(404)(on_error)
    return blueprint


def boom() -> object:
    raise ValueError("no such luck")


def sync() -> str:
    return ""


async def test_an_endpoint_of_a_plugin_is_answered_like_any_other(world: World) -> None:
    world.app.add_routes_of(Hook(lambda: [page()]))
    answered = await world.anyone.get("/extra")
    assert (answered.status_code, answered.json()) == (200, {"hello": "world"})
    assert answered.headers["x-request-id"]
    stranger = await world.anyone.get("/extra", headers={"host": "elsewhere.example"})
    assert stranger.status_code == 403


async def test_below_the_management_it_needs_the_token(world: World) -> None:
    world.app.add_routes_of(Hook(lambda: [page("/v1/management/extra")]))
    assert (await world.anyone.get("/v1/management/extra")).status_code == 401
    assert (await world.anyone.get("/v1/management/extra", headers=BEARER)).status_code == 200


async def test_what_a_handler_raises_is_our_error_and_the_plugins_name_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.app.add_routes_of(Hook(lambda: [page(view=fail)]))
    answered = await world.anyone.get("/extra")
    assert answered.status_code == 500
    assert answered.json()["error"]["code"] == "internal_error"
    assert "(plugin 'extra')" in caplog.text


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (boom, "ValueError: no such luck"),
        (lambda: 3, "returned a int"),
        (lambda: [3], "3 is no Blueprint"),
        (lambda: [page(view=sync)], "'extra.sync' is not async"),
        (lambda: [page("/health")], "GET /health is taken"),
        (lambda: [page("/v1/models/<anything>")], "GET /v1/models/<> is taken"),
        (lambda: [page("/v1/chat/completions", methods=("POST",))], "POST /v1/chat/completions is taken"),
        (lambda: [page(name="management")], "there is a blueprint 'management' already"),
        (lambda: [page(), page("/other")], "'extra'"),
        (lambda: [of_the_whole_app()], "before_request_funcs"),
        (lambda: [catching_all_errors()], "error_handler_spec"),
        (lambda: [page("/fine", name="fine"), page("/health")], "GET /health is taken"),
    ],
)
async def test_what_is_wrong_is_said_in_the_plugins_name_and_nothing_of_it_is_there(
    world: World, make: Callable[[], object], says: str
) -> None:
    with pytest.raises(PluginError) as error:
        world.app.add_routes_of(Hook(make))
    assert says in str(error.value)
    assert "'extra'" in str(error.value)
    assert (await world.anyone.get("/extra")).status_code == 404
    assert (await world.anyone.get("/fine")).status_code == 404
    assert (await world.anyone.get("/health")).json() != {"hello": "world"}


async def test_two_plugins_can_not_have_one_path(world: World) -> None:
    world.app.add_routes_of(Hook(lambda: [page()]))
    with pytest.raises(PluginError, match=r"plugin 'second'.*GET /extra is taken"):
        world.app.add_routes_of(Hook(lambda: [page(name="another")], plugin="second"))

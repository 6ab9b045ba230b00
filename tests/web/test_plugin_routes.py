"""The endpoints of plugins stand beside Stoker's own, behind the same doors; what is wrong with them keeps them out."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import attrs
import httpx2
import pytest
import trio
from quart import Blueprint, Quart
from tests.web.conftest import BEARER, World

from stoker.errors import PluginError


@attrs.frozen
class Hook:
    """A plugin's hook that returns what the test says."""

    answer: Callable[[], object]
    plugin: str = "extra"

    def __call__(self, **arguments: object) -> Any:
        return self.answer()


@attrs.frozen
class Meddler:
    """A plugin's hook that does something to the app that it is given, and has a page as well."""

    meddle: Callable[[Quart], object]
    plugin: str = "extra"

    def __call__(self, **arguments: object) -> Any:
        self.meddle(cast("Quart", arguments["app"]))
        return [page()]


async def answer() -> dict[str, str]:
    return {"hello": "world"}


async def refuse() -> str:
    return "closed"


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


def failing_where_it_counts() -> Blueprint:
    blueprint = page()

    def check(state: Any) -> None:
        state.app.before_request(refuse)
        if state.app.name == "stoker.web":
            raise ValueError("not this app")

    blueprint.record(check)
    return blueprint


def leave() -> object:
    raise SystemExit(3)


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


async def end() -> str:
    sys.exit(3)


async def end_in_a_nursery() -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
    return ""


async def end_in_the_middle() -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        yield b"hello"
        sys.exit(3)

    return parts()


@pytest.mark.parametrize("view", [end, end_in_a_nursery])
async def test_a_handler_that_ends_the_program_fails_its_request(
    world: World, caplog: pytest.LogCaptureFixture, view: Callable[..., Any]
) -> None:
    """It ended the gateway, and whoever asked for the page could do so."""
    world.app.add_routes_of(Hook(lambda: [page(view=view)]))
    answered = await world.anyone.get("/extra")
    assert answered.status_code == 500
    assert answered.json()["error"]["code"] == "internal_error"
    assert "(plugin 'extra')" in caplog.text
    assert "SystemExit: 3" in caplog.text
    assert world.measures.contained_failures == 1
    assert (await world.anyone.get("/health")).status_code == 200


async def test_one_that_does_so_in_the_middle_of_its_answer_only_cuts_that_off(world: World) -> None:
    world.app.add_routes_of(Hook(lambda: [page(view=end_in_the_middle)]))
    with pytest.raises(httpx2.HTTPError):
        await world.anyone.get("/extra")
    assert world.measures.contained_failures == 1
    assert (await world.anyone.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (boom, "ValueError: no such luck"),
        (leave, "SystemExit: 3"),
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
        (lambda: [failing_where_it_counts()], "ValueError: not this app"),
        (lambda: [page("/v1/audio/speech", methods=("POST",))], "POST /v1/audio/speech is taken"),
        (lambda: [page("/v1/images/<kind>", methods=("POST",))], "POST /v1/images/<> is taken"),
        (lambda: [page("/<path:any>")], "/<path:any> would answer whatever nobody else does; begin it with a word"),
        (lambda: [page("/x<any>")], "would answer whatever nobody else does"),
        (lambda: [page("/v1/<path:any>", methods=("PUT",))], "would answer whatever nobody else does"),
        (lambda: [page("/v1/score")], "GET /v1/score is taken"),
        (lambda: [page("/v1/management/engines/list")], "GET /v1/management/engines/list is taken"),
        (lambda: [page("/v1/management/engines/<int:number>")], "GET /v1/management/engines/<> is taken"),
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


def replacing_a_handler(app: Quart) -> None:
    app.view_functions["open.health"] = answer


def a_page_of_its_own(app: Quart) -> None:
    app.add_url_rule("/fine", view_func=answer)


@pytest.mark.parametrize(
    ("meddle", "says"),
    [
        (lambda app: app.before_request(refuse), "before_request_funcs"),
        (lambda app: app.before_request_funcs["management"].append(refuse), "before_request_funcs"),
        (lambda app: app.teardown_appcontext(refuse), "teardown_appcontext_funcs"),
        (lambda app: app.register_error_handler(404, on_error), "error_handler_spec"),
        (replacing_a_handler, "it replaced the handler 'open.health'"),
        (a_page_of_its_own, "/fine is not of a blueprint"),
        (lambda app: app.register_blueprint(page("/health", name="fine")), "GET /health is taken"),
    ],
)
async def test_what_a_plugin_does_to_the_app_itself_is_undone(
    world: World, meddle: Callable[[Quart], object], says: str
) -> None:
    """It was taken, unseen: only another app, on which blueprints were tried, was looked at."""
    with pytest.raises(PluginError, match=r"plugin 'extra' are left out") as error:
        world.app.add_routes_of(Meddler(meddle))
    assert says in str(error.value)
    for path in ("/extra", "/fine"):
        assert (await world.anyone.get(path)).json()["error"]["code"] == "not_found"
    assert (await world.anyone.get("/health")).json() != {"hello": "world"}
    assert (await world.api.get("/engines")).status_code == 200


async def test_after_one_that_was_left_out_the_next_is_added_as_ever(world: World) -> None:
    with pytest.raises(PluginError):
        world.app.add_routes_of(Hook(lambda: [failing_where_it_counts()]))
    world.app.add_routes_of(Hook(lambda: [page()]))
    assert (await world.anyone.get("/extra")).json() == {"hello": "world"}
    assert (await world.anyone.get("/v1/models/a/b")).json()["error"]["code"] == "model_not_found"
    assert (await world.anyone.options("/health")).status_code == 200


async def test_a_blueprint_that_a_plugin_registers_itself_is_its_own(world: World) -> None:
    world.app.add_routes_of(Meddler(lambda app: app.register_blueprint(page("/other", view=fail, name="other"))))
    assert world.app.plugins == {"extra": "extra", "other": "extra"}


async def test_two_plugins_can_not_have_one_path(world: World) -> None:
    world.app.add_routes_of(Hook(lambda: [page()]))
    with pytest.raises(PluginError, match=r"plugin 'second'.*GET /extra is taken"):
        world.app.add_routes_of(Hook(lambda: [page(name="another")], plugin="second"))

"""The management endpoint that says where a request would go."""

from __future__ import annotations

import attrs
from quart import Blueprint, Response, g, request

from stoker.contracts import CREDENTIALS
from stoker.core.codes import Code
from stoker.gateway.answers import error, shown
from stoker.gateway.explaining import Explanation, explain
from stoker.gateway.members import members
from stoker.gateway.routing import RoutingTable
from stoker.gateway.saying import read_plainly
from stoker.model import RouteRequest
from stoker.suggesting import suggestion_and_all
from stoker.web.control import Control
from stoker.web.orders import RouteOrder, route_order
from stoker.web.problems import RequestError
from stoker.web.reading import read_object
from stoker.web.wire import Wire


@attrs.frozen
class RouteEndpoints:
    """What stands below ``/v1/management/route``."""

    control: Control
    table: RoutingTable
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoint to ``blueprint``, below its prefix."""
        blueprint.add_url_rule("/route/explain", view_func=self.explain, methods=["POST"])

    async def explain(self) -> Response:
        """``POST /route/explain``: which engine the request that the body describes would get, and why."""
        order = route_order(await read_object(request), "the request")
        given = await request.get_data(cache=True, as_text=False, parse_form_data=False)
        described = self._described(order, _body_in(given.decode("utf-8-sig")))
        explanation = explain(self.table, described)
        if explanation is None:
            hint = suggestion_and_all(order.model, self.table.names())
            message = f"the model {shown(order.model)} does not exist; {hint}"
            raise RequestError(error(Code.MODEL_NOT_FOUND, message, param="model"))
        return self.wire.answer(self._shown(explanation, described))

    def _described(self, order: RouteOrder, body: bytes) -> RouteRequest:
        """The request as its model's policy would see it."""
        needs = self.table.needs(order.model)
        described = RouteRequest(request_id=g.request_id, model=order.model, path=order.path)
        if "headers" in needs:
            described.headers = {name: value for name, value in order.headers.items() if name not in CREDENTIALS}
        if "body" in needs:
            described.body = body
        if body and ("prompt" in needs or "session" in needs):
            said = read_plainly(b"", body)
            described.prompt, described.session = said.prompt, said.session
        return described

    def _shown(self, explanation: Explanation, described: RouteRequest) -> dict[str, object]:
        states = {info.engine_id: info.state for info in self.control.infos()}
        engines = [
            {"engine_id": each.engine_id, "state": states.get(each.engine_id), **self.wire.plain(each)}
            for each in explanation.engines
        ]
        return {
            "asked": described.model,
            "path": described.path,
            **self.wire.plain(explanation),
            "engines": engines,
        }


def _body_in(text: str) -> bytes:
    """The member ``body`` as it was written: what is remembered of prompts are their very bytes."""
    body = ""
    for name, start, end in members(text):
        if name == "body":
            body = text[start:end]
    return b"" if body == "null" else body.encode()

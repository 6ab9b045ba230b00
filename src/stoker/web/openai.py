"""``/v1/models``, as OpenAI has it: every name a client may send, if an engine answers to it or soon will."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from quart import Blueprint, Response, request
from werkzeug.routing import BaseConverter

from stoker.core.codes import Code
from stoker.gateway.answers import error, shown
from stoker.gateway.routing import RoutingTable
from stoker.model import Backend
from stoker.suggesting import suggestion_and_all
from stoker.web.control import Control
from stoker.web.doors import models_of
from stoker.web.problems import RequestError
from stoker.web.wire import Wire


class AnyText(BaseConverter):
    """The rest of the path, slashes and all: a model may be called ``org/name`` or ``/a/path``."""

    part_isolating = False
    regex = ".+"


@attrs.frozen
class Model:
    """A model as OpenAI lists it, and beside that what its engine loads (``root``) and whether one is READY."""

    id: str
    created: int
    root: str
    kind: str
    ready: bool
    object: str = "model"
    owned_by: str = "stoker"


@attrs.frozen
class ModelEndpoints:
    """The listing of models, for clients."""

    control: Control
    table: RoutingTable
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``."""
        blueprint.add_url_rule("/v1/models", view_func=self.listing, methods=["GET"])
        blueprint.add_url_rule("/v1/models/<any_text:name>", view_func=self.show, methods=["GET"])

    async def listing(self) -> Response:
        """``GET /v1/models``: every name of a model with an engine that is READY, or that will be."""
        return self.wire.listing(list(self._models().values()))

    async def show(self, name: str) -> Response:
        """``GET /v1/models/{id}``: one of them."""
        known = self._models()
        if name not in known:
            message = f"there is no model {shown(name)}; {suggestion_and_all(name, known)}"
            raise RequestError(error(Code.MODEL_NOT_FOUND, message, param="model"))
        return self.wire.answer(known[name])

    def _models(self) -> Mapping[str, Model]:
        created = {info.engine_id: int(info.created_at) for info in self.control.infos()}
        known = models(self.table.models(), created)
        visible = models_of(request)
        return known if visible is None else {name: model for name, model in known.items() if name in visible}


def models(backends: Iterable[Backend], created: Mapping[str, int]) -> Mapping[str, Model]:
    """The models that ``backends`` serve or soon will, by name, in order. ``created`` is by engine id."""
    known: dict[str, Model] = {}
    for backend in backends:
        if not (backend.accepting or backend.expected):
            continue
        for name in dict.fromkeys((backend.model, *backend.names)):
            first = known.get(name)
            if first is None:
                since = created.get(backend.engine_id, 0)
                known[name] = Model(name, since, backend.model, backend.kind, backend.accepting)
            elif backend.accepting and not first.ready:
                known[name] = attrs.evolve(first, ready=True)
    return known

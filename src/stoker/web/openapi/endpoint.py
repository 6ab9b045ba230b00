"""``/openapi.json``: what can be asked here, for people's tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from quart import Blueprint, Response, current_app

from stoker.web.openapi.document import document
from stoker.web.wire import JSON, Wire


@attrs.define(eq=False)
class OpenApiEndpoint:
    """One document, which tells what this Stoker can be asked, plugins' endpoints too, and nothing of how it does.

    ``spec_schema`` is the JSON Schema of what describes an engine.
    """

    spec_schema: Mapping[str, Any]
    wire: Wire
    _written: bytes = b""

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoint to ``blueprint``."""
        blueprint.add_url_rule("/openapi.json", view_func=self.document, methods=["GET"])

    async def document(self) -> Response:
        """``GET /openapi.json``: all that can be asked, as an OpenAPI document."""
        if not self._written:  # no route is added once there are requests
            self._written = self.wire.encode(document(current_app, self.spec_schema))
        return Response(self._written, content_type=JSON)

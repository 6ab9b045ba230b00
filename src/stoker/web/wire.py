"""Records as JSON: the names of their fields, enums as their values, tuples as lists."""

from __future__ import annotations

import json
from collections.abc import Mapping

import cattrs
from quart import Response

from stoker.gateway.answers import Answer

JSON = "application/json"


class Wire:
    """Makes answers of records, lists and mappings."""

    def __init__(self) -> None:
        self._converter = cattrs.Converter()

    def plain(self, record: object) -> dict[str, object]:
        """A record as a dictionary of what JSON knows."""
        plain: dict[str, object] = self._converter.unstructure(record)
        return plain

    def encode(self, value: object) -> bytes:
        """``value``, in which records may stand anywhere, as JSON in one line."""
        text = json.dumps(self._converter.unstructure(value), ensure_ascii=False, allow_nan=False)
        return text.encode(errors="replace")  # half a surrogate pair, say of a log, must not spoil everything else

    def answer(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer with ``value`` as its JSON body."""
        return Response(self.encode(value), status, dict(headers or {}), content_type=JSON)

    def listing(self, values: object) -> Response:
        """An answer with several things, in the shape that OpenAI gives to lists."""
        return self.answer({"object": "list", "data": values})


def respond(answer: Answer) -> Response:
    """An answer of the gateway as one of Quart's."""
    response = Response(answer.body, answer.status)
    del response.headers["content-type"]
    response.headers.extend((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
    return response

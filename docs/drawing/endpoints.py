"""What the HTTP interface says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawing.marks import Parts
from drawing.prose import table
from stoker.config import spec_schema
from stoker.web.app import skeleton
from stoker.web.openapi.document import document

METHODS = ("get", "post", "put", "patch", "delete")


def _endpoints() -> str:
    described: Mapping[str, Mapping[str, Any]] = document(skeleton(), spec_schema())["paths"]
    rows = (
        (f"`{path}`", method.upper(), operation["summary"], ", ".join(sorted(operation["responses"])))
        for path, operations in sorted(described.items())
        for method, operation in operations.items()
        if method in METHODS
    )
    return table(("path", "method", "what", "statuses"), rows)


PARTS: Parts = {"endpoints": _endpoints}

"""What one endpoint takes and answers, besides what all of them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.model import NOTHING
from stoker.web.openapi.schemas import Many, Shape, one_of
from stoker.web.wire import JSON

ANYTHING = Mapping[str, Any]
"""An object of which nothing is said here."""


@attrs.frozen
class Parameter:
    """One query parameter."""

    shape: Shape
    meaning: str


@attrs.frozen(kw_only=True)
class Operation:
    """One endpoint. ``answers`` are its own, by status, in any of the types ``media``; ``errors`` are the others.

    What comes of bodies, keys, ids in the path and addresses that are refused is added to ``errors`` for all. ``body``
    is the shape of the JSON object that it takes, None where it takes none; it may be left out unless ``needs_body``.
    An object given as a mapping has no other members than those.
    """

    answers: Mapping[int, Shape]
    media: Sequence[str] = (JSON,)
    errors: Sequence[int] = ()
    query: Mapping[str, Parameter] = NOTHING
    body: Shape | None = None
    needs_body: bool = False


def listing(shape: Shape) -> Shape:
    """The shape of a whole listing."""
    return {"object": one_of("list"), "data": Many(shape)}


def page(shape: Shape) -> Shape:
    """The shape of a part of a listing."""
    return {**listing(shape), "has_more": bool, "next": str | None}

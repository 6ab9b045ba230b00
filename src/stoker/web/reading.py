"""What a request brings, read strictly: a body that is a JSON object, and query parameters that are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from quart import Request

from stoker.gateway.nesting import DEPTH, is_deep
from stoker.web.problems import bad_request

_MOST_PARAMETERS = 64
T = TypeVar("T")


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body; no body counts as an empty one if ``optional``. Raises RequestError otherwise."""
    body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    if optional and not body:
        return {}
    if optional and not body.strip():
        raise bad_request("the body is white space; send a JSON object, or no body at all")
    value = parse_json(body)
    if not isinstance(value, dict):
        raise bad_request(f"the body must be a JSON object, not {_KINDS[type(value)]}")
    return value


_KINDS: Mapping[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def parse_json(body: bytes) -> object:
    """``body`` as JSON. Raises RequestError that says where and what is wrong, whatever the bytes are."""
    if not body.strip():
        raise bad_request("the body is empty; send a JSON object")
    try:
        value: object = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        # Escapes can smuggle in half a surrogate pair, which can be neither encoded nor given to a process.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 (at byte {error.start}), which JSON has to be") from None
    except UnicodeEncodeError:
        raise bad_request("the body holds half a surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise bad_request(f"the body is not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise bad_request("the body is not usable JSON: it is nested too deeply") from None
    except ValueError as error:  # such as a number of more digits than Python cares to read
        raise bad_request(f"the body is not usable JSON: {error}") from None
    if is_deep(body):
        raise bad_request(f"the body is nested too deeply: more than {DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class Query:
    """The query parameters of a request, of which only ``known`` ones may be there."""

    def __init__(self, query_string: bytes, known: tuple[str, ...]) -> None:
        try:
            pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise bad_request(f"the query has more than {_MOST_PARAMETERS} parameters") from None
        self._values = dict(pairs)
        for name in self._values:
            if name not in known:
                raise bad_request(f"there is no query parameter {name!r} here; there are: {', '.join(known)}", name)

    def choice(self, name: str, value: str) -> bool:
        """Whether ``name=value`` was given. No other value is allowed."""
        if name not in self._values:
            return False
        if self._values[name] != value:
            raise bad_request(f"{name}={self._values[name]!s} is not known; the one value is {name}={value}", name)
        return True

    def flag(self, name: str) -> bool:
        """Whether ``name`` was given as 1 (or true); 0 (or false) is allowed too."""
        return self._read(name, "1 or 0", _FLAGS.__getitem__) or False

    def text(self, name: str) -> str | None:
        """What was given as ``name``, or None."""
        return self._values.get(name)

    def number(self, name: str, *, most: int) -> int | None:
        """The whole number given as ``name``, from 0 to ``most``, or None."""

        def read(text: str) -> int:
            if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
                raise ValueError(text)
            return int(text)

        return self._read(name, f"a whole number from 0 to {most}", read)

    def _read(self, name: str, wanted: str, read: Callable[[str], T]) -> T | None:
        if name not in self._values:
            return None
        try:
            return read(self._values[name])
        except (KeyError, ValueError):
            raise bad_request(f"{name}={self._values[name]} is not understood; it must be {wanted}", name) from None


_FLAGS: Mapping[str, bool] = {"1": True, "true": True, "0": False, "false": False}

"""What the gateway reads of a request's body: the model it asks for, and whether it asks for a stream."""

from __future__ import annotations

import email.parser
import email.policy
import json

import attrs
import trio

from stoker.gateway.answers import Answer, error
from stoker.gateway.headers import HeaderList, find

LARGE_BODY = 256 * 1024  # bytes; larger ones are read in a thread


@attrs.frozen
class Asked:
    """What a request asks for."""

    model: str
    stream: bool = False


async def read(headers: HeaderList, body: bytes) -> Asked | Answer:
    """Read the body, which is JSON, or a form where the content type says so; or the error that says what is wrong.

    The body is never changed: as with every JSON reader here, the last of two members of one name counts.
    """
    content_type = (find(headers, b"content-type") or b"").decode("latin-1")
    reader = _read_form if content_type.lower().startswith("multipart/form-data") else _read_json
    if len(body) <= LARGE_BODY:
        return reader(content_type, body)
    return await trio.to_thread.run_sync(reader, content_type, body)


def _read_json(_content_type: str, body: bytes) -> Asked | Answer:
    try:
        asked = json.loads(body.decode())
    except UnicodeDecodeError as wrong:
        return _malformed(f"the body is not UTF-8: {wrong.reason} at byte {wrong.start}")
    except json.JSONDecodeError as wrong:
        return _malformed(f"the body is not JSON: {wrong.msg} at line {wrong.lineno}, column {wrong.colno}")
    except RecursionError:
        return _malformed("the body is nested too deeply")
    except ValueError as wrong:  # an integer of thousands of digits
        return _malformed(f"the body can't be read: {wrong}")
    if not isinstance(asked, dict):
        return _malformed("the body must be a JSON object with the member 'model'")
    model = asked.get("model")
    if model is None:
        return error(400, "the body does not say which model: add the member 'model'", code="missing", param="model")
    return _asked(model, stream=asked.get("stream") is True)


def _read_form(content_type: str, body: bytes) -> Asked | Answer:
    head = email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(f"Content-Type: {content_type}\r\n\r\n")
    boundary = head.get_boundary()
    if not boundary:
        return _malformed("the form has no boundary in its Content-Type")
    model = _form_field(body, b"--" + boundary.encode("latin-1", "replace"), "model")
    if model is None:
        return error(400, "the form does not say which model: add the field 'model'", code="missing", param="model")
    return _asked(model, stream=False)


def _form_field(body: bytes, delimiter: bytes, wanted: str) -> str | None:
    """The value of the last field of that name, as with JSON; files are stepped over without a look inside."""
    value: str | None = None
    start = body.find(delimiter)
    while start >= 0:
        start += len(delimiter)
        end = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, end if end >= 0 else None)
        if end < 0 or head_end < 0:
            return value
        head = body[start:head_end].decode(errors="replace").lstrip()
        part = email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(head + "\r\n\r\n")
        name = part.get_param("name", header="content-disposition")
        if name == wanted and part.get_filename() is None:
            value = body[head_end + 4 : end].decode(errors="replace")
        start = end + 2
    return value


def _asked(model: object, *, stream: bool) -> Asked | Answer:
    if not isinstance(model, str):
        return error(400, f"'model' must be a string, not {type(model).__name__}", code="invalid_type", param="model")
    if not model:
        return error(400, "'model' is empty: it must name a model", code="missing", param="model")
    return Asked(model, stream=stream)


def _malformed(message: str) -> Answer:
    return error(400, message, code="invalid_body")

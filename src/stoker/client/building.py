"""What both clients are made of, and how what their callers say is put into words."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import attrs

from stoker.client import requests
from stoker.client.asking import Asking
from stoker.client.discovery import Discovery
from stoker.client.finding import find_gateway
from stoker.client.managing import Managing
from stoker.client.tls import trusting
from stoker.client.wire import Doors
from stoker.suggesting import suggestion

TIMEOUT_SECONDS = 600.0

UNSET: Any = object()


class Options(TypedDict, total=False):
    """What ``create`` takes. Its docstring says what each means."""

    api_key: str | None
    default_model: str | None
    default_embedding_model: str | None
    timeout: float | None
    direct: bool
    batch_size: int
    parallel: int
    verify: ssl.SSLContext | str | Path | None


@attrs.frozen(kw_only=True)
class Core:
    """The inside of a client, less its shell."""

    asking: Asking
    managing: Managing
    doors: Doors
    timeout_seconds: float | None

    @property
    def direct(self) -> bool:
        """Whether engines are talked to directly."""
        return self.asking.discovery is not None

    def options(self, given: Mapping[str, Any], *, stream: bool = False, with_usage: bool = False) -> requests.Options:
        """What a caller said beside the content. What is not an argument of ours is a member of the body.

        Raises ValueError for what can't be.
        """
        fields = dict(given)
        timeout = fields.pop("timeout", UNSET)
        return requests.Options(
            model=_name("model", fields.pop("model", None)),
            timeout_seconds=self.timeout_seconds if timeout is UNSET else _timeout(timeout),
            headers=_by_name("extra_headers", fields.pop("extra_headers", None), str),
            extra=_by_name("extra_body", fields.pop("extra_body", None), object),
            fields=fields,
            stream=stream,
            with_usage=with_usage,
        )


Make = Callable[[str, requests.Options], requests.Call]


def chat(messages: requests.Messages) -> Make:
    """Makes the request of a chat once the model is known. Raises ValueError for what is no conversation."""
    return partial(requests.chat, requests.conversation(messages))


def completion(prompt: requests.Texts) -> Make:
    """Makes the request of a completion once the model is known. Raises ValueError for what is no prompt."""
    return partial(requests.completion, requests.prompts(prompt))


def core(settings: Mapping[str, Any]) -> Core:
    """The inside of a client.

    Raises BadRequest for an address that is none, ValueError for what can't be, TypeError for a setting there isn't.
    """
    known = ("control_plane_url", *Options.__annotations__)
    for name in settings:
        if name not in known:
            raise TypeError(f"create() has no setting {name!r}; {suggestion(name, known)}")
    address = find_gateway(settings.get("control_plane_url"), settings.get("api_key"), os.environ)
    timeout = _timeout(settings.get("timeout", TIMEOUT_SECONDS))
    batch_size, parallel = settings.get("batch_size", 32), settings.get("parallel", 8)
    for name, number in (("batch_size", batch_size), ("parallel", parallel)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, not {number!r}")
    discovery = Discovery(time.monotonic, gateway_is_local=address.local) if settings.get("direct") else None
    asking = Asking(
        address=address,
        clock=time.monotonic,
        default_model=_name("default_model", settings.get("default_model")),
        default_embedding_model=_name("default_embedding_model", settings.get("default_embedding_model")),
        discovery=discovery,
        batch_size=batch_size,
        parallel=parallel,
    )
    doors = Doors(address, trusting(settings.get("verify")))
    return Core(asking=asking, managing=Managing(asking), doors=doors, timeout_seconds=timeout)


def _timeout(given: Any) -> float | None:
    if given is None or (isinstance(given, int | float) and given > 0):
        return given
    raise ValueError(f"timeout must be a number of seconds above 0, or None for no limit, not {given!r}")


def _name(what: str, given: Any) -> str | None:
    if given is None or (isinstance(given, str) and given):
        return given
    raise ValueError(f"{what} must be the name of a model, or None, not {given!r}")


def _by_name(what: str, given: Any, kind: type) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} must be a dict, not a {type(given).__name__}")  # noqa: TRY004 - as all it is about
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            found = type(value).__name__  # the value itself may be a secret
            raise ValueError(f"{what}: {name!r} must be a text, and its value too: it is of type {found}")  # noqa: TRY004
    return given

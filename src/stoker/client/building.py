"""What both clients are made of, and how what their callers say is put into words."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypedDict

import attrs

from stoker.client import requests
from stoker.client.asking import Asking
from stoker.client.discovery import Discovery
from stoker.client.finding import find_gateway
from stoker.client.managing import Managing
from stoker.client.wire import Doors

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
    verify: ssl.SSLContext | None


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
        """What a caller said beside the content. What is not an argument of ours is a member of the body."""
        fields = dict(given)
        timeout = fields.pop("timeout", UNSET)
        return requests.Options(
            model=fields.pop("model", None),
            timeout_seconds=self.timeout_seconds if timeout is UNSET else timeout,
            headers=fields.pop("extra_headers", None) or {},
            extra=fields.pop("extra_body", None) or {},
            fields=fields,
            stream=stream,
            with_usage=with_usage,
        )


Make = Callable[[str, requests.Options], requests.Call]


def chat(messages: requests.Messages) -> Make:
    """Makes the request of a chat once the model is known."""
    return partial(requests.chat, messages)


def completion(prompt: requests.Texts) -> Make:
    """Makes the request of a completion once the model is known."""
    return partial(requests.completion, prompt)


def core(settings: Mapping[str, Any]) -> Core:
    """The inside of a client. Raises BadRequest for an address that is none, and ValueError for what can't be."""
    address = find_gateway(settings.get("control_plane_url"), settings.get("api_key"), os.environ)
    timeout = settings.get("timeout", TIMEOUT_SECONDS)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, or None for no limit, not {timeout!r}")
    batch_size, parallel = settings.get("batch_size", 32), settings.get("parallel", 8)
    for name, number in (("batch_size", batch_size), ("parallel", parallel)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, not {number!r}")
    discovery = Discovery(time.monotonic, gateway_is_local=address.local) if settings.get("direct") else None
    asking = Asking(
        address=address,
        clock=time.monotonic,
        default_model=settings.get("default_model"),
        default_embedding_model=settings.get("default_embedding_model"),
        discovery=discovery,
        batch_size=batch_size,
        parallel=parallel,
    )
    doors = Doors(address, settings.get("verify"))
    return Core(asking=asking, managing=Managing(asking), doors=doors, timeout_seconds=timeout)

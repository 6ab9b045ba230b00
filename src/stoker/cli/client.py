"""Talks to a gateway's management side, synchronously, and turns its answers into values or StokerErrors."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from stoker.cli.finding import Address, RunningGateway, address_of, find_gateway, not_running
from stoker.cli.invocation import program
from stoker.errors import ConflictError, NotFoundError, StokerError
from stoker.home import Home
from stoker.pinning import pinned, tls_failure

MANAGEMENT = "/v1/management"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
READING_SECONDS = 15.0  # it says within 10 that a driver hangs, and all else at once


class Client:
    """A connection to one gateway; a context manager. Paths begin below ``root``.

    Methods raise NotRunningError when nobody answers, NotFoundError and ConflictError for what the gateway calls so,
    and StokerError for everything else, each with the gateway's own message.
    """

    def __init__(self, address: Address, root: str = MANAGEMENT) -> None:
        self.address = address
        self._root = root
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx2.Client(
            base_url=address.url,
            headers=headers(address),
            timeout=timeout,
            trust_env=not address.local,  # a proxy that the environment names is for the network, not for this machine
            verify=verification(address),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def is_healthy(self) -> bool:
        """Whether the gateway says that it lives."""
        with self._contained():
            return self._http.get("/health").is_success

    def get(self, path: str, *, patience_seconds: float = READING_SECONDS) -> dict[str, Any]:
        """The JSON object at ``path``."""
        return self._call("GET", path, patience_seconds=patience_seconds)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, patience_seconds: float = ANSWER_SECONDS
    ) -> dict[str, Any]:
        """Send ``body`` there, and return the JSON object that is the answer."""
        return self._call("POST", path, dict(body or {}), patience_seconds)

    def post_text(self, path: str, text: str) -> dict[str, Any]:
        """Send the JSON ``text`` there as it is, and return the JSON object that is the answer."""
        return self._call("POST", path, text)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Delete what is there, and return the JSON object that is the answer."""
        return self._call("DELETE", path, dict(body or {}))

    def listing(self, path: str) -> list[dict[str, Any]]:
        """The things that ``path`` lists."""
        things = self.get(path).get("data")
        if not isinstance(things, list):
            raise self._stranger()
        return things

    def text(self, path: str, **query: int) -> Iterator[str]:
        """The text at ``path`` as it comes; endless where it is followed."""
        with self._contained(), self._http.stream("GET", self._root + path, params=query, timeout=None) as response:
            if response.status_code != httpx2.codes.OK:
                response.read()
                raise self._problem(response)
            yield from response.iter_text()

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | str | None = None,
        patience_seconds: float = ANSWER_SECONDS,
    ) -> dict[str, Any]:
        sent: dict[str, Any] = {"content": body.encode()} if isinstance(body, str) else {"json": body}
        timeout = httpx2.Timeout(patience_seconds, connect=CONNECT_SECONDS)
        with self._contained(patience_seconds):
            response = self._http.request(method, self._root + path, timeout=timeout, **sent)
        if not response.is_success:
            raise self._problem(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    @contextlib.contextmanager
    def _contained(self, patience_seconds: float = ANSWER_SECONDS) -> Iterator[None]:
        url = self.address.url
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if (wrong := tls_failure(error)) is not None:
                raise StokerError(
                    f"what answers at {url} can't prove that it is the gateway: {wrong}; if its certificate is new, "
                    "restart it, or name it in STOKER_URL by the name of its certificate"
                ) from error
            raise not_running(f"no gateway answers at {url}", named=self.address.named) from error
        except httpx2.TimeoutException as error:
            raise StokerError(
                f"the gateway at {url} did not answer in {patience_seconds:.0f} s; {program()} doctor looks at it"
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise StokerError(
                f"the gateway at {url} broke off: {str(error) or type(error).__name__}; try again"
            ) from error

    def _problem(self, response: httpx2.Response) -> StokerError:
        try:
            error = response.json()["error"]
            message = str(error["message"])
        except (ValueError, KeyError, TypeError):
            return self._stranger()
        match response.status_code:
            case httpx2.codes.NOT_FOUND:
                return NotFoundError(message)
            case httpx2.codes.CONFLICT:
                return ConflictError(message)
            case httpx2.codes.FORBIDDEN if error.get("code") != "insufficient_scope":
                return StokerError(f"the gateway at {self.address.url} refuses: {message}")
            case httpx2.codes.UNAUTHORIZED | httpx2.codes.FORBIDDEN:
                return StokerError(f"the gateway at {self.address.url} refuses: {message}; {self._token_remedy()}")
        return StokerError(message)

    def _token_remedy(self) -> str:
        if self.address.token is None:
            return "set STOKER_API_KEY to its admin token, or STOKER_HOME to its folder"
        if self.address.token == os.environ.get("STOKER_API_KEY"):
            unset = ", or unset it to send the admin token of this home" if self.address.local else ""
            return f"STOKER_API_KEY was sent; correct it{unset}"
        return "the admin token of this home was sent; for a gateway of another, set STOKER_HOME or STOKER_API_KEY"

    def _stranger(self) -> StokerError:
        return StokerError(
            f"what answers at {self.address.url} is not a Stoker gateway; set STOKER_URL to the address of one"
        )


def headers(address: Address) -> dict[str, str]:
    """What proves to the gateway at ``address`` that we may manage it."""
    return {"authorization": f"Bearer {address.token}"} if address.token else {}


def verification(address: Address) -> bool | ssl.SSLContext:
    """What the gateway has to prove. Reading all certificates there are takes longer than anything else here."""
    if not address.url.startswith("https:"):
        return False
    return True if address.certfile is None else pinned(Path(address.certfile))


def connect(root: str = MANAGEMENT) -> Client:
    """A client of the gateway that this environment means. Nothing is sent yet."""
    return Client(find_gateway(Home.from_environment(os.environ), os.environ), root)


def connect_to(home: Home, running: RunningGateway) -> Client:
    """A client of the gateway that runs on ``home``, even where the environment means another one and has its key."""
    return Client(address_of(home, running, {}))


def engine_path(engine_id: str, action: str = "") -> str:
    """The path of an engine, whatever characters somebody typed for its id."""
    return f"/engines/{quote(engine_id, safe='')}" + (f"/{action}" if action else "")

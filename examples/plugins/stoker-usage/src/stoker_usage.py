"""How many tokens each model read and wrote: a page of the gateway, and the command ``stoker usage`` that prints it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence

import httpx2
from cyclopts import App
from quart import Blueprint

from stoker.errors import StokerError
from stoker.hookspecs import hookimpl
from stoker.model import RequestRecord


class Usage:
    """One plugin with state: its observer runs on a thread, its page on the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: Counter[str] = Counter()

    @hookimpl
    def stoker_request_finished(self, record: RequestRecord) -> None:
        """Count it. Requests that reached no engine have no model, and no tokens."""
        with self._lock:
            self._tokens[record.model] += (record.prompt_tokens or 0) + (record.completion_tokens or 0)

    @hookimpl
    def stoker_register_routes(self) -> Sequence[Blueprint]:
        """``GET /usage``."""
        pages = Blueprint("usage", __name__)
        pages.add_url_rule("/usage", view_func=self.page)
        return [pages]

    async def page(self) -> dict[str, int]:
        """What was counted since the start."""
        with self._lock:
            return {model: tokens for model, tokens in self._tokens.items() if tokens}

    @hookimpl
    def stoker_register_commands(self) -> Sequence[App]:
        """``stoker usage``."""
        command = App(name="usage", help="Show how many tokens each model read and wrote.")
        command.default(show)
        return [command]


def show() -> None:
    """Show how many tokens each model read and wrote."""
    url = os.environ.get("STOKER_URL", "http://127.0.0.1:8000")
    try:
        answer = httpx2.get(f"{url}/usage")
    except httpx2.HTTPError as error:
        raise StokerError(f"no gateway answers at {url}: {error}; start one, or set STOKER_URL") from error
    if not answer.is_success:
        raise StokerError(f"{url}/usage answers {answer.status_code}; does the gateway run with this plugin?")
    for model, tokens in answer.json().items():
        print(f"{model}  {tokens}")


plugin = Usage()

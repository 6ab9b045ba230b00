"""One question to a gateway that has just begun to serve, and its answer as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2
import trio

from stoker.cli.activity import Activity, warn
from stoker.cli.invocation import program
from stoker.errors import StokerError
from stoker.home import Home

ASKED = "What is the capital of France? Answer in one sentence."
MOST_TOKENS = 64
POLL_SECONDS = 0.1


class Question:
    """What ``stoker demo`` does beside the gateway. ``models`` are the names to wait for; the first one is asked.

    With ``stay`` the gateway goes on after the answer; else :meth:`ask` returns its exit code.
    """

    def __init__(self, home: Home, models: Sequence[str], *, stay: bool) -> None:
        self.answered = False
        self._home = home
        self._models = models
        self._stay = stay

    async def ask(self, url: str) -> int | None:
        """Wait for the engines at ``url``, ask, and print the answer. Returns 1 when there is none."""
        token = (await trio.Path(self._home.admin_token).read_text()).strip()
        headers = {"authorization": f"Bearer {token}"}
        try:
            async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=None) as client:
                await self._wait_until_ready(client)
                await self._print_answer(client)
        except (StokerError, httpx2.HTTPError) as error:
            warn(f"stoker: the demo got no answer: {str(error) or type(error).__name__}")
            return 1
        if not self._stay:
            return 0
        self._print_what_next(url)
        return None

    async def _wait_until_ready(self, client: httpx2.AsyncClient) -> None:
        with Activity(f"starting {' and '.join(self._models)}") as activity:
            while True:
                answer = await client.get("/v1/management/engines")
                engines = answer.raise_for_status().json()["data"]
                states = {info["engine_id"]: info["state"] for info in engines}
                for info in engines:
                    if info["state"] == "ERROR":
                        raise StokerError(f"engine {info['engine_id']!r} failed: {info['last_error']}")
                if len(states) >= len(self._models) and set(states.values()) == {"READY"}:
                    return
                activity.update(", ".join(_in_words(info) for info in engines))
                await trio.sleep(POLL_SECONDS)

    async def _print_answer(self, client: httpx2.AsyncClient) -> None:
        print(f"\nYou: {ASKED}\n{self._models[0]}: ", end="", flush=True)
        body = {
            "model": self._models[0],
            "messages": [{"role": "user", "content": ASKED}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            "stream": True,
        }
        try:
            await stream_chat(client, body, self._say)
        finally:
            print("\n")
        if not self.answered:
            raise StokerError("the answer was empty")

    def _say(self, words: str) -> None:
        self.answered = True
        print(words, end="", flush=True)

    def _print_what_next(self, url: str) -> None:
        chat, embedding = self._models[0], self._models[-1]
        message = json.dumps({"model": chat, "messages": [{"role": "user", "content": "Tell me a joke."}]})
        python = (
            f"from openai import OpenAI; print(OpenAI(base_url='{url}/v1', api_key='none')"
            f".embeddings.create(model='{embedding}', input='Hello').data[0].embedding[:4])"
        )
        print(f"The gateway answers at {url}/v1 as OpenAI's API would.\nThree lines to try next:\n")
        print(f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{message}'")
        print(f'  python3 -c "{python}"')
        print(f"  {program()} status\n\nCtrl-C stops it all.", flush=True)


def _in_words(info: Mapping[str, Any]) -> str:
    state: str = info["state"]
    detail = f" ({info['reason']})" if info["reason"].upper() not in ("", state) else ""
    return f"{info['engine_id']} is {state}{detail}"


async def stream_chat(client: httpx2.AsyncClient, body: dict[str, Any], say: Callable[[str], None]) -> None:
    """``say`` the words of a streamed chat completion as they come.

    Raises StokerError for an error that comes instead, or in the middle of it.
    """
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if not response.is_success:
            raise StokerError(_message(await response.aread()))
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise StokerError(_message(data))
            for choice in chunk.get("choices", ()):
                if words := choice.get("delta", {}).get("content"):
                    say(words)


def _message(body: bytes | str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{body[:200]!r}"

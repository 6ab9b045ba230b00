"""What the fake engine does besides inference, as vLLM does it: it sleeps, and loads adapters."""

from __future__ import annotations

import json

import attrs
import trio

from stoker.testing.fake_engine import openai
from stoker.testing.fake_engine.http import Connection, Request


@attrs.define
class Tended:
    """Whether it sleeps, and the adapters it has by now. While it sleeps, requests hang.

    Loading an adapter from below ``/slow`` is done at once, but said only after a POST to ``/fake/go-on``.
    """

    adapters: dict[str, str] = attrs.field(factory=dict)
    asleep: bool = False
    _woken: trio.Event = attrs.field(factory=trio.Event)
    _go_on: trio.Event = attrs.field(factory=trio.Event)

    async def until_awake(self) -> None:
        """Wait while it sleeps."""
        while self.asleep:
            await self._woken.wait()

    async def answer(self, connection: Connection, request: Request) -> bool:
        """Answer ``request``; False where it is about something else."""
        match (request.method, request.path):
            case ("GET", "/is_sleeping"):
                await connection.answer(200, {"is_sleeping": self.asleep})
            case ("POST", "/sleep"):
                self.asleep = True
                await connection.answer(200, {"status": "sleeping"})
            case ("POST", "/wake_up"):
                self.asleep = False
                self._woken.set()
                self._woken = trio.Event()
                await connection.answer(200, {"status": "awake"})
            case ("POST", "/v1/load_lora_adapter"):
                await self._load(connection, json.loads(request.body))
            case ("POST", "/v1/unload_lora_adapter"):
                await self._unload(connection, json.loads(request.body)["lora_name"])
            case _:
                return False
        return True

    async def _load(self, connection: Connection, order: dict[str, str]) -> None:
        if order["lora_path"].startswith("/nowhere"):
            words = f"Loading lora {order['lora_name']} failed: No adapter found for {order['lora_path']}"
            await connection.answer(404, openai.error(404, words, "NotFoundError"))
            return
        if order["lora_name"] in self.adapters:
            words = f"The lora adapter '{order['lora_name']}' has already been loaded."
            await connection.answer(400, openai.error(400, words, "InvalidUserInput"))
            return
        self.adapters[order["lora_name"]] = order["lora_path"]
        if order["lora_path"].startswith("/slow"):
            await self._go_on.wait()
        await connection.answer(200, b"Success")

    async def _unload(self, connection: Connection, name: str) -> None:
        if self.adapters.pop(name, None) is None:
            words = f"The lora adapter '{name}' cannot be found."
            await connection.answer(404, openai.error(404, words, "NotFoundError"))
            return
        await connection.answer(200, b"Success")

    def go_on(self) -> None:
        """Say of all adapters that they are loaded."""
        self._go_on.set()
        self._go_on = trio.Event()

"""What a chat asks the gateway besides its questions: models and sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import attrs

from stoker.cli.client import Client
from stoker.cli.finding import Address
from stoker.cli.invocation import program
from stoker.errors import NotFoundError, NotRunningError, StokerError
from stoker.suggesting import suggestion

_AT_ONCE = 1000
_LAST_MESSAGES = 100


@attrs.frozen(kw_only=True)
class Model:
    """One model by all its names, the first first; ``ready`` says whether an engine of it is READY."""

    names: tuple[str, ...]
    ready: bool


@attrs.frozen(kw_only=True)
class LastTurn:
    """The last turn of a session. ``question`` is None where it was no plain text, ``aborted`` true where not whole."""

    number: int
    aborted: bool
    question: str | None


@attrs.frozen
class Gateway:
    """Where questions go. Methods raise NotRunningError where nobody answers, and StokerError for what is refused."""

    address: Address

    def models(self) -> list[Model]:
        """Those to chat with."""
        with self._client() as client:
            served = client.listing("/v1/models")
        found: dict[str, Model] = {}
        for each in served:
            if each.get("kind", "llm") != "llm":
                continue
            name, root = str(each.get("id")), str(each.get("root", each.get("id")))
            before = found.get(root, Model(names=(), ready=False))
            found[root] = Model(names=(*before.names, name), ready=before.ready or bool(each.get("ready", True)))
        return list(found.values())

    def chosen(self, name: str | None) -> str:
        """That model, or without a name the only one there is. Raises NotFoundError with what may be meant."""
        models = self.models()
        if name is None:
            if len(models) == 1:
                return models[0].names[0]
            if not models:
                raise NotFoundError(f"there is no model to chat with; start one with: {program()} engine start MODEL")
            raise NotFoundError(f"there are several models, say which: {', '.join(each.names[0] for each in models)}")
        names = [each for model in models for each in model.names]
        if name not in names:
            raise NotFoundError(f"there is no model {name!r} to chat with; {suggestion(name, names)}")
        return name

    def session(self, session_id: str) -> Mapping[str, Any]:
        """That session. Raises NotFoundError."""
        try:
            with self._client() as client:
                return client.get(_path(session_id))
        except NotFoundError:
            raise NotFoundError(f"there is no session {session_id!r}; see: {program()} session list") from None

    def begin_session(self, title: str, system: str = "") -> Mapping[str, Any]:
        """A new one."""
        with self._client() as client:
            return client.post("/sessions", {"title": title, **({"instructions": system} if system else {})})

    def messages(self, session_id: str) -> list[dict[str, Any]]:
        """All that was said in it."""
        return self._messages_after(session_id, 0)

    def clear(self, session_id: str) -> None:
        """Forget what was said in it."""
        with self._client() as client:
            client.post(_path(session_id, "clear"))

    def last_turn(self, session_id: str) -> LastTurn | None:
        """Its last turn, whole or not."""
        # Places are never fewer than messages, so the last ones stand behind this place.
        after = max(0, int(self.session(session_id)["message_count"]) - _LAST_MESSAGES)
        messages = self._messages_after(session_id, after)
        if not messages:
            return None
        number, aborted = int(messages[-1]["turn"]), bool(messages[-1]["aborted"])
        asked = [each["content"] for each in messages if each["turn"] == number and each["role"] == "user"]
        question = asked[0] if len(asked) == 1 and isinstance(asked[0], str) else None
        return LastTurn(number=number, aborted=aborted, question=question)

    def forget_turn(self, session_id: str, number: int) -> None:
        """Forget one turn of it."""
        with self._client() as client:
            client.delete(_path(session_id, f"turns/{number}"))

    def in_our_words(self, error: StokerError) -> StokerError:
        """``error``; where nobody answers, what commands say of that: the client's remedies are for programs."""
        if not isinstance(error, NotRunningError):
            return error
        try:
            with self._client() as client:
                client.is_healthy()
        except NotRunningError as ours:
            return ours
        except StokerError:
            pass  # it is back, in a way; what broke off is told as it was
        return error

    def _messages_after(self, session_id: str, place: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: str | None = str(place)
        with self._client() as client:
            while after is not None:
                page = client.get(f"{_path(session_id, 'messages')}?limit={_AT_ONCE}&after={after}")
                if not isinstance(page.get("data"), list):
                    raise StokerError("the gateway gave no listing of messages")
                found += page["data"]
                after = page.get("next")
        return found

    def _client(self) -> Client:
        return Client(self.address, "")


def _path(session_id: str, action: str = "") -> str:
    return f"/sessions/{quote(session_id, safe='')}" + (f"/{action}" if action else "")

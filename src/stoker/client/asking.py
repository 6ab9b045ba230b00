"""The core: what has to be done for each call, and in which order. It does none of it itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from stoker.client import answers, requests
from stoker.client import errors as e
from stoker.client.directory import Known
from stoker.client.discovery import Discovery, Lease
from stoker.client.events import Transcript, first_error
from stoker.client.finding import Address
from stoker.client.records import InferenceResult
from stoker.client.steps import (
    EVENT_STREAM,
    Break,
    Broken,
    Close,
    Opened,
    Outcome,
    Reply,
    Request,
    Send,
    Steps,
    Together,
)

MANAGEMENT = "/v1/management"
LISTING_SECONDS = 10.0
DIRECT_ATTEMPTS = 2  # that an engine may have worked on: a request that kills engines must not go round the fleet

# The engine can't take it now: another one may. What else went wrong there, the gateway knows better.
_NEXT_ENGINE = frozenset({502, 503, 504})
_ASK_THE_GATEWAY = frozenset({401, 403, 404, 429, 500})
# Meant for the gateway, which does not pass them on either.
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key"})


def _nothing() -> None:
    pass


@attrs.frozen(kw_only=True)
class Streaming:
    """A stream that has begun: its first event, and what to call when it is over, however it ends."""

    opened: Opened
    transcript: Transcript
    began_at: float
    release: Callable[[], None] = _nothing


@attrs.frozen
class _Attempt:
    """What came of a try at one engine, and what of it has to be given back."""

    outcome: Outcome
    engine: str | None
    lease: Lease | None = None

    def give_back(self) -> None:
        if self.lease is not None:
            self.lease.close()


@attrs.define(eq=False)
class Asking:
    """Makes calls of one client. ``discovery`` is None where everything goes through the gateway."""

    address: Address
    clock: Callable[[], float]
    default_model: str | None = None
    default_embedding_model: str | None = None
    discovery: Discovery | None = None
    batch_size: int = 32
    parallel: int = 8
    _found: dict[str, str] = attrs.field(factory=dict)

    @property
    def where(self) -> str:
        """The gateway, for messages."""
        return f"the gateway at {self.address.url}"

    # Calls

    def text(self, make: Callable[[str, requests.Options], requests.Call], options: requests.Options) -> Steps[Any]:
        """A chat or a completion: an InferenceResult, or a Streaming if ``options`` ask for a stream."""
        began_at = self.clock()
        deadline = _deadline(began_at, options.timeout_seconds)
        call = make((yield from self._model("llm", options.model or self.default_model, deadline)), options)
        attempt = yield from self._asked(call, deadline)
        if isinstance(attempt.outcome, Opened):
            return Streaming(
                opened=attempt.outcome,
                transcript=Transcript(attempt.engine),
                began_at=began_at,
                release=attempt.give_back,
            )
        assert isinstance(attempt.outcome, Reply)
        if call.stream:
            raise e.UnexpectedAnswer(f"{call.model!r} was asked for a stream, and answered without one")
        return answers.text_result(self._answered(attempt.outcome, attempt.engine, began_at), self.where)

    def embed(self, texts: requests.Texts, options: requests.Options) -> Steps[InferenceResult[list[list[float]]]]:
        """The vectors of all texts, batch by batch."""
        began_at = self.clock()
        parts = requests.batches(requests.inputs(texts), self.batch_size)
        if not parts:
            return answers.joined((), 0.0)
        named = options.model or self.default_embedding_model
        model = yield from self._model("embedding", named, _deadline(began_at, options.timeout_seconds))
        calls = [self._embed_batch(requests.embedding(part, model, options), len(part)) for part in parts]
        if len(calls) == 1:
            results = [(yield from calls[0])]
        else:
            results = yield Together(calls, self.parallel)
        return answers.joined(results, self.clock() - began_at)

    def _embed_batch(self, call: requests.Call, count: int) -> Steps[InferenceResult[list[list[float]]]]:
        began_at = self.clock()
        attempt = yield from self._asked(call, _deadline(began_at, call.timeout_seconds))
        assert isinstance(attempt.outcome, Reply)
        return answers.vectors_result(self._answered(attempt.outcome, attempt.engine, began_at), count, self.where)

    def refresh(self, deadline: float | None = None) -> Steps[None]:
        """Get a listing of the engines. One that can't be had (by ``deadline``) leaves what is known.

        Raises AuthenticationFailed and PermissionDenied.
        """
        assert self.discovery is not None
        asked_at = self.clock()
        try:
            seconds = self._listing_seconds(deadline)
            outcome = yield Send(request=self.manage("GET", "/backends"), timeout_seconds=seconds)
        except BaseException:
            self.discovery.not_listed()
            raise
        if isinstance(outcome, Reply) and outcome.status in (401, 403):
            self.discovery.listed((), asked_at)
            self.discovery.not_listed()
            raise answers.error_of(outcome, self.where)
        try:
            entries = answers.listing(self.replied(outcome, seconds), self.where)
        except e.ClientError:  # the gateway is gone, or busy: its engines may well be there
            self.discovery.not_listed()
        else:
            self.discovery.listed(entries, asked_at)

    def names(self) -> Steps[list[str]]:
        """Every name that clients may ask for."""
        return [str(one.get("id")) for one in (yield from self._served(None))]

    # What calls consist of

    def manage(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Request:
        """A request to the management side."""
        headers = _bearer(self.address.admin)
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        return Request(method=method, url=f"{self.address.url}{MANAGEMENT}{path}", headers=headers, content=content)

    def replied(self, outcome: Outcome, timeout_seconds: float | None) -> Reply:
        """The answer of the gateway, if there is one. Raises GatewayUnreachable, Timeout, BadRequest."""
        if isinstance(outcome, Broken):
            raise self._broken(outcome, timeout_seconds)
        assert isinstance(outcome, Reply)
        return outcome

    def _model(self, kind: str, named: str | None, deadline: float | None) -> Steps[str]:
        """The model that is meant: the one that is named, else the only one of its kind."""
        if model := named or self._found.get(kind):
            return model
        served = yield from self._served(deadline)
        models = list(dict.fromkeys(str(one.get("root", one.get("id"))) for one in served if one.get("kind") == kind))
        if not models:
            raise e.ModelNotFound(
                f"{self.where} serves no model of the kind {kind!r}; start an engine, or name a model"
            )
        if len(models) > 1:
            names = ", ".join(models)
            raise e.BadRequest(f"{self.where} serves several models of the kind {kind!r}: {names}; say which is meant")
        self._found[kind] = models[0]
        return models[0]

    def _served(self, deadline: float | None) -> Steps[Sequence[Mapping[str, Any]]]:
        url = f"{self.address.url}/v1/models"
        request = Request(method="GET", url=url, headers=_bearer(self.address.key))
        seconds = self._listing_seconds(deadline)
        outcome = yield Send(request=request, timeout_seconds=seconds)
        return answers.listing(self.replied(outcome, seconds), self.where)

    def _asked(self, call: requests.Call, deadline: float | None) -> Steps[_Attempt]:
        """A good answer to ``call``, from an engine or from the gateway. Raises what went wrong."""
        attempt = None
        if self.discovery is not None and not call.stored:
            if self.discovery.needs_listing():
                yield from self.refresh(deadline)
            attempt = yield from self._ask_engines(call, self.discovery, deadline)
        if attempt is None:
            attempt = yield from self._ask_gateway(call, deadline)
        if isinstance(attempt.outcome, Reply) and not 200 <= attempt.outcome.status < 300:
            error = answers.error_of(attempt.outcome, self.where, attempt.engine)
            if isinstance(error, e.ModelNotFound):
                self._found.clear()
            raise error
        return attempt

    def _ask_engines(self, call: requests.Call, discovery: Discovery, deadline: float | None) -> Steps[_Attempt | None]:
        """What engines answer; None where the gateway is to be asked. Raises Timeout."""
        tried: set[str] = set()
        worked = 0
        while worked < DIRECT_ATTEMPTS and (lease := discovery.open(call.model, call.path, tried)) is not None:
            engine = lease.engine.engine_id
            tried.add(engine)
            request = _to_engine(call, lease.engine)
            keep = False
            try:
                attempt = _Attempt((yield self._send(call, request, deadline)), engine, lease)
                keep = yield from self._is_good(attempt, call)
            finally:
                if not (keep and isinstance(attempt.outcome, Opened)):
                    lease.close()
            if keep:
                return attempt
            if isinstance(attempt.outcome, Reply) and attempt.outcome.status in _ASK_THE_GATEWAY:
                return None
            discovery.suspect(engine)
            worked += _may_have_worked(attempt.outcome)
        return None

    def _is_good(self, attempt: _Attempt, call: requests.Call) -> Steps[bool]:
        """Whether an engine's answer is the call's; a stream that is not is closed. Raises Timeout."""
        outcome = attempt.outcome
        if isinstance(outcome, Broken):
            if outcome.kind is Break.TIMED_OUT:
                raise self._too_late(call.timeout_seconds, f"the engine {attempt.engine}")
            if outcome.kind is Break.UNSENDABLE:
                raise e.BadRequest(outcome.text)
            return False
        if isinstance(outcome, Reply):
            return outcome.status not in _NEXT_ENGINE | _ASK_THE_GATEWAY
        error = first_error(outcome.first, attempt.engine)
        if error is None:
            return True
        yield Close(outcome.handle)
        if isinstance(error, e.BadRequest):
            raise error
        return False

    def _ask_gateway(self, call: requests.Call, deadline: float | None) -> Steps[_Attempt]:
        """What the gateway answers. Raises GatewayUnreachable, Timeout; for streams also what their begin says."""
        headers = {**_headers(call), **_bearer(self.address.key)}
        request = Request(method="POST", url=self.address.url + call.path, headers=headers, content=call.content())
        outcome: Outcome = yield self._send(call, request, deadline)
        if isinstance(outcome, Broken):
            raise self._broken(outcome, call.timeout_seconds)
        engine = outcome.headers.get("x-stoker-engine")
        if isinstance(outcome, Opened) and (error := first_error(outcome.first, engine)) is not None:
            yield Close(outcome.handle)
            raise error
        return _Attempt(outcome, engine)

    def _answered(self, reply: Reply, engine: str | None, began_at: float) -> answers.Answered:
        return answers.Answered(reply=reply, engine=engine, latency_seconds=self.clock() - began_at)

    def _send(self, call: requests.Call, request: Request, deadline: float | None) -> Send:
        """The next try, in the time that is left. Raises Timeout where none is."""
        left = None if deadline is None else deadline - self.clock()
        if left is not None and left <= 0:
            raise self._too_late(call.timeout_seconds, "who was asked so far")
        return Send(request=request, timeout_seconds=left, stream=call.stream, between_seconds=call.timeout_seconds)

    def _listing_seconds(self, deadline: float | None) -> float:
        """How long a listing may take that a call needs."""
        left = LISTING_SECONDS if deadline is None else deadline - self.clock()
        return max(0.001, min(LISTING_SECONDS, left))

    def _broken(self, broken: Broken, timeout_seconds: float | None) -> e.ClientError:
        if broken.kind is Break.TIMED_OUT:
            return self._too_late(timeout_seconds, self.where)
        if broken.kind is Break.UNSENDABLE:
            return e.BadRequest(broken.text)
        if broken.kind is Break.NOT_REACHED:
            remedy = "start one with: stoker gateway start (or name another: control_plane_url, STOKER_URL)"
            return e.GatewayUnreachable(f"no gateway answers at {self.address.url}: {broken.text}; {remedy}")
        return e.GatewayUnreachable(f"{self.where} broke off: {broken.text}; look at its log, or try again")

    @staticmethod
    def _too_late(timeout_seconds: float | None, who: str) -> e.Timeout:
        within = "in time" if timeout_seconds is None else f"within {timeout_seconds:g} s"
        return e.Timeout(f"{who} did not answer {within}; a longer timeout may help")


def _deadline(began_at: float, timeout_seconds: float | None) -> float | None:
    return None if timeout_seconds is None else began_at + timeout_seconds


def _to_engine(call: requests.Call, engine: Known) -> Request:
    """The request as it goes to an engine: without any key, and asking for the model by a name that is known there."""
    content = call.content(engine.renames.get(call.model))
    headers = {name: value for name, value in _headers(call).items() if name not in _CREDENTIALS}
    return Request(method="POST", url=engine.url + call.path, headers=headers, content=content, to_engine=True)


def _headers(call: requests.Call) -> dict[str, str]:
    own = {"content-type": "application/json", "accept": EVENT_STREAM if call.stream else "application/json"}
    return {**own, **{name.lower(): value for name, value in call.headers.items()}}


def _bearer(secret: str | None) -> dict[str, str]:
    return {} if secret is None else {"authorization": f"Bearer {secret}"}


def _may_have_worked(outcome: Outcome) -> bool:
    """Whether the engine may have spent work upon a request that failed there."""
    if isinstance(outcome, Broken):
        return outcome.kind is Break.BROKEN_OFF
    return not (isinstance(outcome, Reply) and outcome.status == 503)

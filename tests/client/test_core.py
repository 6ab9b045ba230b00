"""The core, played: what it wants done, and what it makes of what comes of it. Nothing is sent."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker import AsyncUnifiedInferenceClient, UnifiedInferenceClient
from stoker.client import answers, requests
from stoker.client import errors as e
from stoker.client.asking import Asking, Streaming
from stoker.client.building import chat
from stoker.client.discovery import Discovery
from stoker.client.events import Transcript, first_error
from stoker.client.finding import Address
from stoker.client.requests import Options, batches, inputs
from stoker.client.steps import Break, Broken, Close, Opened, Reply, Send, Steps

from .test_directory import CHAT, entry

GATEWAY = "http://gateway"
OPTIONS = Options(timeout_seconds=10)


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    content = {"model": "m", "choices": [{"message": {"content": "hi"}}]} if body is None else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, content=json.dumps(content).encode())


def opened(first: str | None = '{"choices": []}') -> Opened:
    return Opened(handle=object(), headers={}, first=first)


RESET = Broken(Break.BROKEN_OFF, "reset")
REFUSED = Broken(Break.NOT_REACHED, "refused")
LATE = Broken(Break.TIMED_OUT, "late")


@attrs.define(slots=False)
class World:
    """A client's core, and a script of what the rest of the world answers: one line for each thing that is sent."""

    engines: Sequence[str] = ()
    now: float = 100.0
    sent: list[Send] = attrs.field(factory=list)
    closed: int = 0

    def __attrs_post_init__(self) -> None:
        discovery = Discovery(lambda: self.now, gateway_is_local=True) if self.engines else None
        if discovery is not None:
            discovery.listed([entry(name, url=f"http://{name}") for name in self.engines], self.now)
            discovery.watched()
        address = Address(url=GATEWAY, key="key", admin="admin")
        self.asking = Asking(address=address, clock=lambda: self.now, discovery=discovery)

    def ask(self, *script: Any, options: Options = OPTIONS, seconds: float = 1.0) -> Any:
        named = attrs.evolve(options, model=options.model or "m")
        return self.play(self.asking.text(chat("hello"), named), *script, seconds=seconds)

    def play(self, steps: Steps[Any], *script: Any, seconds: float = 1.0) -> Any:
        lines = iter(script)
        outcome: Any = None
        try:
            while True:
                effect = steps.send(outcome)
                outcome = None
                if isinstance(effect, Send):
                    self.sent.append(effect)
                    self.now += seconds
                    outcome = next(lines)
                elif isinstance(effect, Close):
                    self.closed += 1
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    @property
    def asked(self) -> list[str]:
        """Who was asked, in order."""
        return [send.request.url.removesuffix(CHAT).removeprefix("http://") for send in self.sent]

    def busy(self) -> int:
        """How many leases are open."""
        assert self.asking.discovery is not None
        return sum(self.asking.discovery._load.values())


def test_without_engines_the_gateway_is_asked_with_its_key() -> None:
    world = World()
    result = world.ask(reply(x_stoker_engine="one"))
    assert (result.content, result.engine, result.latency_seconds) == ("hi", "one", 1.0)
    [send] = world.sent
    assert send.request.url == GATEWAY + CHAT
    assert send.request.headers["authorization"] == "Bearer key"


def test_an_engine_is_asked_without_any_key() -> None:
    world = World(["a"])
    given = {"Authorization": "Bearer mine", "X-API-Key": "mine", "X-Trace": "t"}
    assert world.ask(reply(), options=attrs.evolve(OPTIONS, headers=given)).engine == "a"
    [send] = world.sent
    assert send.request.to_engine
    assert send.request.headers.keys() == {"accept", "content-type", "x-trace"}
    assert world.busy() == 0


def test_what_fails_is_asked_of_the_next_and_last_of_the_gateway() -> None:
    world = World(["a", "b", "c"])
    assert world.ask(REFUSED, reply(503), RESET, reply(x_stoker_engine="d")).engine == "d"
    assert sorted(world.asked[:3]) == ["a", "b", "c"]
    assert world.asked[3] == "gateway"
    assert world.busy() == 0


def test_a_request_that_kills_engines_does_not_go_round_the_fleet() -> None:
    world = World(["a", "b", "c", "d", "e"])
    with pytest.raises(e.EngineUnavailable):
        world.ask(RESET, RESET, reply(502, {"error": {"message": "it failed"}}))
    assert world.asked[2:] == ["gateway"]


def test_engines_that_were_not_reached_cost_nothing() -> None:
    world = World(["a", "b", "c", "d", "e"])
    assert world.ask(*[REFUSED] * 4, reply()).content == "hi"
    assert "gateway" not in world.asked


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_what_an_engine_refuses_the_gateway_judges(status: int) -> None:
    world = World(["a", "b"])
    assert world.ask(reply(status), reply()).content == "hi"
    assert world.asked[1:] == ["gateway"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_wrong_is_wrong_everywhere(status: int) -> None:
    world = World(["a", "b"])
    with pytest.raises(e.BadRequest):
        world.ask(reply(status))
    assert len(world.sent) == 1


def test_all_tries_share_the_time() -> None:
    world = World(["a", "b"])
    with pytest.raises(e.Timeout, match="within 10 s"):
        world.ask(REFUSED, REFUSED, seconds=6)
    assert [send.timeout_seconds for send in world.sent] == [10, 4]
    world = World(["a", "b"])
    with pytest.raises(e.Timeout):
        world.ask(LATE)
    assert world.busy() == 0


def test_a_stream_begins_in_its_time_however_many_are_tried_and_then_has_it_between_events() -> None:
    world = World(["a", "b"])
    world.ask(REFUSED, opened(), options=attrs.evolve(OPTIONS, stream=True), seconds=9)
    assert [(send.timeout_seconds, send.between_seconds) for send in world.sent] == [(10, 10), (1, 10)]


def test_a_stream_keeps_its_place_until_it_is_released() -> None:
    world = World(["a", "b"])
    streaming = world.ask(opened(None), opened(), options=attrs.evolve(OPTIONS, stream=True))
    assert isinstance(streaming, Streaming)
    assert (world.closed, world.busy()) == (1, 1)
    streaming.release()
    streaming.release()
    assert world.busy() == 0


def test_a_call_that_is_given_up_gives_its_place_back() -> None:
    world = World(["a"])
    steps = world.asking.text(chat("hello"), attrs.evolve(OPTIONS, model="m"))
    next(steps)
    assert world.busy() == 1
    steps.close()
    assert world.busy() == 0


def test_an_error_that_a_stream_begins_with() -> None:
    world = World(["a", "b"])
    stream = attrs.evolve(OPTIONS, stream=True)
    with pytest.raises(e.EngineUnavailable, match="core died"):
        world.ask(*[opened('{"error": {"message": "core died"}}')] * 3, options=stream)
    assert (world.closed, world.busy()) == (3, 0)
    world = World(["a", "b"])
    with pytest.raises(e.BadRequest, match="too long"):
        world.ask(opened('{"error": {"message": "too long", "code": 400}}'), options=stream)
    assert len(world.sent) == 1


def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    with pytest.raises(e.UnexpectedAnswer, match="without one"):
        World().ask(reply(), options=attrs.evolve(OPTIONS, stream=True))


def test_a_gateway_that_does_not_let_us_look_says_so() -> None:
    for status, error in ((401, e.AuthenticationFailed), (403, e.PermissionDenied)):
        world = World(["a"])
        assert world.asking.discovery is not None
        world.asking.discovery.unwatched()
        world.now += 60
        with pytest.raises(error):
            world.ask(reply(status, {"error": {"message": "no"}}))


def test_which_model_is_meant() -> None:
    def served(*models: tuple[str, str]) -> Reply:
        return reply(body={"data": [{"id": name, "root": name, "kind": kind} for name, kind in models]})

    def ask(world: World, *script: Reply) -> Any:
        return world.play(world.asking.text(chat("hello"), OPTIONS), *script)

    world = World()
    assert ask(world, served(("m", "llm"), ("v", "embedding")), reply()).content == "hi"
    assert json.loads(world.sent[-1].request.content or b"")["model"] == "m"
    assert ask(world, reply()).content == "hi"  # it is remembered
    with pytest.raises(e.ModelNotFound):
        ask(world, reply(404, {"error": {"message": "gone", "code": "model_not_found"}}))
    with pytest.raises(e.BadRequest, match="a, b; say which"):
        ask(world, served(("a", "llm"), ("b", "llm")))
    with pytest.raises(e.ModelNotFound, match="'llm'"):
        ask(World(), served(("v", "embedding")))


# Requests


@given(st.lists(st.integers()), st.integers(1, 50))
def test_batches_are_the_whole_in_order_and_even(things: list[int], size: int) -> None:
    parts = batches(things, size)
    assert [thing for part in parts for thing in part] == things
    assert len(parts) == -(-len(things) // size)
    assert all(0 < len(part) <= size for part in parts)
    assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1


def test_what_is_one_text_and_what_are_many() -> None:
    assert inputs("one") == ["one"]
    assert inputs(("one", "two")) == ["one", "two"]
    assert inputs([1, 2]) == [[1, 2]]
    assert inputs([[1, 2], (3,)]) == [[1, 2], [3]]
    assert inputs([]) == []


def test_none_is_not_given_and_zero_is() -> None:
    options = Options(fields={"temperature": 0, "stop": None, "logprobs": False}, extra={"seed": None})
    body = json.loads(requests.chat(requests.conversation("é"), "m", options).content("other"))
    messages = [{"role": "user", "content": "é"}]
    assert body == {"model": "other", "messages": messages, "temperature": 0, "logprobs": False, "seed": None}


# Answers


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, None, e.BadRequest),
        (401, "invalid_api_key", e.AuthenticationFailed),
        (403, "model_not_allowed", e.PermissionDenied),
        (404, "model_not_found", e.ModelNotFound),
        (404, "not_found", e.EngineNotFound),
        (404, 404, e.ModelNotFound),
        (409, "conflict", e.Conflict),
        (413, "request_too_large", e.BadRequest),
        (429, "queue_full", e.RateLimited),
        (500, None, e.EngineFailed),
        (502, "engine_failed", e.EngineUnavailable),
        (503, "no_engine", e.EngineUnavailable),
        (504, None, e.EngineUnavailable),
        (302, None, e.UnexpectedAnswer),
    ],
)
def test_errors_have_their_types(status: int, code: Any, error: type[e.ClientError]) -> None:
    told = {"error": {"message": "what happened", "code": code, "param": "p"}}
    made = answers.error_of(reply(status, told, x_request_id="r", x_stoker_engine="one", retry_after="3"), "it")
    assert type(made) is error
    assert str(made) == "what happened"
    assert (made.status, made.param, made.request_id, made.engine) == (status, "p", "r", "one")
    assert made.code == (None if code is None else str(code))
    assert getattr(made, "retry_after_seconds", 3) == 3


@given(
    st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_whatever_a_stranger_answers_it_is_a_client_error(content: bytes) -> None:
    for status in (200, 404, 500):
        answer = answers.Answered(
            reply=Reply(status=status, headers={"retry-after": "soon"}, content=content), engine=None, latency_seconds=0
        )
        read: Callable[[], object]
        for read in (
            lambda answer=answer: answers.text_result(answer, "it"),
            lambda answer=answer: answers.vectors_result(answer, 2, "it"),
            lambda answer=answer: answers.listing(answer.reply, "it"),
        ):
            with pytest.raises(e.ClientError):
                read()


def test_vectors_come_in_the_order_of_their_texts() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    answered = answers.Answered(reply=reply(body={"data": data, "model": "v"}), engine="e", latency_seconds=1)
    assert answers.vectors_result(answered, 2, "it").content == [[1.0], [2.0]]
    with pytest.raises(e.UnexpectedAnswer, match="gave 2 vectors"):
        answers.vectors_result(answered, 3, "it")


# Streams


def event(text: str, **more: Any) -> str:
    return json.dumps({"model": "m", "choices": [{"index": 0, "delta": {"content": text}, **more}]})


def test_a_transcript_is_the_whole() -> None:
    transcript = Transcript("one")
    for data in (event(""), event("Hel"), event("lo", finish_reason="stop")):
        transcript.take(data)
    transcript.take('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}')
    assert not transcript.over
    assert transcript.take("[DONE]") is None
    assert transcript.over
    result = transcript.result(2.0)
    assert (result.content, result.model, result.engine, result.finish_reason) == ("Hello", "m", "one", "stop")
    assert result.usage is not None
    assert result.usage.total_tokens == 3


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, e.StreamInterrupted),
        ('{"error": {"message": "died"}}', e.StreamInterrupted),
        ('{"error": "died"}', e.StreamInterrupted),
        ("nonsense", e.UnexpectedAnswer),
        ("[]", e.UnexpectedAnswer),
    ],
)
def test_an_end_that_is_none(data: str | None, error: type[e.ClientError]) -> None:
    transcript = Transcript("one")
    transcript.take(event("Hel"))
    with pytest.raises(error) as caught:
        transcript.take(data)
    assert caught.value.engine == "one"
    assert not transcript.over


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.booleans(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "content", "error", "usage", "index", "text"]), inner
            )
        ),
    )
)
def test_whatever_an_event_holds_it_is_read_or_refused(value: Any) -> None:
    data = json.dumps(value)
    first_error(data, None)
    try:
        chunk = Transcript(None).take(data)
    except e.ClientError:
        return
    assert chunk is not None
    assert isinstance(chunk.content, str)


def test_events_without_any_sense_say_nothing() -> None:
    for data in ('{"choices": 1}', '{"choices": [1, null]}', '{"choices": [{"delta": 1, "text": 2}], "usage": 3}'):
        chunk = Transcript(None).take(data)
        assert chunk is not None
        assert (chunk.content, chunk.usage) == ("", None)


# The two clients are one


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        names = [name for name in dir(kind) if not name.startswith("_")]
        return {name.removeprefix("a"): list(inspect.signature(getattr(kind, name)).parameters) for name in names}

    def names(kind: type) -> dict[str, list[str]]:
        return {("close" if name == "close" else name): parameters for name, parameters in methods(kind).items()}

    assert names(UnifiedInferenceClient) == names(AsyncUnifiedInferenceClient)

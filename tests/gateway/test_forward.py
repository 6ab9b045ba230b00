"""What a client gets for its request, and what an engine gets of it."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Sequence
from typing import ClassVar

import pytest
import trio

from stoker.builtin.policies import LeastLoad
from stoker.core.codes import Code
from stoker.gateway import answers, upstream
from stoker.gateway.headers import HeaderList
from stoker.model import Candidate, RouteRequest
from stoker.settings import GatewaySettings

from .conftest import CHAT, Lane, World, running
from .scripted import Answer, Exchange, until

ASK = {"model": "m", "messages": []}


async def test_an_answer_comes_back_as_the_engine_gave_it(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(201, b'{"odd":   "spacing" }', [("x-of-engine", "yes")])

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert (answer.status, answer.body) == (201, b'{"odd":   "spacing" }')
    assert answer.headers["x-of-engine"] == "yes"
    assert answer.headers["x-stoker-engine"] == "one"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.complete


async def test_the_body_passes_through_untouched(world: World) -> None:
    engine = await world.engine("one")
    body = b'\n{"model":"x","tools":[{"unknown":1e400}],  "model" : "m", "content":"\\ud83d\\ude00 \xc3\xa9"}  '
    answer = await world.ask(body)
    assert answer.status == 200, answer.body
    assert engine.exchanges[0].body == body


async def test_connections_on_both_sides_are_used_again(world: World) -> None:
    engine = await world.engine("one")
    async with world.client() as client:
        for _ in range(5):
            assert (await client.ask(CHAT, ASK)).status == 200
    assert len(engine.exchanges) == 5
    assert engine.connections == 1
    assert world.plane.measures.connections_accepted == (1 if world.lane.is_express else 5)


async def test_a_query_and_a_path_prefix_reach_the_engine(world: World) -> None:
    engine = await world.engine("one")
    world.change("one", base_url=f"http://127.0.0.1:{engine.port}/deep/down/")
    await world.ask(ASK, path=CHAT + "?a=b&c")
    assert engine.exchanges[0].target == "/deep/down/v1/chat/completions?a=b&c"


async def test_a_base_url_that_ends_in_v1_does_not_repeat_it(world: World) -> None:
    engine = await world.engine("one")
    world.change("one", base_url=f"http://127.0.0.1:{engine.port}/v1")
    await world.ask(ASK)
    assert engine.exchanges[0].target == CHAT


async def test_only_headers_that_are_the_engines_business_reach_it(world: World) -> None:
    engine = await world.engine("one")
    headers = [
        ("host", "localhost:1"),
        ("connection", "keep-alive, X-Secret-Hop"),
        ("x-secret-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic x"),
        ("authorization", "Bearer of-the-gateway"),
        ("x-api-key", "of-the-gateway"),
        ("cookie", "a=b"),
        ("user-agent", "somebody"),
        ("x-custom", "kept"),
    ]
    await world.ask(ASK, headers)
    exchange = engine.exchanges[0]
    gone = ("x-secret-hop", "connection", "keep-alive", "te", "proxy-authorization", "authorization", "x-api-key")
    assert [name for name in (*gone, "cookie", "transfer-encoding") if exchange.header(name) is not None] == []
    assert exchange.header("host") == f"127.0.0.1:{engine.port}"
    assert exchange.header("user-agent") == "somebody"
    assert exchange.header("x-custom") == "kept"
    assert exchange.header("accept-encoding") == "identity"
    assert exchange.header("content-type") == "application/json"


async def test_the_engines_own_key_is_sent_to_it(world: World) -> None:
    engine = await world.engine("one", api_key="sesame")
    await world.ask(ASK, [("authorization", "Bearer of-the-gateway")])
    assert engine.exchanges[0].header("authorization") == "Bearer sesame"


async def test_hop_by_hop_headers_of_an_engine_stay_with_it(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(
            200,
            {},
            [("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("x-request-id", "its own")],
        )

    await world.engine("one", script)
    answer = await world.ask(ASK, [("x-request-id", "mine")])
    assert "x-hop" not in answer.headers
    assert "keep-alive" not in answer.headers
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("given", ["mine-1", "", "with space", "x" * 129, "é"])
async def test_a_request_id_is_kept_if_it_is_sane_and_made_if_not(world: World, given: str) -> None:
    engine = await world.engine("one")
    answer = await world.ask(ASK, [("x-request-id", given)])
    returned = answer.headers["x-request-id"]
    assert (returned == given) == (given == "mine-1")
    assert returned.isascii()
    assert len(returned) >= 6
    assert engine.exchanges[0].header("x-request-id") == returned


async def test_a_compressed_answer_stays_compressed_for_a_client_that_asked_for_it(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        assert exchange.header("accept-encoding") == "gzip"
        await exchange.reply(200, gzip.compress(b"{}"), [("content-encoding", "gzip")])

    await world.engine("one", script)
    answer = await world.ask(ASK, [("accept-encoding", "gzip")])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == b"{}"


async def test_a_stream_is_asked_for_uncompressed(world: World) -> None:
    engine = await world.engine("one")
    await world.ask({**ASK, "stream": True}, [("accept-encoding", "gzip")])
    assert engine.exchanges[0].header("accept-encoding") == "identity"


async def test_large_bodies_and_answers_pass(world: World) -> None:
    size = 3 * 1024 * 1024

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"y" * size)

    engine = await world.engine("one", script)
    body = json.dumps({"model": "m", "image": "x" * size}).encode()
    answer = await world.ask(body)
    assert engine.exchanges[0].body == body
    assert answer.body == b"y" * size
    assert answer.headers["content-length"] == str(size)


async def test_an_answer_without_a_length_gets_one_when_it_is_small(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "application/json")])
        await exchange.data(b'{"a":')
        await exchange.data(b"1}")
        await exchange.end()

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert answer.json() == {"a": 1}
    assert answer.headers["content-length"] == "7"


async def test_other_streams_are_relayed_as_they_come(world: World) -> None:
    first_seen = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "audio/mpeg")])
        await exchange.data(b"first")
        await first_seen.wait()
        await exchange.data(b"second")
        await exchange.end()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        assert await client.chunk() == b"first"
        first_seen.set()
        assert await client.chunk() == b"second"
        assert await client.chunk() == b""


async def test_an_engines_refusal_is_passed_on(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(400, {"error": {"message": "too long", "code": "exceed_context_size_error"}})

    engine = await world.engine("one", script)
    await world.engine("two", script)
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["code"]) == (400, "exceed_context_size_error")
    assert len(engine.exchanges) == 1
    assert world.reports == []


async def test_an_answer_without_a_body_passes(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(204, [])
        await exchange.end()

    await world.engine("one", script)
    async with world.client() as client:
        for _ in range(2):
            answer = await client.ask(CHAT, ASK)
            assert (answer.status, answer.body) == (204, b"")


async def test_informational_answers_are_passed_over(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 3)
        await exchange.reply(200, {})

    await world.engine("one", script)
    assert (await world.ask(ASK)).status == 200


async def test_a_model_goes_by_any_of_its_names(world: World) -> None:
    await world.engine("one", names=("m", "alias"))
    for name in ("m", "alias"):
        assert (await world.ask({"model": name})).status == 200


async def test_a_form_is_routed_by_its_model_field(world: World) -> None:
    engine = await world.engine("one", model="whisper", names=("whisper",))
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n--no boundary\r\n\r\n'
        b'\r\n--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    )
    path = "/v1/audio/transcriptions"
    answer = await world.ask(body, [("content-type", "multipart/form-data; boundary=b")], path=path)
    assert answer.status == 200, answer.body
    assert engine.exchanges[0].body == body
    assert engine.exchanges[0].header("content-type") == "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Expecting property name"),
        (b'{"model": "m"\n "x"}', "line 2, column 2"),
        (b"", "Expecting value"),
        (b'["m"]', "must be a JSON object"),
        (b"{}", "which model"),
        (b'{"model": null}', "which model"),
        (b'{"model": 7}', "must be a string"),
        (b'{"model": ""}', "is empty"),
        (b'{"model": "m", "x": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_with_the_reason(world: World, body: bytes, message: str) -> None:
    engine = await world.engine("one")
    answer = await world.ask(body)
    assert answer.status == 400
    assert message in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    assert engine.exchanges == []
    assert world.plane.forwarder.counters.refused == 1


async def test_a_form_without_a_model_is_refused(world: World) -> None:
    await world.engine("one")
    form = b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\nm\r\n--b--\r\n'
    headers = [("content-type", "multipart/form-data; boundary=b")]
    answer = await world.ask(form, headers, path="/v1/audio/transcriptions")
    assert (answer.status, answer.error["param"]) == (400, "model")
    answer = await world.ask(form, [("content-type", "multipart/form-data")], path="/v1/audio/transcriptions")
    assert "no boundary" in answer.error["message"]


async def test_an_unknown_model_is_told_which_there_are(world: World) -> None:
    await world.engine("one", names=("m", "alias"))
    answer = await world.ask({"model": "gpt-4"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert "'gpt-4'" in answer.error["message"]
    assert "m, alias" in answer.error["message"]
    assert "x-request-id" in answer.headers


async def test_who_mistypes_a_model_is_told_what_was_probably_meant(world: World) -> None:
    await world.engine("one", model="smollm2", names=("qwen",))
    answer = await world.ask({"model": "smolm2"})
    assert answer.error["message"] == (
        "the model 'smolm2' does not exist; did you mean smollm2? There are: smollm2, qwen"
    )


async def test_a_path_that_no_engine_of_the_model_serves_is_named(world: World) -> None:
    await world.engine("one")
    answer = await world.ask(ASK, path="/v1/embeddings")
    assert answer.status == 404
    assert "'m'" in answer.error["message"]
    assert "/v1/embeddings" in answer.error["message"]
    assert CHAT in answer.error["message"]


async def test_a_model_whose_engines_are_dead_for_good_says_why(world: World) -> None:
    world.add("one", accepting=False, detail="ERROR; given up after 5 restarts; CUDA out of memory")
    answer = await world.ask(ASK)
    assert answer.status == 503
    assert "one: ERROR; given up after 5 restarts; CUDA out of memory" in answer.error["message"]


async def test_a_body_over_the_limit_is_refused_however_it_comes(lane: Lane) -> None:
    async with running(GatewaySettings(max_body_bytes=1000), lane=lane) as world:
        engine = await world.engine("one")
        exact = json.dumps({"model": "m", "x": ""}).encode()
        exact = exact.replace(b'""', b'"' + b"x" * (1000 - len(exact)) + b'"')
        assert len(exact) == 1000
        assert (await world.ask(exact)).status == 200

        def is_refusal(answer: Answer) -> bool:
            return answer.status == 413 and "1000 bytes" in answer.error["message"]

        assert is_refusal(await world.ask(exact + b" "))
        async with world.client() as client:
            await client.send(CHAT, exact + b" ", chunked=True)
            assert is_refusal(await client.answer())
        assert len(engine.exchanges) == 1


async def test_a_huge_body_over_the_limit_does_not_cost_the_client_the_answer(lane: Lane) -> None:
    async with running(GatewaySettings(max_body_bytes=1000), lane=lane) as world:
        await world.engine("one")
        async with world.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.send, CHAT, b"x" * 20_000_000)
            answer = await client.answer()
            assert answer.status == 413
            assert answer.headers["connection"] == "close"
            nursery.cancel_scope.cancel()


async def test_a_backend_key_that_is_no_header_is_an_error_not_a_crash(world: World) -> None:
    await world.engine("one", api_key="two\nlines")
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["code"]) == (502, "engine_misconfigured")


async def test_other_methods_and_other_paths(world: World) -> None:
    async with world.client() as client:
        answer = await client.ask(CHAT, b"", method="GET")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    async with world.client() as client:
        assert (await client.ask("/v1/models", b"", method="GET")).json() == ["GET", "/v1/models"]
    async with world.client() as client:
        assert (await client.ask("/nothing", b"")).json() == ["POST", "/nothing"]


async def test_an_escape_in_the_path_reaches_no_other_path_of_an_engine(world: World) -> None:
    engine = await world.engine("one")
    assert (await world.ask(ASK, path="/v1/audio/..%2f..%2fadmin")).status == 404
    assert (await world.ask(ASK, path="/v1/chat%2Fcompletions")).status == 200
    assert [exchange.target for exchange in engine.exchanges] == [CHAT]


async def test_a_guard_sees_every_request_first(lane: Lane) -> None:
    def keep_out(headers: HeaderList) -> answers.Answer | None:
        return answers.error(Code.HOST_NOT_ALLOWED, "not you") if (b"x-evil", b"1") in headers else None

    async with running(guard=keep_out, lane=lane) as world:
        engine = await world.engine("one")
        for path in (CHAT, "/v1/models"):
            answer = await world.ask(ASK, [("x-evil", "1")], path=path)
            assert (answer.status, answer.error["message"]) == (403, "not you")
            assert (await world.ask(ASK, path=path)).status == 200
        assert len(engine.exchanges) == 1


@pytest.mark.parametrize("needs", [frozenset[str](), frozenset({"headers"}), frozenset({"headers", "body"})])
async def test_a_policy_sees_no_more_of_a_request_than_it_needs(needs: frozenset[str], lane: Lane) -> None:
    class Curious(LeastLoad):
        seen: ClassVar[list[RouteRequest]] = []

        def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
            self.seen.append(request)
            return candidates[0]

    Curious.needs = needs
    async with running(policy=Curious(), lane=lane) as world:
        await world.engine("one")
        await world.ask(b'{"model": "m"}', [("x-session", "7"), ("x-request-id", "r")])
    (request,) = Curious.seen
    assert (request.request_id, request.model, request.path) == ("r", "m", CHAT)
    assert request.headers.get("x-session") == ("7" if "headers" in needs else None)
    assert request.body == (b'{"model": "m"}' if "body" in needs else b"")


async def test_a_policy_sees_no_credentials(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    """One that raised with the headers in its message had them logged."""

    class Talkative(LeastLoad):
        needs = frozenset({"headers"})

        def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
            raise LookupError(str(request.headers))

    names = ("Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "Api-Key")
    async with running(policy=Talkative(), lane=lane) as world:
        await world.engine("one")
        answer = await world.ask(ASK, [("x-session", "7"), *((name, "secret") for name in names)])
    assert answer.status == 200
    assert "'x-session': '7'" in caplog.text
    assert "secret" not in caplog.text


async def test_a_shortage_of_our_own_is_not_blamed_on_the_engine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(host: str, port: int) -> trio.SocketStream:
        raise OSError("all attempts failed") from ExceptionGroup("", [OSError(errno.EMFILE, "Too many open files")])

    await world.engine("one")
    await world.engine("two")
    async with world.client() as client:
        monkeypatch.setattr("stoker.gateway.dialling.trio.open_tcp_stream", connect)
        await client.send(CHAT, ASK)
        answer = await client.answer()
    monkeypatch.undo()
    assert (answer.status, answer.error["code"]) == (503, "exhausted")
    assert "Too many open files" in answer.error["message"]
    assert world.reports == []
    assert (await world.ask(ASK)).status == 200


async def test_an_exchange_that_outlasts_the_sweeping_of_its_engine_hurts_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.0)  # whatever is idle is swept whenever another one is kept
    go_on = trio.Event()

    async def slow_if_asked(exchange: Exchange) -> None:
        if b"slow" in exchange.body:
            await go_on.wait()
        await exchange.reply(200, {})

    one = await world.engine("one", slow_if_asked, model="one", names=("one",))
    await world.engine("two", model="two", names=("two",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.ask, {"model": "one", "slow": True})
        await until(lambda: one.exchanges)
        await world.ask({"model": "one"})
        await world.ask({"model": "two"})  # sweeps away what is idle of "one"
        go_on.set()
    assert [(await world.ask({"model": "two"})).status for _ in range(2)] == [200, 200]

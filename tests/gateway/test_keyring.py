"""The ring of keys: whose a request is, what that one may do, and how often."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from stoker.core.keys import PREFIX, ApiKey, KeyOrder, Scope, digest_of
from stoker.gateway.answers import Answer
from stoker.gateway.callers import Caller
from stoker.gateway.keyring import ANY_SCOPE, INFERENCE, KeyRing

ADMIN = frozenset({Scope.ADMIN})
TOKEN = "the-admin-token"


def text_of(key_id: str) -> str:
    return f"{PREFIX}{key_id}-{key_id:x<43}"


def key(key_id: str = "ab12", **order: Any) -> ApiKey:
    order = {"name": "a test", **order}
    return KeyOrder(**order).key(key_id, digest_of(text_of(key_id)), now=0.0)


def bearer(secret: str) -> Mapping[bytes, bytes]:
    return {b"authorization": b"Bearer " + secret.encode()}


@attrs.define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@attrs.define
class Request:
    """A head that comes again and again."""

    fields: Mapping[bytes, bytes]
    caller: Caller | None = None
    edition: object = None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> KeyRing:
    return KeyRing(TOKEN.__eq__, clock, wall=clock)


def refusal(answer: Caller | Answer | None) -> tuple[int, str]:
    assert isinstance(answer, Answer)
    error = json.loads(answer.body)["error"]
    assert (
        error["type"] == {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}[answer.status]
    )
    return answer.status, error["code"]


def in_header(answer: Answer | None, name: bytes) -> bytes | None:
    assert answer is not None
    return dict(answer.headers).get(name)


def let_in(answer: Caller | Answer) -> Caller:
    assert isinstance(answer, Caller), answer
    return answer


def test_without_keys_anyone_may_come_in_whatever_they_send(ring: KeyRing) -> None:
    for fields in ({}, bearer("unused"), bearer(text_of("ab12"))):
        assert let_in(ring.knock(Request(fields))).who == "anyone"
        assert refusal(ring.admit(fields, ADMIN, always=True)) == (401, "invalid_api_key")


def test_the_first_key_closes_the_door(ring: KeyRing) -> None:
    request = Request(bearer("unused"))
    let_in(ring.knock(request))
    ring.replace([key()])
    assert refusal(ring.knock(request)) == (401, "invalid_api_key")
    assert let_in(ring.knock(Request(bearer(text_of("ab12"))))).who == "key ab12"
    assert let_in(ring.knock(Request(bearer(TOKEN)))).who == "admin token"


def test_the_last_one_revoked_opens_it_again_unless_keys_are_required(clock: Clock) -> None:
    for require in (False, True):
        ring = KeyRing(TOKEN.__eq__, clock, require=require, wall=clock)
        assert ring.closed is require
        ring.replace([key()])
        assert ring.closed
        ring.replace([attrs.evolve(key(), revoked_at=1.0)])
        assert ring.closed is require


def test_one_that_has_expired_keeps_it_closed(ring: KeyRing, clock: Clock) -> None:
    request = Request(bearer(text_of("ab12")))
    ring.replace([key(expires_in_seconds=2000.0)])
    let_in(ring.knock(request))
    clock.now = 2000.0
    assert refusal(ring.knock(request)) == (401, "invalid_api_key")
    assert ring.closed


def test_revoking_acts_on_a_head_that_is_known_and_on_a_body_that_is_on_its_way(ring: KeyRing) -> None:
    request = Request(bearer(text_of("ab12")))
    ring.replace([key(), key("cd34")])
    caller = let_in(ring.knock(request))
    ring.replace([attrs.evolve(key(), revoked_at=1.0), key("cd34")])
    answer = ring.knock(request)
    assert refusal(answer) == (401, "invalid_api_key")
    assert isinstance(answer, Answer)
    assert b"was revoked" in answer.body
    assert in_header(answer, b"www-authenticate") == b'Bearer realm="stoker"'
    assert refusal(ring.enter(caller)) == (401, "invalid_api_key")
    assert caller.in_flight == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": text_of("ab12").encode()},
        {b"authorization": b"Basic " + text_of("ab12").encode()},
        {b"authorization": b"Bearer " + text_of("ab12").encode()[:-1] + b"y"},
        {b"authorization": b"Bearer " + text_of("ab12").encode() + b"x"},
        {b"authorization": b"Bearer " + text_of("cd34").encode()},
        {b"authorization": b"Bearer \xe9\xff"},
        {b"authorization": b"Bearer " + b"x" * 10_000},
        {b"cookie": text_of("ab12").encode()},
        {b"x-api-key": b"unused"},
    ],
)
def test_nothing_but_a_key_that_is_there_opens(ring: KeyRing, fields: Mapping[bytes, bytes]) -> None:
    ring.replace([key()])
    assert refusal(ring.knock(Request(fields))) == (401, "invalid_api_key")
    assert ring.refusals["invalid_api_key"] == 1


def test_who_sends_a_wrong_key_is_told_so_and_not_that_one_is_needed(ring: KeyRing) -> None:
    ring.replace([key()])
    for fields, wrong in (({}, False), ({b"authorization": b"Basic eDp5"}, False), (bearer(text_of("cd34")), True)):
        for answer in (ring.knock(Request(fields)), ring.admit(fields, ADMIN, always=True)):
            assert isinstance(answer, Answer)
            assert (b"the key that was sent is none of this gateway's" in answer.body) is wrong


@pytest.mark.parametrize(
    "fields",
    [
        {b"authorization": b"bearer " + text_of("ab12").encode()},
        {b"authorization": b"BEARER  " + text_of("ab12").encode() + b" "},
        {b"x-api-key": text_of("ab12").encode()},
        {b"authorization": b"Basic eDp5", b"x-api-key": text_of("ab12").encode()},
        {b"authorization": b"Bearer ", b"x-api-key": text_of("ab12").encode()},
    ],
)
def test_a_key_comes_as_a_bearer_or_as_anthropics_clients_send_it(ring: KeyRing, fields: Mapping[bytes, bytes]) -> None:
    ring.replace([key()])
    assert let_in(ring.knock(Request(fields))).who == "key ab12"


@pytest.mark.parametrize(
    ("scopes", "inference", "admin"),
    [({Scope.INFERENCE}, True, False), ({Scope.SESSIONS}, False, False), ({Scope.ADMIN}, True, True)],
)
def test_a_key_opens_what_its_scopes_say(ring: KeyRing, scopes: set[Scope], inference: bool, admin: bool) -> None:
    ring.replace([key(scopes=frozenset(scopes))])
    fields = bearer(text_of("ab12"))
    let_in(ring.admit(fields, ANY_SCOPE))
    for wanted, may in ((INFERENCE, inference), (ADMIN, admin)):
        answer = ring.admit(fields, wanted, always=True)
        assert isinstance(answer, Caller) or refusal(answer) == (403, "insufficient_scope")
        assert isinstance(answer, Caller) is may


def test_a_key_of_certain_models_may_use_no_other(ring: KeyRing) -> None:
    ring.replace([key(models=("m", "n"))])
    caller = let_in(ring.knock(Request(bearer(text_of("ab12")))))
    assert ring.refuse_model(caller, "m") is None
    answer = ring.refuse_model(caller, "secret")
    assert refusal(answer) == (403, "model_not_allowed")
    assert answer is not None
    assert json.loads(answer.body)["error"]["message"].endswith("it may use: m, n")


def test_a_minute_never_has_more_requests_than_the_key_allows(ring: KeyRing, clock: Clock) -> None:
    ring.replace([key(requests_per_minute=3)])
    caller = let_in(ring.knock(Request(bearer(text_of("ab12")))))
    for _ in range(3):
        assert ring.enter(caller) is None
        caller.leave()
        clock.now += 10
    answer = ring.enter(caller)
    assert refusal(answer) == (429, "rate_limit_exceeded")
    assert in_header(answer, b"retry-after") == b"30"
    clock.now += 29.9
    assert in_header(ring.enter(caller), b"retry-after") == b"1"
    clock.now += 0.1
    assert ring.enter(caller) is None
    assert refusal(ring.enter(caller)) == (429, "rate_limit_exceeded")


def test_more_than_so_many_at_once_are_refused_and_cost_no_rate(ring: KeyRing) -> None:
    ring.replace([key(concurrent_requests=2, requests_per_minute=3)])
    caller = let_in(ring.knock(Request(bearer(text_of("ab12")))))
    assert ring.enter(caller) is None
    assert ring.enter(caller) is None
    for _ in range(5):
        answer = ring.enter(caller)
        assert refusal(answer) == (429, "concurrency_limit_exceeded")
        assert in_header(answer, b"retry-after") == b"1"
    caller.leave()
    assert ring.enter(caller) is None
    assert ring.refusals["concurrency_limit_exceeded"] == 5


def test_what_was_counted_of_a_key_outlives_changes_of_others(ring: KeyRing) -> None:
    ring.replace([key(concurrent_requests=1)])
    assert ring.enter(let_in(ring.knock(Request(bearer(text_of("ab12")))))) is None
    ring.replace([key(concurrent_requests=1), key("cd34")])
    again = let_in(ring.knock(Request(bearer(text_of("ab12")))))
    assert refusal(ring.enter(again)) == (429, "concurrency_limit_exceeded")


def test_a_secret_is_in_no_message(ring: KeyRing) -> None:
    ring.replace([key(expires_in_seconds=1.0)])
    for secret in (text_of("ab12"), text_of("cd34"), "hunter2"):
        answer = ring.knock(Request(bearer(secret)))
        assert isinstance(answer, Answer)
        assert secret.encode() not in answer.body

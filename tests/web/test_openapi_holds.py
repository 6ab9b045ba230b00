"""A running gateway is held to its OpenAPI document, by what is done every day and by whatever a stranger may send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode, Response, checks
from tests.e2e.running import HANG_GUARD_SECONDS, Program
from tests.faults.fleet import engine, fleet, served_by_somebody_else, wait_for
from tests.faults.stoker_up import FULL

from stoker.config import spec_schema
from stoker.model import NOTHING
from stoker.web.app import skeleton
from stoker.web.openapi.document import document

EXAMPLES = 200 if FULL else 5
ENDS_THE_GATEWAY = {"/v1/management/gateway/stop", "/v1/management/gateway/restart"}
HAS_NO_END = {"/v1/management/events"}
ENGINES = "/v1/management/engines"
NO_ENVIRONMENTS = "".join(f'[runtime.{name}]\npython = "/nowhere/python"\n' for name in ("vllm", "vllm-cpu", "sglang"))
Operation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[Any]
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
TAME: Mapping[str, Any] = {"replicas": 1, "url": "http://127.0.0.1:9"}
THERE_IS = {"engine_id": "other", "session_id": f"sess_{0:032x}"}


def closed(value: Any) -> Any:
    """The document with answers that may have no members but those that stand in it, unless it says so itself."""
    if isinstance(value, list):
        return [closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    inside = {name: closed(each) for name, each in value.items()}
    if "responses" in value:
        for answer in inside["responses"].values():
            for content in answer.get("content", {}).values():
                content["schema"] = without_more(content["schema"])
    return inside


def without_more(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """``schema``, closed; of a listing, what is listed too."""
    if not schema.keys() & {"properties", "allOf", "$ref"}:
        return schema
    properties = dict(schema.get("properties", {}))
    if "data" in properties:
        properties["data"] = {**properties["data"], "items": without_more(properties["data"]["items"])}
        schema = {**schema, "properties": properties}
    return {**schema, "unevaluatedProperties": False}


DOCUMENT = closed(document(skeleton(), spec_schema()))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS: Sequence[Operation] = [
    SCHEMA[path][method]
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path not in ENDS_THE_GATEWAY | HAS_NO_END
]


def security_of(operation: Operation) -> Sequence[Mapping[str, Any]]:
    """What the document says of who may ask."""
    described: Sequence[Mapping[str, Any]] = DOCUMENT["paths"][operation.path][operation.method]["security"]
    return described


def can_be(mode: GenerationMode, operation: Operation) -> bool:
    """Whether there is something to do right there, or wrong."""
    return mode is GenerationMode.POSITIVE or bool(operation.query or operation.body)


@attrs.frozen
class Gateway:
    """A gateway with the engines ``fake``, which it started, and ``other``, which is somebody else's."""

    program: Program
    session: requests.Session
    other_url: str

    def ask(self, case: AnyCase) -> Response:
        """The answer to ``case``, which is as the document says."""
        headers = {"Authorization": f"Bearer {self.program.token}"}
        response = case.call(
            base_url=self.program.url, session=self.session, headers=headers, timeout=HANG_GUARD_SECONDS
        )
        case.validate_response(response, checks=CHECKS)
        assert response.status_code != httpx2.codes.INTERNAL_SERVER_ERROR, self.program.output.read_text()
        return response

    def provide(self) -> None:
        """Have what ``THERE_IS``, if it is not there."""
        engine_id, session_id = THERE_IS.values()
        other = {"model": "other", "url": self.other_url, "engine_id": engine_id}
        headers = {"Authorization": f"Bearer {self.program.token}"}
        for path, body in ((f"{ENGINES}/register", other), ("/sessions/import", {"session_id": session_id})):
            answer = self.session.post(f"{self.program.url}{path}", json=body, headers=headers)
            assert answer.status_code in (201, 409), answer.text

    def do(self, method: str, path: str, body: Any = None, **parts: Any) -> Any:
        """One call that succeeds. ``parts`` are those of its path and its query."""
        operation = SCHEMA[path][method]
        in_path = {name: value for name, value in parts.items() if f"{{{name}}}" in path}
        query = {name: value for name, value in parts.items() if name not in in_path}
        about = {} if body is None else {"body": body, "media_type": "application/json"}
        response = self.ask(operation.Case(path_parameters=in_path, query=query, **about))
        assert response.status_code in range(200, 300), response.text
        return response.json() if response.headers["content-type"] == ["application/json"] else response.text


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    engines = (engine(), NO_ENVIRONMENTS)
    folder = tmp_path_factory.mktemp("gateway")
    with served_by_somebody_else() as url, fleet(folder, *engines) as program, requests.Session() as session:
        session.trust_env = False
        wait_for(program, state="READY")
        yield Gateway(program, session, url)


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if {} not in security_of(each)], ids=lambda operation: operation.label
)
def test_what_needs_a_token_says_so(gateway: Gateway, operation: Operation) -> None:
    """Of the other paths it depends on whether there are keys."""
    path = operation.path.replace("{", "").replace("}", "")
    answer = gateway.session.request(operation.method, f"{gateway.program.url}{path}")
    assert (answer.status_code == httpx2.codes.UNAUTHORIZED) == bool(security_of(operation))


def test_an_ordinary_day_is_as_it_is_described(gateway: Gateway) -> None:
    do = gateway.do
    for path in ("/health", "/ready", "/metrics", "/openapi.json", "/v1/models", ENGINES):
        do("get", path)
    do("get", "/v1/models/{name}", name="fake")
    do("post", "/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "one two"}]})
    for name in ("backends", "gpu", "gpu/ledger", "status", "strays", "audit", "keys"):
        do("get", f"/v1/management/{name}")
    do("post", "/v1/management/route/explain", {"model": "fake"})
    do("post", "/v1/management/reload", {})
    key = do("post", "/v1/management/keys", {"name": "somebody"})
    do("delete", "/v1/management/keys/{key_id}", key_id=key["key_id"])
    do("get", "/v1/management/keys")


def test_the_life_of_an_engine_is_as_it_is_described(gateway: Gateway) -> None:
    do, one = gateway.do, f"{ENGINES}/{{engine_id}}"
    spec = {"model": "other", "url": gateway.other_url, "engine_id": "other"}
    do("post", f"{ENGINES}/register", spec)
    do("get", one, engine_id="other")
    do("post", f"{one}/stop", engine_id="other", wait="stopped")
    do("post", f"{one}/start", engine_id="other", wait="ready")
    do("post", f"{one}/restart", engine_id="other", wait="ready")
    do("get", f"{one}/adapters", engine_id="other")
    assert do("delete", one, engine_id="other", wait="stopped")["deleted"]
    do("post", f"{ENGINES}/start", {**spec, "runtime": "remote"}, wait="ready")
    do("delete", one, {"drain": False}, engine_id="other")
    do("get", f"{one}/logs", engine_id="fake", tail=3)
    do("post", "/v1/management/prune")


def test_a_conversation_is_as_it_is_described(gateway: Gateway) -> None:
    do, one = gateway.do, "/sessions/{session_id}"
    session_id = do("post", "/sessions", {"title": "a talk", "instructions": "Be short."})["session_id"]
    question = {"model": "fake", "messages": [{"role": "user", "content": "one"}], "session_id": session_id}
    do("post", "/v1/chat/completions", question)
    assert do("get", f"{one}/messages", session_id=session_id, limit=1)["has_more"]
    do("delete", f"{one}/turns/{{turn}}", session_id=session_id, turn=1)
    exported = do("get", f"{one}/export", session_id=session_id)
    for method in ("put", "patch", "post"):
        do(method, f"{one}/title", {"title": "another"}, session_id=session_id)
    do("get", "/sessions", limit=1)
    do("post", f"{one}/clear", session_id=session_id)
    do("get", one, session_id=session_id)
    do("delete", one, session_id=session_id)
    do("post", "/sessions/import", exported)
    do("post", "/sessions/cleanup", {"older_than_days": 0})


@pytest.mark.parametrize(
    ("operation", "mode"),
    [(each, mode) for each in OPERATIONS for mode in GenerationMode if can_be(mode, each)],
    ids=lambda value: value.value if isinstance(value, GenerationMode) else value.label,
)
def test_whatever_is_sent_is_answered_as_it_is_described(
    gateway: Gateway, operation: Operation, mode: GenerationMode
) -> None:
    """No failure of ours, no status and no shape that isn't in the document, and nothing wrong is taken for right."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode))
    def ask(case: AnyCase) -> None:
        tame(case)
        response = gateway.ask(case)
        if mode is GenerationMode.NEGATIVE and response.request.body:  # to send none may be right
            case.validate_response(response, checks=[checks.negative_data_rejection])

    gateway.provide()
    ask()
    assert gateway.program.process.poll() is None, gateway.program.output.read_text()


def tame(case: AnyCase) -> None:
    """Nothing is waited for that doesn't come, no name is looked up, and half of the ids are those of something."""
    case.query = {name: value for name, value in (case.query or NOTHING).items() if name != "follow"}
    for name, value in case.path_parameters.items():
        if name in THERE_IS and len(str(value)) % 2:
            case.path_parameters[name] = THERE_IS[name]
    if isinstance(case.body, dict) and case.operation.path in (f"{ENGINES}/start", f"{ENGINES}/register"):
        case.body |= {name: value for name, value in TAME.items() if name in case.body}
        case.query.pop("wait", None)

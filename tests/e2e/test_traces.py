"""Traces through the built file: a client's trace, the spans that a collector gets, and what the engine was told."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stoker.home import Home
from tests import loopback

from .conftest import ROOT
from .running import running

pytestmark = pytest.mark.e2e

TRACE_ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@attrs.define(eq=False)
class Server:
    """An HTTP server of the test's. It answers every request alike, and remembers what was posted."""

    url: str
    posted: list[tuple[str, dict[str, str], bytes]] = attrs.field(factory=list)


@contextmanager
def serving(answer: bytes, content_type: str) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"{}", "application/json")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            server.posted.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self._answer(answer, content_type)

        def _answer(self, body: bytes, content_type: str) -> None:
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library calls it so
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def spans_in(collector: Server) -> dict[str, Any]:
    """Every span that was sent, by its name."""
    spans = {}
    for path, _, body in collector.posted:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {each.key: each.value.string_value for each in resource.resource.attributes}["team"] == "search"
            spans.update({span.name: span for scope in resource.scope_spans for span in scope.spans})
    return spans


def test_a_trace_goes_from_the_client_through_the_gateway_to_the_engine(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    answer = json.dumps({"choices": [], "usage": USAGE}).encode()
    with serving(answer, "application/json") as engine, serving(b"", "application/x-protobuf") as collector:
        file = tmp_path / "stoker.toml"
        file.write_text(
            f'[gateway]\nlisten = "127.0.0.1:0"\n[[engine]]\nmodel = "m"\nruntime = "remote"\nurl = "{engine.url}"\n'
        )
        words = ["up", "-c", str(file), "--plugin-path", str(ROOT / "plugins" / "stoker-otel"), "--strict"]
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_RESOURCE_ATTRIBUTES": "team=search",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",  # so that what is sent, is sent in the end
        }
        with running(pyz, stoker_home, *words, **variables) as stoker:
            stoker.wait_until_ready(1)
            headers = {"traceparent": f"00-{TRACE_ID}-{PARENT}-01"}
            for path in ("chat/completions", "completions"):
                asked = loopback.post(f"{stoker.url}/v1/{path}", json={"model": "m"}, headers=headers, timeout=60)
                assert asked.status_code == 200, asked.text
                headers = {}
            stoker.signal(signal.SIGTERM)
            assert stoker.wait() == 0, stoker.output.read_text()
    spans = spans_in(collector)
    assert spans.keys() == {"POST /v1/chat/completions", "chat m", "POST /v1/completions", "text_completion m"}
    above, below = spans["POST /v1/chat/completions"], spans["chat m"]
    assert (above.trace_id.hex(), above.parent_span_id.hex()) == (TRACE_ID, PARENT)
    assert (below.trace_id.hex(), below.parent_span_id) == (TRACE_ID, above.span_id)
    told = [headers["traceparent"] for _, headers, _ in engine.posted]
    assert told[0] == f"00-{TRACE_ID}-{below.span_id.hex()}-01"
    attributes = {each.key: each.value for each in below.attributes}
    assert attributes["gen_ai.usage.input_tokens"].int_value == 7
    assert attributes["gen_ai.provider.name"].string_value == "remote"
    assert attributes["server.port"].int_value == int(engine.url.rpartition(":")[2])
    other = spans["text_completion m"]
    assert told[1] == f"00-{other.trace_id.hex()}-{other.span_id.hex()}-01"
    assert not spans["POST /v1/completions"].parent_span_id

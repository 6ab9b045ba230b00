"""Engines that are killed: before they answer, while they answer, and the streams of the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from pathlib import Path

import httpx2

from tests.e2e.running import until

from .fleet import ask, change_faults, engine, fake_state, fleet, stream, wait_for, within

ENDLESS = 100_000

# It answers in HTTP/1.0, where nothing but the end of the connection ends a stream, and then waits to be killed. Braces
# are double, as in every command.
OLD_FASHIONED = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Engine(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b'data: {{"choices": []}}\\n\\n')
        time.sleep(600)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
"""


def test_an_engine_killed_before_the_first_byte_costs_a_client_nothing(tmp_path: Path) -> None:
    with fleet(tmp_path, engine("--first-token-seconds", "30"), engine(label="other", max_concurrency=1)) as program:
        by_id = {info["engine_id"]: info for info in program.wait_until_ready(2)}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, program, stream=streamed) for streamed in (False, True, False, True)]
            until(lambda: fake_state(by_id["fake"])["active"], "the slow one has requests")
            assert program.signal_engine(by_id["fake"]["pid"])
            answers = [each.result() for each in asked]
        assert {answer.status_code for answer in answers} == {httpx2.codes.OK}
        assert {answer.headers["x-stoker-engine"] for answer in answers} == {"other"}
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers[1::2])
        wait_for(program, "fake", state="READY", restarts=1)


def test_an_engine_killed_in_mid_stream_ends_its_streams_with_an_error_and_nobody_elses(tmp_path: Path) -> None:
    with fleet(tmp_path, engine("--token-seconds", "0.02", replicas=2)) as program:
        by_id = {info["engine_id"]: info for info in program.wait_until_ready(2)}
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(stream(program, max_tokens=100)) for _ in range(4)]
            for each in streams:
                each.hear(3)
            victim = streams[0].engine
            cut = [each for each in streams if each.engine == victim]
            spared = [each for each in streams if each.engine != victim]
            assert (len(cut), len(spared)) == (2, 2)
            with within(1, "the error event"):
                assert program.signal_engine(by_id[victim]["pid"])
                for each in cut:
                    each.hear_out()
            for each in cut:
                assert each.broken, "the connection must close, so that the end is not taken for a proper one"
                assert each.error.startswith(f"engine_failed: the engine {victim} failed in the middle of its answer")
                assert "[DONE]" not in each.events
            for each in spared:
                each.hear_out()
                assert each.said_done
                assert not each.broken
                assert len(each.events) == 100 + 3, "the role, the tokens, the reason why it ended, [DONE]"
        wait_for(program, victim, state="READY", restarts=1, active_requests=0)
        assert program.manage("GET", "/status").json()["queue"]["in_flight"] == 0


def test_the_death_of_an_engine_that_speaks_http_1_0_is_not_taken_for_the_end_of_its_stream(tmp_path: Path) -> None:
    with fleet(tmp_path, engine(command=(sys.executable, "-c", OLD_FASHIONED, "{port}"))) as program:
        [info] = program.wait_until_ready(1)
        with stream(program) as listener:
            listener.hear(1)
            with within(1, "the error event"):
                assert program.signal_engine(info["pid"])
                listener.hear_out()
        assert listener.broken
        assert "closed the connection in its answer" in listener.error


def test_an_engine_that_ends_itself_with_code_0_in_mid_stream_is_no_proper_end(tmp_path: Path) -> None:
    """vLLM's front end exits with 0 when its core was killed."""
    with fleet(tmp_path, engine("--token-seconds", "0.02")) as program:
        [before] = program.wait_until_ready(1)
        with stream(program, max_tokens=ENDLESS) as listener:
            listener.hear(3)
            change_faults(before, exit_after_chunks=3)
            with stream(program, max_tokens=ENDLESS) as other:
                other.hear_out()
            listener.hear_out()
        for each in (listener, other):
            assert "in the middle of its answer" in each.error
            assert "[DONE]" not in each.events
        after = wait_for(program, state="READY", restarts=1)
        assert after["last_exit"] == "exit code 0"
        assert ask(program).status_code == httpx2.codes.OK

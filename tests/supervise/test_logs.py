"""Reading, following and rotating the logs that engines write."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from stoker.supervise import logs

# Of vLLM 0.32, shortened: its worker finds the weight file cut short.
VLLM_CORRUPT_WEIGHTS = """\
(APIServer pid=4764) INFO 11-24 00:12:45 [api_utils.py:347]  version 0.32.0
(APIServer pid=4764) WARNING 11-24 00:12:45 [system_utils.py:255] This can cause errors like `OSError: [Errno 24] Too
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953]   File "/v/weight_utils.py", line 1163, in iterator
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953]     with safe_open(st_file, framework="pt") as f:
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953]          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
(Worker pid=4792) ERROR 11-24 00:12:58 [multiproc_executor.py:953] SafetensorError: invalid header length
(EngineCore pid=4777) ERROR 11-24 00:13:00 [core.py:1510] EngineCore failed to start.
(EngineCore pid=4777) ERROR 11-24 00:13:00 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=4777) ERROR 11-24 00:13:00 [core.py:1510]   File "/v/multiproc_executor.py", line 815, in wait_for_ready
(EngineCore pid=4777) ERROR 11-24 00:13:00 [core.py:1510]     raise e from None
(EngineCore pid=4777) ERROR 11-24 00:13:00 [core.py:1510] Exception: WorkerProc initialization failed. See stack trace.
Process EngineCore:
Traceback (most recent call last):
  File "/v/core.py", line 1514, in run_engine_core
    raise e
Exception: WorkerProc initialization failed. See stack trace.
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "/v/core_client.py", line 167, in make_async_mp_client
    return AsyncMPClient(
           ^^^^^^^^^^^^^^
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
# Of vLLM 0.32, shortened: its worker was killed. Nothing after the first line says so.
VLLM_DEAD_WORKER = "\n".join(
    [
        "(EngineCore pid=694) ERROR 11-24 00:08:05 [multiproc_executor.py:3] Worker proc Worker-0 died unexpectedly",
        *(f"(EngineCore pid=694) ERROR 11-24 00:08:05 [dump_input.py:{n}] Dumping {n}: {'x' * 5000}" for n in range(9)),
        "(APIServer pid=604) ERROR 11-24 00:08:05 [async_llm.py:906] EngineDeadError: EngineCore encountered an issue.",
        *(f'INFO:     127.0.0.1:{port} - "GET /health HTTP/1.1" 200 OK' for port in range(50)),
        *(
            f"(APIServer pid=604) INFO 11-24 00:08:09 [launcher.py:{n}] [shutdown] API server: step {n}"
            for n in range(12)
        ),
        "INFO:     Application shutdown complete.",
    ]
)


def test_an_excerpt_has_the_root_cause_from_above_and_the_last_line() -> None:
    excerpt = logs.excerpt(VLLM_CORRUPT_WEIGHTS)
    assert "SafetensorError: invalid header length" in excerpt
    assert excerpt.endswith(
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    )


def test_an_excerpt_leaves_out_the_frames_of_tracebacks() -> None:
    excerpt = logs.excerpt(VLLM_CORRUPT_WEIGHTS)
    for frame in ("Traceback", "File", "^^^", "raise e", "safe_open"):
        assert frame not in excerpt


def test_an_excerpt_has_neither_banners_nor_all_the_flags_there_are() -> None:
    """Of vLLM 0.32, shortened: its user gave it a flag that it does not have."""
    log = (
        "(APIServer pid=7) INFO 11-24 05:26:24 [api_utils.py:347]\n"
        "(APIServer pid=7) INFO 11-24 05:26:24 [api_utils.py:347]        █     █     █▄   ▄█\n"
        "usage: api_server.py [-h] [--headless]\n"
        + "                     [--optimization-level OPTIMIZATION_LEVEL]\n"
        * 50
        + "                     [model_tag]\n"
        "api_server.py: error: unrecognized arguments: --no-such-flag\n"
        "/v/multiprocessing/resource_tracker.py:254: UserWarning: There appear to be 1 leaked semaphore objects\n"
        "  warnings.warn('There appear to be %d '\n"
    )
    assert logs.excerpt(log) == "api_server.py: error: unrecognized arguments: --no-such-flag"


def test_an_excerpt_has_the_adapter_that_could_not_be_loaded() -> None:
    """Of vLLM 0.32, shortened."""
    core = "(EngineCore pid=9) ERROR 11-24 05:26:55 [core.py:1750]"
    log = (
        "(Worker pid=8) ERROR 11-24 05:26:55 [multiproc_executor.py:1063] WorkerProc hit an exception.\n"
        "(Worker pid=8) ERROR 11-24 05:26:55 [multiproc_executor.py:1063]\n"
        "(Worker pid=8) ERROR 11-24 05:26:55 [multiproc_executor.py:1063] vllm.exceptions.LoRAAdapterNotFoundError: "
        "Loading lora static failed: No adapter found for /nowhere/x\n"
        f"{core} Invocation of add_lora method failed\n"
        + "".join(f"(APIServer pid=7) INFO 11-24 05:26:56 [launcher.py:{n}] shutdown, step {n}\n" for n in range(20))
    )
    assert "No adapter found for /nowhere/x" in logs.excerpt(log)


def test_an_excerpt_of_a_log_that_goes_on_after_its_cause_begins_with_the_cause() -> None:
    excerpt = logs.excerpt(VLLM_DEAD_WORKER)
    assert "died unexpectedly" in excerpt.splitlines()[0]
    assert excerpt.endswith("INFO:     Application shutdown complete.")
    assert "EngineDeadError" in excerpt
    assert "/health" not in excerpt
    assert len(excerpt.splitlines()) < 20
    assert max(map(len, excerpt.splitlines())) <= 400


def test_an_excerpt_takes_no_warning_for_the_cause() -> None:
    rest = [f"(APIServer pid=4764) INFO 11-24 00:12:45 [api_utils.py:1] step {number}" for number in range(20)]
    assert "Errno 24" not in logs.excerpt("\n".join([VLLM_CORRUPT_WEIGHTS.splitlines()[1], *rest]))


def test_an_excerpt_says_once_what_several_workers_say() -> None:
    worker = "(Worker_TP{n} pid=5{n}) ERROR 11-24 00:12:5{n} [multiproc_executor.py:953] RuntimeError: out of memory"
    end = [f"line {number}" for number in range(20)]
    excerpt = logs.excerpt("\n".join([*(worker.format(n=number) for number in range(8)), *end]))
    assert excerpt.count("out of memory") == 1


def test_an_excerpt_of_a_short_log_is_the_log() -> None:
    assert logs.excerpt("one\n\ntwo\n") == "one\ntwo"
    assert logs.excerpt("") == ""


def test_a_tail_is_whole_lines_and_may_begin_at_an_incarnation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n--- new\nline 1\nline 2 \xff\n")
    assert logs.tail(log, 2) == "line 1\nline 2 \N{REPLACEMENT CHARACTER}\n"
    assert logs.tail(log, since=4).startswith("--- new\n")
    assert logs.tail(log, 0) == ""
    assert logs.tail(tmp_path / "none", 5) == ""


def test_a_tail_of_a_huge_log_reads_only_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(10 * 2**30)  # ten sparse gigabytes
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert logs.tail(log, 1) == "the end\n"


def test_rotation_leaves_the_writer_writing(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    writer = logs.open_for_append(log)
    try:
        os.write(writer, b"x" * 100)
        assert not logs.rotate(log, 100)
        os.write(writer, b"y")
        assert logs.rotate(log, 100)
        os.write(writer, b"after\n")
    finally:
        os.close(writer)
    assert log.read_bytes() == b"after\n"
    older = (tmp_path / "engine.log.1").stat()
    assert older.st_size == 101
    assert older.st_mode & 0o077 == 0  # it holds what users asked, as the log itself does


async def test_following_goes_on_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("one\ntwo\n")
    seen = bytearray()
    with trio.fail_after(10):
        follower = logs.follow(log, 1)
        async for data in follower:
            seen += data
            if seen.endswith(b"two\n"):
                logs.append_line(log, "three")
            elif seen.endswith(b"three\n"):
                logs.rotate(log, 1)
                logs.append_line(log, "four")
            elif seen.endswith(b"four\n"):
                break
        await follower.aclose()  # type: ignore[attr-defined]
    assert bytes(seen) == b"two\nthree\nfour\n"

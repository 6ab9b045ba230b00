"""Records as observers are told of them, with plausible values for all that a test has nothing to say of."""

from __future__ import annotations

from typing import Any

from stoker.model import NOTHING, EngineInfo, EngineState, Origin, RequestRecord


def request_record(**fields: Any) -> RequestRecord:
    """A chat request that the engine ``qwen-1`` answered. ``fields`` are those that shall be otherwise."""
    usual: dict[str, Any] = {
        "request_id": "r-1",
        "path": "/v1/chat/completions",
        "asked": "qwen",
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "engine_id": "qwen-1",
        "status": 200,
        "stream": True,
        "began_at": 1000.0,
        "duration_seconds": 2.0,
        "waited_seconds": 0.5,
        "first_byte_seconds": 0.75,
        "attempts": 1,
        "received_bytes": 10,
        "sent_bytes": 20,
        "prompt_tokens": 7,
        "completion_tokens": 3,
    }
    return RequestRecord(**{**usual, **fields})


def engine_info(**fields: Any) -> EngineInfo:
    """The engine ``qwen-1``, READY. ``fields`` are those that shall be otherwise."""
    usual: dict[str, Any] = {
        "engine_id": "qwen-1",
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "names": ("qwen",),
        "runtime": "vllm",
        "kind": "llm",
        "origin": Origin.MANAGED,
        "state": EngineState.READY,
        "reason": "",
        "host": "127.0.0.1",
        "port": 9000,
        "base_url": "http://127.0.0.1:9000",
        "pid": 1,
        "gpus": (),
        "created_at": 1.0,
        "ready_at": 2.0,
        "last_heartbeat": 3.0,
        "consecutive_failures": 0,
        "restarts": 0,
        "restart_at": None,
        "active_requests": 0,
        "max_concurrency": None,
        "last_error": None,
        "last_exit": None,
        "metadata": NOTHING,
    }
    return EngineInfo(**{**usual, **fields})

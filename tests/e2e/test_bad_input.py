"""Engines that can't be: each is one clear error, and the one beside them answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from stoker.home import Home
from tests import loopback

from .running import Program, running, until

pytestmark = pytest.mark.e2e


def config(folder: Path) -> str:
    (folder / "corrupt.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 400)
    (folder / "text.gguf").write_text("these are no weights")
    return f"""
[gateway]
listen = "127.0.0.1:0"

[[engine]]
label = "good"
model = "HuggingFaceTB/SmolLM2-135M-Instruct"
names = ["smollm2"]
runtime = "embedded"

[[engine]]
label = "missing"
model = "{folder}/missing.gguf"
runtime = "embedded"

[[engine]]
label = "corrupt"
model = "{folder}/corrupt.gguf"
runtime = "embedded"
restart_limit = 0

[[engine]]
label = "text"
model = "{folder}/text.gguf"
runtime = "embedded"
restart_limit = 0

[[engine]]
label = "program"
model = "m"
runtime = "command"
command = ["no-such-engine", "{{port}}"]
"""


def test_broken_engines_say_why_and_hurt_nobody(pyz: Path, embedded_home: Home, tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").write_text(config(tmp_path))
    with running(pyz, embedded_home, "up", "-c", str(tmp_path / "stoker.toml")) as program:
        engines = until(lambda: _settled(program), "every engine is READY or in ERROR")
        errors = {name: engine["last_error"] for name, engine in engines.items() if engine["state"] == "ERROR"}
        assert set(errors) == {"missing", "corrupt", "text", "program"}
        assert f"there is no file {tmp_path / 'missing.gguf'}; correct the path" in errors["missing"]
        assert str(tmp_path / "corrupt.gguf") in errors["corrupt"]
        assert "exit code" in errors["corrupt"]
        assert str(tmp_path / "text.gguf") in errors["text"]
        assert "there is no executable 'no-such-engine' on the PATH; install it" in errors["program"]
        answer = loopback.post(
            f"{program.url}/v1/chat/completions",
            json={"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
            timeout=60,
        )
        assert answer.status_code == httpx2.codes.OK
        refused = program.manage("POST", "/engines/start", {"model": "m", "runtime": "vlm"})
        assert refused.status_code == httpx2.codes.BAD_REQUEST
        assert "there is no runtime 'vlm'" in refused.json()["error"]["message"]
        assert {engine["engine_id"]: engine["pid"] for engine in program.engines()}["good"] == engines["good"]["pid"]


def _settled(program: Program) -> dict[str, Any] | None:
    engines = {engine["engine_id"]: engine for engine in program.engines()}
    return engines if all(engine["state"] in ("READY", "ERROR") for engine in engines.values()) else None

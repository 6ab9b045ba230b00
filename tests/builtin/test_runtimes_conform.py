"""Every built-in runtime passes the suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker.builtin.runtimes import Command, LlamaCpp, Remote, Sglang, Vllm, VllmCpu
from stoker.contracts import EngineRuntime
from stoker.model import EngineSpec, Placement
from stoker.testing.engines import fake_engine_spec
from stoker.testing.runtimes import RuntimeConformance


class TestVllmConforms(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return Vllm()

    def good_specs(self) -> Sequence[EngineSpec]:
        kinds = ("llm", "embedding", "rerank", "score", "classify", "audio")
        return [EngineSpec(model="Qwen/Qwen2.5-0.5B", names=("qwen",), runtime="vllm", kind=kind) for kind in kinds]


class TestVllmCpuConforms(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return VllmCpu()

    def good_specs(self) -> Sequence[EngineSpec]:
        env = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        adapters = ("--enable-lora", "--lora-modules", "sql=/adapters/sql")
        return [
            EngineSpec(model="some/model", runtime="vllm-cpu", names=("sql",), env=env, args=adapters),
            EngineSpec(model="some/model", runtime="vllm-cpu", kind="embedding"),
        ]


class TestSglangConforms(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return Sglang()

    def good_specs(self) -> Sequence[EngineSpec]:
        kinds = ("llm", "embedding", "rerank", "score", "audio")
        return [EngineSpec(model="some/model", names=("small",), runtime="sglang", kind=kind) for kind in kinds]


class TestLlamaCppConforms(RuntimeConformance):
    @pytest.fixture(autouse=True)
    def model_file(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.model = tmp_path_factory.mktemp("models") / "tiny.gguf"
        self.model.write_bytes(b"GGUF")

    def make_runtime(self) -> EngineRuntime:
        return LlamaCpp(which=lambda name: f"/usr/bin/{name}")

    def placement(self) -> Placement:
        return Placement()

    def good_specs(self) -> Sequence[EngineSpec]:
        named = [
            EngineSpec(model=str(self.model), names=("tiny",), runtime="llama-cpp", kind=kind)
            for kind in ("llm", "embedding", "rerank")
        ]
        return [*named, EngineSpec(model="user/repo-GGUF:Q4_K_M", runtime="llama-cpp")]


class TestCommandConforms(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return Command()

    def good_specs(self) -> Sequence[EngineSpec]:
        words = ("serve", "--at={host}:{port}", "--names", "{names}", "--json", '{{"a": 1}}')
        return [
            EngineSpec(model="m", names=("n",), runtime="command", command=words, cwd="/"),
            EngineSpec(model="m", runtime="command", command=("serve", "{model}"), port=9000),
            fake_engine_spec("tiny", names=("small",)),
        ]


class TestRemoteConforms(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return Remote()

    def placement(self) -> Placement:
        return Placement(python=Path("/nowhere"))

    def good_specs(self) -> Sequence[EngineSpec]:
        return [
            EngineSpec(model="m", runtime="remote", url="http://127.0.0.1:9001"),
            EngineSpec(model="m", runtime="remote", url="https://example.org/v1/", api_key_env="KEY", kind="embedding"),
        ]

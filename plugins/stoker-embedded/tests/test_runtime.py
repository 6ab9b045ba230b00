"""What the runtime makes of a spec. Nothing is installed or started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import attrs
import pytest

import stoker_embedded
from stoker.contracts import EngineRuntime
from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, Gpu, Placement
from stoker.testing.runtimes import RuntimeConformance
from stoker_embedded import Embedded

CHAT = EngineSpec(model="HuggingFaceTB/SmolLM2-135M-Instruct", runtime="embedded")
EMBEDDING = EngineSpec(model="sentence-transformers/all-MiniLM-L6-v2", runtime="embedded", kind="embedding")
GPU = Gpu(index=0, uuid="GPU-1", name="any", memory_total=2**33, memory_used=0)
PLACEMENT = Placement(python=Path("/env/bin/python"))


class TestEmbedded(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return Embedded()

    def good_specs(self) -> Sequence[EngineSpec]:
        return [CHAT, EMBEDDING]

    def test_the_engine_learns_its_gpus(self) -> None:
        """It has none; the suite asks every runtime."""
        assert all(Embedded().check(attrs.evolve(spec, gpus=2)) for spec in self.good_specs())


def test_the_chat_model_is_served_by_the_script_in_the_environment() -> None:
    plan = Embedded().plan(CHAT, PLACEMENT, 4321)
    assert plan.argv[:3] == ("/env/bin/python", "-I", "/env/share/stoker/serve.py")
    assert plan.argv[3:] == (*("--model", "smollm2", "--alias", CHAT.model, "--host", "127.0.0.1", "--port", "4321"),)
    assert plan.base_url == "http://127.0.0.1:4321"
    assert plan.metrics_path == "/metrics"


def test_the_environment_is_found_beside_its_interpreter_which_is_a_link(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    plan = Embedded().plan(CHAT, Placement(python=python), 1)
    assert plan.argv[0] == str(python)
    assert plan.argv[2] == str(tmp_path / "share" / "stoker" / "serve.py")


def test_an_embedding_engine_is_told_so_and_probed_with_an_embedding() -> None:
    plan = Embedded().plan(EMBEDDING, PLACEMENT, 1)
    assert "--embedding" in plan.argv
    assert plan.token_probe is not None
    assert plan.token_probe.path == "/v1/embeddings"
    chat = Embedded().plan(CHAT, PLACEMENT, 1)
    assert "--embedding" not in chat.argv
    assert chat.token_probe is not None
    assert chat.token_probe.path == "/v1/completions"


@pytest.mark.parametrize(
    ("spec", "short"), [(CHAT, "smollm2"), (CHAT, "SmolLM2"), (EMBEDDING, "all-minilm-l6-v2")], ids=str
)
def test_a_packaged_model_has_a_short_name(spec: EngineSpec, short: str) -> None:
    brief = attrs.evolve(spec, model=short)
    assert Embedded().check(brief) == []
    flags = Embedded().plan(spec, PLACEMENT, 1).argv
    assert Embedded().plan(brief, PLACEMENT, 1).argv == tuple(short if word == spec.model else word for word in flags)


@pytest.mark.parametrize("kind", ["llm", "embedding"])
def test_any_gguf_file_can_be_served_and_the_kind_decides_how(tmp_path: Path, kind: str) -> None:
    (tmp_path / "some.gguf").touch()
    spec = EngineSpec(model="some.gguf", runtime="embedded", kind=kind, cwd=str(tmp_path))
    assert Embedded().check(spec) == []
    plan = Embedded().plan(spec, PLACEMENT, 1)
    assert plan.argv[4] == str(tmp_path / "some.gguf")
    assert ("--embedding" in plan.argv) == (kind == "embedding")


def test_what_the_user_adds_comes_last_and_the_variables_go_along() -> None:
    spec = attrs.evolve(CHAT, args=("--threads", "2"), env={"A": "b"}, cwd="/somewhere", health_path="/v1/health")
    plan = Embedded().plan(spec, Placement(python=PLACEMENT.python, host="::1"), 1)
    assert plan.argv[-2:] == ("--threads", "2")
    assert plan.env == {"A": "b"}
    assert plan.cwd == "/somewhere"
    assert plan.health_path == "/v1/health"
    assert plan.base_url == "http://[::1]:1"


def test_without_an_environment_the_error_says_how_to_get_one() -> None:
    with pytest.raises(PermanentLaunchError, match="stoker runtime install embedded"):
        Embedded().plan(CHAT, Placement(), 1)


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    [mistake] = Embedded().check(attrs.evolve(CHAT, model="gpt-4"))
    assert "'gpt-4'" in mistake
    for known in (CHAT.model, "smollm2", EMBEDDING.model, "all-minilm-l6-v2", ".gguf"):
        assert known in mistake


@pytest.mark.parametrize("model", [f"{'x' * 5000}.gguf", "~nobody-of-that-name/x.gguf", "a\nb.gguf", ".gguf"])
def test_a_strange_path_is_a_missing_file(model: str) -> None:
    with pytest.raises(PermanentLaunchError, match="there is no file"):
        Embedded().plan(attrs.evolve(CHAT, model=model), PLACEMENT, 1)


def test_a_missing_file_is_named_by_the_plan_and_costs_no_other_engine_its_start(tmp_path: Path) -> None:
    spec = attrs.evolve(CHAT, model=str(tmp_path / "gone.gguf"))
    assert Embedded().check(spec) == []
    with pytest.raises(PermanentLaunchError, match=r"there is no file .*gone\.gguf"):
        Embedded().plan(spec, PLACEMENT, 1)


@pytest.mark.parametrize(
    ("spec", "kind", "remedy"), [(EMBEDDING, "llm", 'kind = "embedding"'), (CHAT, "embedding", 'kind = "llm"')], ids=str
)
def test_a_model_of_another_kind_is_refused_with_both_ways_out(spec: EngineSpec, kind: str, remedy: str) -> None:
    other = CHAT if spec is EMBEDDING else EMBEDDING
    [mistake] = Embedded().check(attrs.evolve(spec, kind=kind))
    assert f"is of kind {spec.kind!r}, not {kind!r}" in mistake
    assert remedy in mistake
    assert f'model = "{other.model}"' in mistake


def test_a_kind_nobody_serves_is_refused() -> None:
    [mistake] = Embedded().check(attrs.evolve(CHAT, kind="image"))
    assert "'image'" in mistake
    assert "llm, embedding" in mistake


def test_fields_that_mean_nothing_here_are_refused_with_what_to_do() -> None:
    spec = attrs.evolve(CHAT, gpus=1, tensor_parallel_size=2, url="http://x", command=("a",), args=("--port=1",))
    mistakes = Embedded().check(spec)
    assert [mistake.split()[0] for mistake in mistakes] == ["gpus", "tensor_parallel_size", "url", "command", "args"]
    assert "CPU" in mistakes[0]


def test_each_kind_has_its_paths() -> None:
    chat, embedding = Embedded().paths(CHAT), Embedded().paths(EMBEDDING)
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"} < chat
    assert "/v1/embeddings" in embedding
    assert chat & embedding == {"/tokenize", "/detokenize"}


def test_it_wants_no_gpu_memory() -> None:
    assert Embedded().estimate_memory(CHAT, GPU) == 0


def test_the_load_is_read_from_the_metrics() -> None:
    page = (
        "# TYPE llamacpp:prompt_tokens_total counter\n"
        "llamacpp:prompt_tokens_total 39\n"
        "llamacpp:tokens_predicted_total 64\n"
        "llamacpp:n_decode_total 7\n"
        "llamacpp:requests_processing 2\n"
        "llamacpp:requests_deferred 3\n"
        "llamacpp:predicted_tokens_seconds 84.7\n"
    )
    assert Embedded().scrape(page) == EngineLoad(running=2, waiting=3, progress=110)


@pytest.mark.parametrize("text", ["", "<html>", "llamacpp:requests_processing nan", "llamacpp:requests_processing"])
def test_another_page_is_an_empty_load(text: str) -> None:
    assert Embedded().scrape(text) == EngineLoad()


def test_the_environment_holds_the_scripts_and_needs_no_compiler() -> None:
    environment = Embedded().environment
    assert set(environment.files) == {"serve.py", "convert_minilm.py"}
    for name, text in environment.files.items():
        compile(text, name, "exec")
    assert environment.env["PIP_ONLY_BINARY"] == ":all:"
    assert all("==" in requirement for requirement in environment.bare_requirements)


def test_the_scripts_are_found_inside_a_zip_file(tmp_path: Path) -> None:
    package = files(stoker_embedded)
    with ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("__init__.py", "runtime.py", "models.py", "engine/serve.py", "engine/convert_minilm.py"):
            archive.writestr(f"stoker_embedded/{name}", (package / name).read_text())
    look = "from stoker_embedded import Embedded; print(*sorted(Embedded().environment.files))"
    path = [str(tmp_path / "all.zip"), *(entry for entry in sys.path if "stoker-embedded" not in entry)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {look}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["convert_minilm.py", "serve.py"]

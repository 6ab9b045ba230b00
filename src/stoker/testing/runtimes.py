"""The suite that every engine runtime passes. Needs pytest and Hypothesis.

In a plugin's tests::

    class TestMyRuntime(RuntimeConformance):
        def make_runtime(self) -> EngineRuntime:
            return MyRuntime()

        def good_specs(self) -> Sequence[EngineSpec]:
            return [EngineSpec(model="some/model", runtime="mine")]
"""
# ruff: noqa: D102 - the names of the tests say what they hold to

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stoker.contracts import EngineRuntime, Narrating
from stoker.errors import StokerError
from stoker.model import EngineLoad, EngineSpec, EnvironmentSpec, Gpu, LaunchPlan, Placement, StartProgress

# A method of a base class runs in each class derived from it, which Hypothesis would rather ask about. Explaining a
# failure takes longer than finding it.
SUITE = settings(
    suppress_health_check=[HealthCheck.differing_executors],
    phases=[phase for phase in Phase if phase is not Phase.explain],
    report_multiple_bugs=False,
    deadline=None,
    max_examples=50,
)
PORT, OTHER_PORT = 49321, 49322
GPUS = tuple(Gpu(index=0, uuid="GPU-one", name="any", memory_total=gib * 2**30, memory_used=2**30) for gib in (8, 80))
AWKWARD = ("--flag", "two words", "$(id); `id` | cat > x", "", "{}")

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
any_specs = st.builds(
    EngineSpec,
    model=words | st.sampled_from(["some/model", "/nowhere/model.gguf", "./model"]),
    names=st.lists(words, max_size=2).map(tuple),
    kind=st.sampled_from(["llm", "embedding", "rerank", "no-such-kind"]),
    replicas=st.integers(-1, 3),
    gpus=st.integers(-1, 4),
    args=st.lists(words | st.sampled_from(["--port", "--model=x", "-m"]), max_size=3).map(tuple),
    env=st.dictionaries(st.sampled_from(["A", "CUDA_VISIBLE_DEVICES"]), words, max_size=2),
    command=st.lists(words | st.sampled_from(["{port}", "{", "{nothing}"]), max_size=3).map(tuple),
    port=st.none() | st.integers(0, 70000),
    url=st.none() | words | st.sampled_from(["http://127.0.0.1:1/v1", "http://[::", "https://a:b@c/?d"]),
    api_key_env=st.none() | words,
    tensor_parallel_size=st.none() | st.integers(-1, 4),
    pipeline_parallel_size=st.none() | st.integers(-1, 4),
    health_path=st.none() | words,
)
metric_lines = st.sampled_from(
    [
        "# TYPE x counter",
        'vllm:num_requests_running{engine="0"} NaN',
        'vllm:num_requests_running{engine="1"} -3',
        'vllm:kv_cache_usage_perc{engine="0"} 1.5',
        "sglang:token_usage -0.25",
        "vllm:num_requests_waiting +Inf",
        "llamacpp:requests_processing",
        'llamacpp:requests_deferred{a="}"} 1 1700000000',
        "vllm:generation_tokens_total{ 1e999",
        "}{ 3",
    ]
)

log_lines = st.sampled_from(
    [
        "",
        "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:01<00:02,  1.20it/s]",
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 101%|####| 68/67 [00:09<00:00]",
        "Fetching 4 files:  %|",
        "model.safetensors: 007%|",
        "." * 101,
        "--- stoker: one, incarnation 1: serve",
    ]
)


class RuntimeConformance:
    """Derive from it, say how the runtime is made, and which specs are right for it."""

    #: False where the engine is never told under which names clients call its model.
    engine_learns_names = True

    def make_runtime(self) -> EngineRuntime:
        """A new runtime, as the plugin registers it."""
        raise NotImplementedError

    def good_specs(self) -> Sequence[EngineSpec]:
        """Specs with nothing wrong in them: one of each kind of model that the runtime serves, at least."""
        raise NotImplementedError

    def placement(self) -> Placement:
        """Where the good specs are to run. ``python`` may be any interpreter: nothing is started."""
        return Placement(python=Path(sys.executable))

    def plans(self) -> Iterator[tuple[EngineSpec, LaunchPlan]]:
        """Every good spec, with its plan."""
        runtime, placement = self.make_runtime(), self.placement()
        for spec in self.good_specs():
            yield spec, runtime.plan(spec, placement, PORT)

    def test_it_is_a_runtime_with_a_name_one_can_write(self) -> None:
        runtime = self.make_runtime()
        assert isinstance(runtime, EngineRuntime), f"{runtime!r} lacks a part of stoker.contracts.EngineRuntime"
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", runtime.name), f"{runtime.name!r} is not lower-case-with-hyphens"

    def test_its_environment_can_be_installed(self) -> None:
        environment = self.make_runtime().environment
        if environment is not None:
            assert isinstance(environment, EnvironmentSpec)
            assert environment.requirements or environment.bare_requirements, "the environment requires nothing"

    def test_nothing_is_wrong_with_good_specs(self) -> None:
        runtime = self.make_runtime()
        specs = self.good_specs()
        assert specs, "good_specs() gives none"
        for spec in specs:
            assert spec.runtime == runtime.name, f"a good spec is for runtime {spec.runtime!r}"
            assert list(runtime.check(spec)) == []

    def test_commands_are_words_that_need_no_shell(self) -> None:
        for _, plan in self.plans():
            assert all(isinstance(word, str) and "\0" not in word for word in plan.argv), plan.argv
            assert not plan.argv or plan.argv[0], "the command begins with an empty word"

    def test_arguments_reach_the_engine_as_they_are(self) -> None:
        runtime, placement = self.make_runtime(), self.placement()
        for spec, plan in self.plans():
            if plan.argv:
                awkward = attrs.evolve(spec, args=(*spec.args, *AWKWARD))
                argv = runtime.plan(awkward, placement, PORT).argv
                assert argv[-len(AWKWARD) :] == AWKWARD, f"the user's arguments are not the last words: {argv}"

    def test_the_engine_is_told_where_to_listen_and_found_there(self) -> None:
        for spec, plan in self.plans():
            assert re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*(?<!/)", plan.base_url), plan.base_url
            if plan.argv and spec.port is None:
                told = [*plan.argv, *plan.env.values()]
                assert plan.base_url == f"http://127.0.0.1:{PORT}"
                assert any(str(PORT) in word for word in told), f"the port is not told: {plan.argv}"

    def test_each_replica_has_a_port_of_its_own(self) -> None:
        runtime, placement = self.make_runtime(), self.placement()
        for spec, plan in self.plans():
            if plan.argv and spec.port is None:
                other = runtime.plan(spec, placement, OTHER_PORT)
                assert other.base_url != plan.base_url
                assert not any(str(PORT) in word for word in other.argv)

    def test_the_engine_learns_the_names_of_its_model(self) -> None:
        for spec, plan in self.plans():
            if plan.argv and self.engine_learns_names:
                for name in spec.all_names if plan.names is None else plan.names:
                    assert any(name in word for word in plan.argv), f"{name!r} is not in {plan.argv}"

    def test_the_names_that_the_engine_knows_are_names(self) -> None:
        for _, plan in self.plans():
            if plan.names is not None:
                assert plan.names, "the engine knows no name; None would mean that it knows all of the spec's"
                assert all(isinstance(name, str) and name for name in plan.names), plan.names

    def test_the_users_environment_and_folder_are_kept(self) -> None:
        runtime, placement = self.make_runtime(), self.placement()
        for spec, plan in self.plans():
            if plan.argv:
                own = attrs.evolve(spec, env={**spec.env, "MY_OWN": "value"})
                assert runtime.plan(own, placement, PORT).env.get("MY_OWN") == "value"
                assert plan.cwd == spec.cwd

    def test_the_engine_learns_its_gpus(self) -> None:
        runtime = self.make_runtime()
        placement = attrs.evolve(self.placement(), gpus=("GPU-one", "GPU-two"))
        for spec, plan in self.plans():
            if plan.argv:
                with_gpus = runtime.plan(attrs.evolve(spec, gpus=2), placement, PORT)
                told = " ".join([*with_gpus.argv, *with_gpus.env.values()])
                assert "GPU-one" in told, f"nothing tells the engine of its GPUs: {with_gpus}"
                assert "GPU-two" in told, f"nothing tells the engine of its second GPU: {with_gpus}"

    def test_paths_are_paths(self) -> None:
        runtime = self.make_runtime()
        for spec, plan in self.plans():
            paths = runtime.paths(spec)
            assert paths, "it serves nothing"
            probes = {plan.health_path, plan.metrics_path or "/"}
            calls = {path for part in (plan.sleeping, plan.adapters) if part for path in attrs.astuple(part)}
            assert all(path.startswith("/") for path in paths | probes | calls), (paths, probes, calls)

    def test_the_token_probe_is_a_request_the_engine_serves(self) -> None:
        runtime = self.make_runtime()
        for spec, plan in self.plans():
            if plan.token_probe is not None:
                assert plan.token_probe.path in runtime.paths(spec)
                assert json.loads(json.dumps(dict(plan.token_probe.body))), "an empty probe asks for nothing"

    def test_the_same_spec_gives_the_same_plan(self) -> None:
        assert list(self.plans()) == list(self.plans())

    def test_memory_is_a_number_of_bytes_or_not_known(self) -> None:
        runtime = self.make_runtime()
        for spec in self.good_specs():
            for gpu in GPUS:
                estimate = runtime.estimate_memory(spec, gpu)
                assert estimate is None or (type(estimate) is int and estimate >= 0), estimate

    @given(spec=any_specs)
    @SUITE
    def test_whatever_a_spec_says_it_is_answered_in_sentences(self, spec: EngineSpec) -> None:
        """``check`` raises nothing, and ``plan`` only what the contract says."""
        runtime = self.make_runtime()
        spec = attrs.evolve(spec, runtime=runtime.name)
        mistakes = list(runtime.check(spec))
        assert all(isinstance(mistake, str) and mistake.strip() for mistake in mistakes), mistakes
        runtime.paths(spec)
        runtime.estimate_memory(spec, GPUS[0])
        said = "a plan"
        try:
            runtime.plan(spec, self.placement(), PORT)
        except StokerError as refusal:
            said = str(refusal)
        assert said.strip(), "a refusal without a word"

    @given(lines=st.lists(st.text(max_size=40) | metric_lines, max_size=6))
    @example(lines=["vllm:num_requests_running NaN", "llamacpp:requests_processing NaN"])
    @example(
        lines=["vllm:kv_cache_usage_perc 1.5", "vllm:num_requests_waiting -1", "llamacpp:kv_cache_usage_ratio +Inf"]
    )
    @SUITE
    def test_any_metrics_page_can_be_read(self, lines: list[str]) -> None:
        load = self.make_runtime().scrape("\n".join(lines))
        assert isinstance(load, EngineLoad)
        numbers = (load.running, load.waiting, load.progress, load.kv_cache_used or 0.0)
        assert all(math.isfinite(number) for number in numbers), load
        assert load.running >= 0, "fewer requests than none"
        assert load.waiting >= 0, "fewer requests than none"
        assert load.kv_cache_used is None or 0 <= load.kv_cache_used <= 1, "it is the part in use, 0 to 1"

    @given(line=st.text(max_size=80) | log_lines)
    @example(line="Loading safetensors checkpoint shards: 999% Completed | 9/1")
    @SUITE
    def test_any_line_of_a_log_can_be_read(self, line: str) -> None:
        """If it says how far a start is (:class:`stoker.contracts.Narrating`)."""
        runtime = self.make_runtime()
        if not isinstance(runtime, Narrating):
            return
        progress = runtime.start_progress(line)
        if progress is not None:
            assert isinstance(progress, StartProgress)
            assert progress.phase.strip() == progress.phase != "", "a phase is a few words"
            assert progress.fraction is None or 0 <= progress.fraction <= 1, "it is the part that is done, 0 to 1"

    def test_an_empty_metrics_page_is_an_empty_load(self) -> None:
        assert self.make_runtime().scrape("") == EngineLoad()

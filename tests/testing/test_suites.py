"""The suites find what is wrong: each of these plugins breaks one promise, and one test of its suite says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest

from stoker.builtin.policies import LeastLoad
from stoker.builtin.runtimes import Command
from stoker.builtin.schedulers import Pack
from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.model import (
    AdapterPaths,
    Candidate,
    EngineLoad,
    EngineSpec,
    Gpu,
    LaunchPlan,
    Placement,
    Refusal,
    Reservations,
    RouteRequest,
    SleepPaths,
    TokenProbe,
)
from stoker.testing.engines import fake_engine_env, fake_engine_spec
from stoker.testing.policies import PolicyConformance
from stoker.testing.runtimes import RuntimeConformance
from stoker.testing.schedulers import SchedulerConformance


def run(suite: object, test: str) -> None:
    getattr(suite, f"test_{test}")()


class Stranger(LeastLoad):
    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        return Candidate(engine_id="of its own making", in_flight=0)


class Sorter(LeastLoad):
    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        if isinstance(candidates, list):
            candidates.append(candidates[0])
        return candidates[0]


class Bookkeeper(LeastLoad):
    def __init__(self) -> None:
        super().__init__()
        self.chosen: Candidate | None = None

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        self.chosen = super().choose(request, candidates, now)
        return self.chosen

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        if candidate != self.chosen:
            raise KeyError(candidate.engine_id)


class Nostalgic(LeastLoad):
    """Holds on to the first engine that had a name."""

    def __init__(self) -> None:
        super().__init__()
        self.engines: dict[str, Candidate] = {}

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        chosen = super().choose(request, candidates, now)
        return self.engines.setdefault(chosen.engine_id, chosen)


class Hoarder(LeastLoad):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[RouteRequest] = []

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        self.requests.append(request)


class Recursive(LeastLoad):
    """Compares the prompt with itself, letter by letter."""

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        def same(one: bytes, other: bytes) -> bool:
            return not one or (one[:64] == other[:64] and same(one[64:], other[64:]))

        same(request.prompt, request.prompt)
        return candidates[0]


class Speechless(LeastLoad):
    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        return " "


class Talkative(LeastLoad):
    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        return f"I thought about it.\nI chose {candidates[0].engine_id}."


class Vague(LeastLoad):
    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        return "that is how I feel today"


class Unmoved(LeastLoad):
    def configured(self, options: Mapping[str, Any]) -> Unmoved:
        return self


class Lenient(LeastLoad):
    def configured(self, options: Mapping[str, Any]) -> Lenient:
        return Lenient()


class Curt(LeastLoad):
    def configured(self, options: Mapping[str, Any]) -> Curt:
        if options:
            raise ValueError("no")
        return Curt()


class Curious(LeastLoad):
    needs = frozenset({"address"})


class Nameless(LeastLoad):
    name = "Least Load"


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        (Stranger, "of_one_candidate_it_chooses_that"),
        (Stranger, "it_always_chooses_a_candidate"),
        (Sorter, "it_does_not_change_what_it_is_offered"),
        (Bookkeeper, "it_bears_a_lease_on_an_engine_it_did_not_choose"),
        (Nostalgic, "it_chooses_engines_as_they_are_now"),
        (Hoarder, "it_lets_go_of_requests_that_are_over"),
        (Recursive, "it_bears_many_engines_and_a_long_prompt"),
        (Speechless, "its_explanation_is_a_sentence_that_names_an_engine"),
        (Talkative, "its_explanation_is_a_sentence_that_names_an_engine"),
        (Vague, "its_explanation_is_a_sentence_that_names_an_engine"),
        (Unmoved, "without_options_it_is_what_it_was"),
        (Lenient, "an_option_that_there_is_not_is_named"),
        (Curt, "an_option_that_there_is_not_is_named"),
        (Curious, "it_asks_for_nothing_a_request_does_not_have"),
        (Nameless, "it_is_a_policy_with_a_name_one_can_write"),
    ],
)
def test_a_policy_that_breaks_a_promise_is_found_out(policy: type[LeastLoad], test: str) -> None:
    class Suite(PolicyConformance):
        def make_policy(self) -> RoutingPolicy:
            return policy()

    with pytest.raises((AssertionError, KeyError, RecursionError)):
        run(Suite(), test)


class Scheduler(Pack):
    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        return self.changed(spec, super().place(spec, gpus, reservations), gpus)

    def changed(self, spec: EngineSpec, answer: Placement | Refusal, gpus: Sequence[Gpu]) -> Placement | Refusal:
        return answer


class Overcommitting(Scheduler):
    def changed(self, spec: EngineSpec, answer: Placement | Refusal, gpus: Sequence[Gpu]) -> Placement | Refusal:
        return Placement(gpus=tuple(gpu.uuid for gpu in gpus[: spec.gpus]))


class Optimistic(Pack):
    """Takes for free what nobody uses, though it was promised."""

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        return super().place(spec, gpus, Reservations(needed=reservations.needed))


class Stingy(Scheduler):
    def changed(self, spec: EngineSpec, answer: Placement | Refusal, gpus: Sequence[Gpu]) -> Placement | Refusal:
        return Refusal(reason="not today")


class Silent(Scheduler):
    def changed(self, spec: EngineSpec, answer: Placement | Refusal, gpus: Sequence[Gpu]) -> Placement | Refusal:
        return Refusal(reason="") if isinstance(answer, Refusal) else answer


class Doubling(Scheduler):
    def changed(self, spec: EngineSpec, answer: Placement | Refusal, gpus: Sequence[Gpu]) -> Placement | Refusal:
        return attrs.evolve(answer, gpus=answer.gpus[:1] * spec.gpus) if isinstance(answer, Placement) else answer


class Bookkeeping(Pack):
    """Believes that whatever it answered was taken."""

    def __init__(self) -> None:
        self.given: set[str] = set()

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        answer = super().place(spec, [gpu for gpu in gpus if gpu.uuid not in self.given], reservations)
        self.given.update(answer.gpus if isinstance(answer, Placement) else ())
        return answer


FITS = "it_gives_gpus_that_fit_in_the_number_asked_for_or_a_reason"


@pytest.mark.parametrize(
    ("scheduler", "test"),
    [
        (Overcommitting, FITS),
        (Overcommitting, "a_refusal_says_who_holds_the_gpus"),
        (Overcommitting, "more_gpus_than_there_are_are_refused"),
        (Optimistic, FITS),
        (Optimistic, "what_is_promised_is_not_free_though_nobody_uses_it_yet"),
        (Stingy, "an_engine_without_gpus_is_never_refused"),
        (Stingy, "empty_gpus_are_not_refused"),
        (Silent, FITS),
        (Doubling, FITS),
        (Bookkeeping, "what_it_was_asked_before_promises_nothing"),
    ],
)
def test_a_scheduler_that_breaks_a_promise_is_found_out(scheduler: type[Pack], test: str) -> None:
    class Suite(SchedulerConformance):
        def make_scheduler(self) -> GpuScheduler:
            return scheduler()

    with pytest.raises(AssertionError):
        run(Suite(), test)


class Runtime(Command):
    """A right runtime whose plans can be spoiled."""

    def __init__(self, spoil: Callable[[LaunchPlan], LaunchPlan] = lambda plan: plan) -> None:
        self.spoil = spoil

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        return self.spoil(super().plan(spec, placement, port))


ELSEWHERE = TokenProbe(path="/elsewhere", body={"a": 1})


def spoiled(**changes: Any) -> Callable[[], EngineRuntime]:
    return lambda: Runtime(lambda plan: attrs.evolve(plan, **changes))


class Raising(Runtime):
    def check(self, spec: EngineSpec) -> Sequence[str]:
        return [] if spec.command[0] else ["there is no command"]


class Trusting(Runtime):
    def scrape(self, text: str) -> EngineLoad:
        return EngineLoad(running=float("nan") if "NaN" in text else 0.0)


class Boastful(Runtime):
    def scrape(self, text: str) -> EngineLoad:
        return EngineLoad(kv_cache_used=1.5 if "1.5" in text else None)


class Guessing(Runtime):
    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        return int(gpu.memory_total / 2) - 5 * 2**30


def shell(plan: LaunchPlan) -> LaunchPlan:
    return attrs.evolve(plan, argv=("sh", "-c", " ".join(plan.argv)))


@pytest.mark.parametrize(
    ("make", "test"),
    [
        (lambda: Runtime(shell), "arguments_reach_the_engine_as_they_are"),
        (spoiled(env={}), "the_users_environment_and_folder_are_kept"),
        (spoiled(env={}), "the_engine_learns_its_gpus"),
        (spoiled(argv=("serve",)), "the_engine_learns_the_names_of_its_model"),
        (spoiled(argv=("serve", "tiny"), names=None), "the_engine_learns_the_names_of_its_model"),
        (spoiled(names=()), "the_names_that_the_engine_knows_are_names"),
        (spoiled(names=("",)), "the_names_that_the_engine_knows_are_names"),
        (spoiled(health_path="health"), "paths_are_paths"),
        (spoiled(sleeping=SleepPaths(sleep="sleep", wake="/w", asleep="/a")), "paths_are_paths"),
        (spoiled(adapters=AdapterPaths(load="/l", unload="")), "paths_are_paths"),
        (Boastful, "any_metrics_page_can_be_read"),
        (Guessing, "memory_is_a_number_of_bytes_or_not_known"),
        (spoiled(token_probe=ELSEWHERE), "the_token_probe_is_a_request_the_engine_serves"),
        (spoiled(base_url="http://127.0.0.1:1"), "the_engine_is_told_where_to_listen_and_found_there"),
        (spoiled(base_url="http://127.0.0.1:1"), "each_replica_has_a_port_of_its_own"),
        (Raising, "whatever_a_spec_says_it_is_answered_in_sentences"),
        (Trusting, "any_metrics_page_can_be_read"),
    ],
)
def test_a_runtime_that_breaks_a_promise_is_found_out(make: Callable[[], EngineRuntime], test: str) -> None:
    class Suite(RuntimeConformance):
        def make_runtime(self) -> EngineRuntime:
            return make()

        def good_specs(self) -> Sequence[EngineSpec]:
            return [fake_engine_spec("tiny", names=("small",))]

    with pytest.raises((AssertionError, IndexError)):
        run(Suite(), test)


def test_to_import_the_package_needs_neither_pytest_nor_hypothesis() -> None:
    code = "import sys, stoker.testing, stoker.testing.engines; print({'pytest', 'hypothesis'} & sys.modules.keys())"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=dict(fake_engine_env()), capture_output=True, text=True, check=True
    )
    assert ran.stdout == "set()\n"

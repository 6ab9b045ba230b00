"""Settings held against what plugins provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs
import pytest

from stoker.config import check_against, configured
from stoker.contracts import EngineRuntime
from stoker.model import Candidate, EngineSpec, RouteRequest
from stoker.settings import GatewaySettings, RuntimeSettings, Settings

PATHS: Mapping[str, object] = {"3": frozenset({3}), "path": "/v1/completions", "nothing": None, "v1": {"v1"}}


@attrs.frozen
class Picky:
    """A runtime with two complaints about most models, and some at which it breaks."""

    name = "picky"

    def check(self, spec: EngineSpec) -> Sequence[str]:
        match spec.model:
            case "good":
                return []
            case "a text":
                return "no"
            case "None":
                return None  # type: ignore[return-value]
            case "leave":
                raise SystemExit(3)
        return [] if spec.model in PATHS else ["too small", "too\ngreen"]

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        return PATHS.get(spec.model, frozenset({"/v1/completions"}))  # type: ignore[return-value]


@attrs.frozen
class Provided:
    runtimes: Mapping[str, EngineRuntime] = attrs.field(factory=lambda: {"picky": cast("EngineRuntime", Picky())})
    policies: Mapping[str, Any] = attrs.field(factory=lambda: {"least-load": None})
    schedulers: Mapping[str, Any] = attrs.field(factory=lambda: {"pack": None})


def mistakes_of(settings: Settings) -> list[tuple[str, str]]:
    return [(mistake.path, mistake.message) for mistake in check_against(settings, Provided())]


def test_what_fits_has_no_mistakes() -> None:
    assert mistakes_of(Settings(engines=(EngineSpec(model="good", runtime="picky"),))) == []


def test_every_complaint_of_every_runtime_is_told_with_its_engine() -> None:
    engines = (EngineSpec(model="good", runtime="picky"), EngineSpec(model="bad", runtime="picky"))
    assert mistakes_of(Settings(engines=engines)) == [("engine[1]", "too small"), ("engine[1]", "too green")]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("a text", "TypeError: check must return a list of texts, not 'no'"),
        ("None", "TypeError: check must return a list of texts, not None"),
        ("leave", "SystemExit: 3"),
        ("3", "TypeError: paths must return a set of texts, not frozenset({3})"),
        ("path", "TypeError: paths must return a set of texts, not '/v1/completions'"),
        ("nothing", "TypeError: paths must return a set of texts, not None"),
        ("v1", "TypeError: paths gave 'v1', which does not begin with /"),
    ],
)
def test_a_runtime_that_breaks_is_named_and_the_rest_is_checked(model: str, says: str) -> None:
    """A text was taken for a list of complaints, one for each letter; the paths were not asked for before the start."""
    engines = (EngineSpec(model=model, runtime="picky"), EngineSpec(model="bad", runtime="picky"))
    broken, *others = mistakes_of(Settings(engines=engines))
    assert broken == ("engine[0]", f"runtime 'picky' broke when it was asked about {model!r}: {says}")
    assert [path for path, _ in others] == ["engine[1]", "engine[1]"]


def test_unknown_names_are_told_with_what_there_is() -> None:
    settings = Settings(
        gateway=GatewaySettings(policy="lest-load"),
        scheduler="zzz",
        runtimes={"pick": RuntimeSettings()},
        engines=(EngineSpec(model="m", runtime="x y"),),
    )
    assert mistakes_of(settings) == [
        ("gateway.policy", "there is no policy 'lest-load'; did you mean least-load?"),
        ("scheduler", "there is no scheduler 'zzz'; there are: pack"),
        ("runtime.pick", "there is no runtime 'pick'; did you mean picky?"),
        ("engine[0].runtime", "there is no runtime 'x y'; there are: picky"),
    ]


def with_policies(**policies: Any) -> Provided:
    return Provided(policies={"least-load": Stubborn("least-load"), **policies})


@attrs.frozen
class Stubborn:
    """A policy without options."""

    name: str
    needs: frozenset[str] = frozenset()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        return candidates[0]

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        pass

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        pass


@attrs.frozen
class Flexible(Stubborn):
    """A policy with one option."""

    spread: int = 1

    def configured(self, options: Mapping[str, Any]) -> Any:
        if options.get("spread") == 0:
            raise ValueError("spread must be at least 1, not 0")
        match options.get("spread"):
            case "break":
                raise ZeroDivisionError("a defect")
            case "nothing":
                return None
            case "leave":
                raise SystemExit(3)
            case "say nothing":
                raise ValueError
            case "class":
                return Flexible
            case "rename":
                return attrs.evolve(self, name="other")
        return attrs.evolve(self, **options)


def test_an_engine_may_only_name_a_policy_that_there_is() -> None:
    settings = Settings(engines=(EngineSpec(model="good", runtime="picky", policy="lest-load"),))
    assert mistakes_of(settings) == [("engine[0].policy", "there is no policy 'lest-load'; did you mean least-load?")]


def test_a_policy_is_given_its_options() -> None:
    flexible, stubborn = Flexible("flexible"), Stubborn("stubborn")
    there, mistakes = configured({"flexible": {"spread": 3}}, {"flexible": flexible, "stubborn": stubborn})
    assert mistakes == ()
    assert there == {"flexible": Flexible("flexible", spread=3), "stubborn": stubborn}
    assert flexible.spread == 1


UNFIT = "what configured() gave can't be used: Flexible is no RoutingPolicy: "
BROKE = "the policy broke when it was given these options: "


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"flexible": {"spread": 0}}, "policy.flexible", "spread must be at least 1, not 0"),
        ({"stubborn": {"a": 1, "b": 2}}, "policy.stubborn", "the policy takes no options; leave out a, b"),
        ({"flexable": {}}, "policy.flexable", "there is no policy 'flexable'; did you mean flexible?"),
        (
            {"flexible": {"spread": "break"}},
            "policy.flexible",
            f"{BROKE}ZeroDivisionError: a defect",
        ),
        (
            {"flexible": {"spread": "nothing"}},
            "policy.flexible",
            "what configured() gave can't be used: NoneType is no RoutingPolicy: it has no 'name'",
        ),
        (
            {"flexible": {"spread": "rename"}},
            "policy.flexible",
            "configured() gave a policy of another name, 'other'",
        ),
        ({"flexible": {"spread": "leave"}}, "policy.flexible", f"{BROKE}SystemExit: 3"),
        ({"flexible": {"spread": "say nothing"}}, "policy.flexible", "ValueError"),
        (
            {"flexible": {"needs": {"nope"}}},
            "policy.flexible",
            f"{UNFIT}it needs 'nope'; there is only: body, headers, prompt, session",
        ),
        (
            {"flexible": {"needs": "headers"}},
            "policy.flexible",
            f"{UNFIT}its needs are 'headers', and must be a set of texts",
        ),
        (
            {"flexible": {"spread": "class"}},
            "policy.flexible",
            "what configured() gave can't be used: Flexible is a class; give an instance of it: Flexible()",
        ),
    ],
)
def test_what_a_policy_says_of_its_options_is_a_mistake(
    options: Mapping[str, Mapping[str, Any]], path: str, message: str
) -> None:
    provided = with_policies(flexible=Flexible("flexible"), stubborn=Stubborn("stubborn"))
    mistakes = check_against(Settings(policies=options), provided)
    assert [(mistake.path, mistake.message) for mistake in mistakes] == [(path, message)]


def test_an_empty_table_is_for_every_policy() -> None:
    assert check_against(Settings(policies={"least-load": {}}), with_policies()) == ()

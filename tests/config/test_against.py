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


@attrs.frozen
class Picky:
    """A runtime with two complaints about every model but one."""

    name = "picky"

    def check(self, spec: EngineSpec) -> Sequence[str]:
        return [] if spec.model == "good" else ["too small", "too green"]


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
            f"{BROKE}ZeroDivisionError('a defect')",
        ),
        (
            {"flexible": {"spread": "nothing"}},
            "policy.flexible",
            f"{BROKE}TypeError('configured() gave a NoneType, which is no policy')",
        ),
        (
            {"flexible": {"spread": "rename"}},
            "policy.flexible",
            f"{BROKE}TypeError(\"configured() gave a policy of another name, 'other'\")",
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

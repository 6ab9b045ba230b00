"""Settings held against what plugins provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from stoker.config import check_against
from stoker.contracts import EngineRuntime
from stoker.model import EngineSpec
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

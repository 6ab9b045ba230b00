"""A runtime's plan is looked through before anything is done with it: a small slip must not take the program down."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from stoker.builtin.runtimes import Command
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import AdapterPaths, EngineSpec, LaunchPlan, Placement, SleepPaths, TokenProbe
from stoker.supervise.planning import make_plan
from stoker.testing.engines import fake_engine_spec

SPEC = attrs.evolve(fake_engine_spec(), runtime="mine")
GOOD = LaunchPlan(
    argv=("serve",),
    env={"A": "b"},
    base_url="http://127.0.0.1:9",
    metrics_path="/metrics",
    token_probe=TokenProbe(path="/v1/completions", body={"prompt": "1"}),
    names=("m",),
    sleeping=SleepPaths(sleep="/sleep?level=1", wake="/wake", asleep="/asleep"),
    adapters=AdapterPaths(load="/load", unload="/unload"),
)


class Mine(Command):
    """Plans whatever it is made to."""

    def __init__(self, plan: object) -> None:
        self._plan = plan

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        if isinstance(self._plan, BaseException):
            raise self._plan
        return self._plan  # type: ignore[return-value]


def plan(answer: object) -> LaunchPlan:
    return make_plan(Mine(answer), SPEC, Placement(), 9)


def test_a_good_plan_is_taken_as_it_is() -> None:
    assert plan(GOOD) is GOOD
    url = LaunchPlan(base_url="https://engines.example/base")
    assert plan(url) is url


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"health_path": None}, "its health_path is None, and must be a text that begins with /"),
        ({"health_path": "health"}, "its health_path is 'health', and must be a text that begins with /"),
        ({"health_path": "/a\tb"}, "its health_path '/a\\tb' makes no URL"),
        ({"metrics_path": 5}, "its metrics_path is 5"),
        ({"base_url": None}, "its base_url is None, and must begin with http:// or https://"),
        ({"base_url": "127.0.0.1:9"}, "its base_url is '127.0.0.1:9'"),
        ({"base_url": "http://127.0.0.1:port"}, "makes no URL"),
        ({"base_url": "http://"}, "its base_url is 'http://', which has no host that could be reached"),
        ({"base_url": "http://:8000"}, "which has no host that could be reached"),
        ({"base_url": "http://127.0.0.1:0"}, "which has no port that could be reached"),
        ({"base_url": "http://127.0.0.1:99999"}, "makes no URL"),
        ({"base_url": "http://127.0.0.1:9?a=b"}, "must be http://host:port, with a path at most"),
        ({"base_url": "http://me:secret@127.0.0.1:9"}, "must be http://host:port, with a path at most"),
        ({"argv": ("serve", 8000)}, "its argv is made of texts, not of ('serve', 8000)"),
        ({"argv": "serve --port 8000"}, "its argv is a text, 'serve --port 8000', and must be a tuple"),
        ({"argv": ("a\0b",)}, "its argv has a NUL character"),
        ({"argv": ("", "--port")}, "its argv begins with '', and must begin with the program"),
        ({"env": {"": "x"}}, "its env has '', which can't be the name of a variable"),
        ({"env": {"A=B": "x"}}, "its env has 'A=B', which can't be the name of a variable"),
        ({"env": {"A\0": "x"}}, "its env has a NUL character"),
        ({"env": {"PORT": 8000}}, "its env is made of texts, not of ('PORT', 8000)"),
        ({"env": {"PORT": "8\0"}}, "its env has a NUL character"),
        ({"env": None}, "its env is None, and must be a mapping of texts"),
        ({"cwd": 7}, "its cwd is 7, and must be a text or None"),
        ({"names": ()}, "its names are (), and must be texts, at least one, or None"),
        ({"names": (1,)}, "its names are (1,)"),
        ({"token_probe": "/v1/completions"}, "its token_probe is '/v1/completions', which is no TokenProbe"),
        ({"token_probe": TokenProbe(path="x", body={})}, "its token_probe.path is 'x'"),
        ({"token_probe": TokenProbe(path="/x", body={"a": {1}})}, "the body of its token_probe is no JSON"),
        ({"sleeping": "/sleep"}, "'/sleep' is no SleepPaths"),
        ({"sleeping": SleepPaths(sleep="/s", wake="/w", asleep=None)}, "its SleepPaths.asleep is None"),  # type: ignore[arg-type]
        ({"adapters": AdapterPaths(load="load", unload="/u")}, "its AdapterPaths.load is 'load'"),
    ],
    ids=repr,
)
def test_what_nothing_can_be_started_with_is_said(change: dict[str, Any], wrong: str) -> None:
    with pytest.raises(PermanentLaunchError) as caught:
        plan(attrs.evolve(GOOD, **change))
    assert str(caught.value).startswith("runtime 'mine' could not plan it: ")
    assert wrong in str(caught.value)


def test_a_url_may_end_with_a_slash() -> None:
    """Probes asked for ``//health`` then, until the time to start was over."""
    assert plan(attrs.evolve(GOOD, base_url="http://127.0.0.1:9/base/")).base_url == "http://127.0.0.1:9/base"


def test_an_engine_that_runs_elsewhere_has_no_gpus_here() -> None:
    with pytest.raises(PermanentLaunchError, match="it has GPUs here: GPU-1"):
        make_plan(Mine(attrs.evolve(GOOD, argv=())), SPEC, Placement(gpus=("GPU-1",)), 9)


def test_what_is_no_plan_is_said() -> None:
    with pytest.raises(PermanentLaunchError, match="it gave None, which is no LaunchPlan"):
        plan(None)


def test_a_launch_error_of_the_runtimes_is_passed_on() -> None:
    with pytest.raises(LaunchError, match="not installed") as caught:
        plan(LaunchError("not installed"))
    assert not isinstance(caught.value, PermanentLaunchError)


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), SystemExit(3)], ids=["a defect", "one that leaves"])
def test_whatever_else_it_raises_costs_its_engine_and_names_it(error: BaseException) -> None:
    with pytest.raises(PermanentLaunchError, match="runtime 'mine' could not plan it: "):
        plan(error)

"""The runtimes for engines nobody knows: a command of the user's, and a URL."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.builtin.runtimes import Command, Remote
from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, Placement

PLACEMENT = Placement(gpus=("GPU-a", "GPU-b"))


def command(*words: str, **fields: Any) -> EngineSpec:
    return EngineSpec(model="m", names=("n",), runtime="command", command=words, **fields)


def remote(url: str | None, **fields: Any) -> EngineSpec:
    return EngineSpec(model="m", runtime="remote", url=url, **fields)


def test_placeholders_are_filled_in_and_braces_escaped() -> None:
    spec = command("run", "{host}:{port}", "{names}", "--on={gpus}", '{{"model": "{model}"}}', args=("{port}", "{"))
    assert Command().check(spec) == []
    argv = Command().plan(spec, PLACEMENT, 9000).argv
    assert argv == ("run", "127.0.0.1:9000", "m,n", "--on=GPU-a,GPU-b", '{"model": "m"}', "{port}", "{")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (command(), "there is no command; give one"),
        (command("run"), "command has no {port}"),
        (command("run", "{port}", "{modle}"), "no placeholder {modle}; there are {port}, {host}, {model}"),
        (command("run", "{port}", "{}"), "no placeholder {}"),
        (command("run", "{port}", '{"a": 1}'), "{{ means a brace"),
        (command("run", "{port}", "}"), "a lone }; write }} for the character itself"),
        (command("run", "{port}", url="http://x"), 'take runtime = "remote"'),
        (command("run", "{port}", tensor_parallel_size=2), "put the flag into command or args"),
    ],
)
def test_each_mistake_in_a_command_is_one_sentence(spec: EngineSpec, words: str) -> None:
    (mistake,) = Command().check(spec)
    assert words in mistake


def test_a_wrong_template_is_not_run_even_if_nobody_checked_it() -> None:
    with pytest.raises(PermanentLaunchError, match=r"no placeholder \{oops\}"):
        Command().plan(command("run", "{port}", "{oops}"), Placement(), 9000)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("{port}",), ("m",)),
        (("{port}", "--model", "{model}"), ("m",)),
        (("{port}", '{{"names": "{names}"}}'), ("m", "n", "o/p=q")),
        (("{port}", "{{names}}"), ("m",)),
        (("{port}", "--name", "n"), ("m", "n")),
        (("{port}", "--names=x,n"), ("m", "n")),
        (("{port}", "--alias", "o/p=q"), ("m", "o/p=q")),
        (("{port}", "no"), ("m",)),
    ],
)
def test_a_command_knows_the_names_that_it_says(words: tuple[str, ...], names: tuple[str, ...]) -> None:
    spec = EngineSpec(model="m", names=("n", "o/p=q"), runtime="command", command=words)
    assert Command().plan(spec, PLACEMENT, 9000).names == names


def test_arguments_say_names_too() -> None:
    spec = command("run", "{port}", args=("--name", "n", "{names}"))
    assert Command().plan(spec, PLACEMENT, 9000).names == ("m", "n")


def test_a_fixed_port_needs_no_placeholder() -> None:
    assert Command().check(command("run", port=9000)) == []


def test_the_health_path_is_the_specs() -> None:
    assert Command().plan(command("run", "{port}", health_path="/ok"), PLACEMENT, 9000).health_path == "/ok"
    assert Remote().plan(remote("http://a", health_path="/ok"), PLACEMENT, 0).health_path == "/ok"


def test_a_command_may_be_any_engine_family() -> None:
    pages = ("vllm:num_requests_running 2", "llamacpp:requests_processing 2", "sglang:num_running_reqs 2")
    assert [Command().scrape(page).running for page in pages] == [2, 2, 2]


def test_an_unknown_kind_may_serve_everything() -> None:
    paths = Command().paths(command("run", kind="poetry"))
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/audio/speech", "/v1/images/generations"} <= paths


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("http://127.0.0.1:9001/", "http://127.0.0.1:9001"),
        ("https://example.org/v1", "https://example.org"),
        ("https://example.org/api/v1/", "https://example.org/api"),
        ("http://[::1]:9001/v1", "http://[::1]:9001"),
    ],
)
def test_a_remote_engine_is_where_its_url_says(url: str, base: str) -> None:
    spec = remote(url)
    assert Remote().check(spec) == []
    plan = Remote().plan(spec, Placement(), 0)
    assert (plan.argv, plan.base_url, plan.health_path, plan.metrics_path) == ((), base, "/v1/models", None)


def test_a_remote_engine_knows_nothing_of_our_names() -> None:
    assert Remote().plan(remote("http://a", names=("n",)), Placement(), 0).names == ("m",)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "there is no url; give one"),
        ("127.0.0.1:9001", 'must be like "http://host:port"'),
        ("ftp://example.org", 'must be like "http://host:port"'),
        ("http://", 'must be like "http://host:port"'),
        ("http://example.org:99999", "url can't be read: Port out of range"),
        ("http://[::1", "url can't be read: Invalid IPv6 URL"),
        ("http://example.org:0", "has port 0"),
        ("http://example.org?key=sesame", "has a query or fragment"),
        ("http://me:sesame@example.org", "url holds credentials"),
        ("http://exam ple.org", "holds white space"),
    ],
)
def test_each_mistake_in_a_url_is_one_sentence_without_its_secrets(url: str | None, words: str) -> None:
    (mistake,) = Remote().check(remote(url))
    assert words in mistake
    assert "sesame" not in mistake
    with pytest.raises(PermanentLaunchError):
        Remote().plan(remote(url), Placement(), 0)


def test_what_only_a_process_of_ours_could_have_is_refused() -> None:
    spec = remote("http://a", command=("x",), args=("y",), env={"A": "b"}, cwd="/", port=1, gpus=1, replicas=2)
    mistakes = Remote().check(spec)
    named = {mistake.partition(" means nothing")[0] for mistake in mistakes if "means nothing" in mistake}
    assert named == {"command", "args", "env", "cwd", "port", "gpus", "replicas"}


def test_a_key_is_never_written_into_the_configuration() -> None:
    (mistake,) = Remote().check(remote("http://a", api_key_env="sk-sesame"))
    assert "the name of an environment variable" in mistake
    assert "sesame" not in mistake

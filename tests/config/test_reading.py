"""A stoker.toml is read whole, or refused with every mistake in it and where each stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.config import load, parse, parse_listen, require_a_door, with_listen
from stoker.errors import ConfigError
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, Settings

EXAMPLE = """
scheduler = "spread"

[gateway]
listen = "127.0.0.1:9000"
policy = "round-robin"
queue_seconds = 5

[[engine]]
model = "Qwen/Qwen2.5-0.5B-Instruct"
names = ["qwen"]
runtime = "vllm"
replicas = 2
gpus = 1
args = ["--max-model-len", "8192"]
env = {HF_HUB_OFFLINE = "1"}
max_concurrency = 64
required_memory_gb = 1.5

[[engine]]
model = "m"
runtime = "remote"
url = "http://127.0.0.1:9001"
metadata = {owner = "ops", since = 2024, tags = ["a", "b"]}

[runtime.vllm]
python = "/opt/vllm/bin/python"
"""


def mistakes_of(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "stoker.toml")
    found = [(mistake.path, mistake.message) for mistake in caught.value.mistakes]
    assert len({path for path, _ in found}) == len(found), "a path stands there twice"
    return dict(found)


def engine(lines: str) -> str:
    return f'[[engine]]\nmodel = "m"\n{lines}\n'


def test_the_example_of_the_design_is_read() -> None:
    assert parse(EXAMPLE, "stoker.toml") == Settings(
        gateway=GatewaySettings(listen="127.0.0.1:9000", policy="round-robin", queue_seconds=5.0),
        engines=(
            EngineSpec(
                model="Qwen/Qwen2.5-0.5B-Instruct",
                names=("qwen",),
                replicas=2,
                gpus=1,
                args=("--max-model-len", "8192"),
                env={"HF_HUB_OFFLINE": "1"},
                max_concurrency=64,
                required_memory_bytes=1536 * 1024**2,
            ),
            EngineSpec(
                model="m",
                runtime="remote",
                url="http://127.0.0.1:9001",
                metadata={"owner": "ops", "since": 2024, "tags": ["a", "b"]},
            ),
        ),
        runtimes={"vllm": RuntimeSettings(python=Path("/opt/vllm/bin/python"))},
        scheduler="spread",
    )


def test_an_empty_file_means_the_defaults() -> None:
    assert parse("", "stoker.toml") == Settings()


def test_every_mistake_is_reported_at_once_with_its_path() -> None:
    text = """
        sheduler = "pack"
        [gateway]
        polcy = "x"
        queue_seconds = -1
        [[engine]]
        names = ["a", 3]
        gpus = "8"
        env = {A = 1}
        [[engine]]
        model = "b"
        replicas = true
        colour = "red"
        [runtime.vllm]
        python = 3
    """
    assert set(mistakes_of(text)) == {
        "sheduler",
        "gateway.polcy",
        "gateway.queue_seconds",
        "engine[0].model",
        "engine[0].names[1]",
        "engine[0].gpus",
        "engine[0].env.A",
        "engine[1].replicas",
        "engine[1].colour",
        "runtime.vllm.python",
    }


def test_contradictions_are_found_beside_other_mistakes() -> None:
    text = engine('names = ["x"]\ngpus = "8"') + '[[engine]]\nmodel = "other"\nnames = ["x"]\nreplicas = 0\n'
    assert set(mistakes_of(text)) == {"engine[0].gpus", "engine[1].replicas", "engine[1].names[0]"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[gateway\n", "line 1, column 9"),
        ("a = 1\nb = = 2\n", "line 2, column 5"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ('a = "never closed\n', "line 1, column 18"),
    ],
)
def test_malformed_toml_is_named_with_line_and_column(text: str, where: str) -> None:
    assert list(mistakes_of(text)) == [where]


def test_toml_that_breaks_its_parser_is_a_mistake_too() -> None:
    assert "too deep" in str(mistakes_of("a = " + "[" * 100_000))
    assert "not TOML" in str(mistakes_of("a = " + "9" * 10_000))


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("replicas = true", "replicas", "a whole number, not true"),
        ("replicas = 1.0", "replicas", "a whole number, not the number 1.0"),
        ('replicas = "8"', "replicas", 'a whole number, not the text "8"'),
        ("replicas = 0", "replicas", "at least 1, not 0"),
        ("gpus = -1", "gpus", "at least 0, not -1"),
        ("port = 0", "port", "at least 1, not 0"),
        ("port = 65536", "port", "at most 65535, not 65536"),
        ("probe_failures = 0", "probe_failures", "at least 1"),
        ("restart_limit = -1", "restart_limit", "at least 0"),
        ("drain_timeout_seconds = -0.5", "drain_timeout_seconds", "at least 0, not -0.5"),
        ("drain_timeout_seconds = nan", "drain_timeout_seconds", "finite"),
        ("drain_timeout_seconds = inf", "drain_timeout_seconds", "finite"),
        ("drain_timeout_seconds = -inf", "drain_timeout_seconds", "finite"),
        ("drain_timeout_seconds = false", "drain_timeout_seconds", "a number, not false"),
        (f"drain_timeout_seconds = {10**400}", "drain_timeout_seconds", "ordinary size"),
        (f"gpus = {10**400}", "gpus", "at most 1024, not a number of that size"),
        ("probe_interval_seconds = 0", "probe_interval_seconds", "at least 0.01"),
        ("model = 3", "model", "a text in quotes, not the number 3"),
        ('model = ""', "model", "must not be empty"),
        ('runtime = ""', "runtime", "must not be empty"),
        ('names = "qwen"', "names", 'a list, not the text "qwen"'),
        ('names = [""]', "names", "empty name"),
        ('args = ["a", 2]', "args[1]", "a text in quotes, not the number 2"),
        ('args = ["a\\u0000b"]', "args[0]", "NUL"),
        ("args = {}", "args", "a list, not a table"),
        ('env = ["A=1"]', "env", "a table, not a list"),
        ('env = {"A=B" = "1"}', "env", "'A=B'"),
        ('env = {"a b" = 1}', 'env."a b"', "a text in quotes"),
        ("metadata = {born = 1979-05-27}", "metadata.born", "not a date or time"),
        ("metadata = {x = [1, nan]}", "metadata.x", "finite"),
        (f"metadata = {{x = {2**70}}}", "metadata.x", "64 bits"),
        ('kind = "LLM!"', "kind", "lower-case word"),
        ('label = "///"', "label", "letter or digit"),
        ('health_path = "health"', "health_path", "begins with '/'"),
        ('url = "ftp://x"', "url", "http://host:port"),
        ('url = "http://x:99999"', "url", "Port out of range"),
        ('url = "http://[::1"', "url", "not a URL"),
        ('url = "http://x/?a=b"', "url", "before any '?'"),
        ('url = "http://x y/"', "url", "without spaces"),
        ("required_memory_gb = nan", "required_memory_gb", "from 0 to"),
        ("required_memory_gb = -1", "required_memory_gb", "from 0 to"),
        (f"required_memory_gb = {10**400}", "required_memory_gb", "from 0 to"),
        ('required_memory_gb = "4"', "required_memory_gb", "a number of GiB"),
        ("required_memory_gb = 1\nrequired_memory_bytes = 1", "required_memory_gb", "given too"),
        ("port = 9000\nreplicas = 2", "port", "2 replicas"),
        ('url = "http://h"\nreplicas = 2', "replicas", "one URL"),
        ("port = 8000", "port", "where the gateway listens"),
    ],
)
def test_a_wrong_value_is_refused_by_name(line: str, key: str, says: str) -> None:
    text = f"[[engine]]\n{line}\n" if line.startswith("model") else engine(line)
    found = mistakes_of(text)
    assert list(found) == [f"engine[0].{key}"]
    assert says in found[f"engine[0].{key}"]


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("::1:8000", "needs brackets"),
        ("[127.0.0.1]:8000", "not an IPv6 address"),
        ("[::1]", "host:port"),
        ("127.0.0.1", "host:port"),
        ("127.0.0.1:", "host:port"),
        (":8000", "host:port"),
        ("127.0.0.1:70000", "65535"),
        ("127.0.0.256:80", "not an IPv4 address"),
        ("localhost:+80", "host:port"),
        ("local host:80", "neither an address nor a host name"),
        ("localhost:٨٠", "host:port"),
        ("", "host:port"),
    ],
)
def test_an_address_that_can_not_be_listened_on_is_refused(listen: str, says: str) -> None:
    found = mistakes_of(f'[gateway]\nlisten = "{listen}"')
    assert says in found["gateway.listen"]
    with pytest.raises(ConfigError, match="--listen"):
        with_listen(Settings(), listen)


LOOPBACK = ["127.0.0.1:0", "localhost:8000", "[::1]:8000", "127.9.9.9:65535"]
WIDER = ["0.0.0.0:8000", "[::]:8000", "10.0.0.7:8000", "example.org:80"]


@pytest.mark.parametrize("listen", LOOPBACK + WIDER)
def test_other_addresses_are_taken(listen: str) -> None:
    assert parse(f'[gateway]\nlisten = "{listen}"', "x").gateway.listen == listen
    assert with_listen(Settings(), listen).gateway.listen == listen


@pytest.mark.parametrize("listen", LOOPBACK)
def test_loopback_needs_no_key(listen: str) -> None:
    require_a_door(parse_listen(listen), keys=False)


@pytest.mark.parametrize("listen", WIDER)
def test_what_others_can_reach_needs_one(listen: str) -> None:
    require_a_door(parse_listen(listen), keys=True)
    with pytest.raises(ValueError, match=r"stoker key create.*require_keys = true.*SSH tunnel"):
        require_a_door(parse_listen(listen), keys=False)


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_a_switch_is_true_or_false(value: str) -> None:
    assert "must be true or false" in mistakes_of(f"[gateway]\nrequire_keys = {value}")["gateway.require_keys"]
    assert parse("[gateway]\nrequire_keys = true", "x").gateway.require_keys is True


def test_a_misspelt_setting_is_suggested() -> None:
    found = mistakes_of(engine("replica = 2\nmodel_id = 'x'\nengine_kind = 'llm'\nzzz = 1"))
    assert found["engine[0].replica"].endswith("did you mean replicas?")
    assert found["engine[0].model_id"].endswith("did you mean model?")
    assert found["engine[0].engine_kind"].endswith("did you mean kind?")
    assert "api_key_env" in found["engine[0].zzz"]
    assert mistakes_of("[gatway]") == {"gatway": "is not a setting; did you mean gateway?"}
    assert mistakes_of("engines = []") == {"engines": "is not a setting; did you mean engine?"}


def test_secrets_in_the_wrong_place_are_not_shown_again() -> None:
    found = mistakes_of(engine('url = "http://me:hunter2 @h/"\napi_key_env = "sk-hunter2"'))
    assert set(found) == {"engine[0].url", "engine[0].api_key_env"}
    assert "hunter2" not in str(found)


def test_one_name_for_two_models_is_a_mistake_and_replicas_are_not() -> None:
    same = engine('names = ["a"]') + engine('names = ["a", "b"]')
    assert len(parse(same, "x").engines) == 2
    clash = engine('names = ["a"]') + '[[engine]]\nmodel = "a"\n'
    assert mistakes_of(clash) == {
        "engine[1].model": "'a' already means the model 'm' of engine[0]; one name can't mean two models "
        "(replicas have the same model)"
    }


def test_one_model_has_one_policy() -> None:
    both = parse(engine('policy = "a"') + engine("") + engine('policy = "a"'), "x").engines
    assert [spec.policy for spec in both] == ["a", None, "a"]
    assert mistakes_of(engine('policy = "a"') + engine("") + engine('policy = "b"')) == {
        "engine[2].policy": "'b' is not 'a', by which engine[0] says that 'm' goes; one model has one policy"
    }


def test_the_options_of_policies_are_read_as_they_are() -> None:
    read = parse('[policy.a]\nweight = 2\nof = {x = ["y"]}\n[policy."b c"]', "x").policies
    assert read == {"a": {"weight": 2, "of": {"x": ["y"]}}, "b c": {}}
    assert mistakes_of("policy = 1") == {"policy": "must be [policy.NAME] tables, not the number 1"}
    found = mistakes_of("[policy]\na = 1\n[policy.b]\nwhen = 2024-01-01\n")
    assert found == {
        "policy.a": "must be a table, not the number 1",
        "policy.b.when": "must be something JSON knows, not a date or time",
    }


def test_labels_and_ports_must_differ() -> None:
    found = mistakes_of(engine('label = "One"\nport = 9001') + engine('label = "one"\nport = 9001'))
    assert set(found) == {"engine[1].label", "engine[1].port"}


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("engine = 3", "engine", "two brackets"),
        ('[engine]\nmodel = "m"', "engine", "two brackets"),
        ("engine = [3]", "engine[0]", "must be a table"),
        ("gateway = []", "gateway", "must be a table"),
        ("runtime = 1", "runtime", "[runtime.NAME]"),
        ("[runtime]\nvllm = 1", "runtime.vllm", "must be a table"),
        ("log_max_bytes = 1", "log_max_bytes", "at least 1024"),
        ("scheduler = ''", "scheduler", "must not be empty"),
    ],
)
def test_a_wrong_shape_is_refused(text: str, path: str, says: str) -> None:
    found = mistakes_of(text)
    assert list(found) == [path]
    assert says in found[path]


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    file = tmp_path / "stoker.toml"
    file.write_text(
        """
        [[engine]]
        model = "./weights/a.gguf"
        cwd = "work"
        [[engine]]
        model = "org/name"
        [[engine]]
        model = "~/b.gguf"
        [runtime.vllm]
        python = "venv/bin/python"
        [runtime.llama-cpp]
        python = "/abs/python"
        """
    )
    settings = load(file)
    assert [spec.model for spec in settings.engines] == [f"{tmp_path}/weights/a.gguf", "org/name", "/home/me/b.gguf"]
    assert settings.engines[0].cwd == str(tmp_path / "work")
    assert settings.runtimes["vllm"].python == tmp_path / "venv/bin/python"
    assert settings.runtimes["llama-cpp"].python == Path("/abs/python")


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file"):
        load(missing)
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 5\)"):
        load(latin)


def test_a_byte_order_mark_hurts_nobody(tmp_path: Path) -> None:
    file = tmp_path / "stoker.toml"
    file.write_bytes(b'\xef\xbb\xbfscheduler = "none"\n')
    assert load(file).scheduler == "none"


def test_the_files_of_a_certificate_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    text = '[gateway]\ncertfile = "tls/cert.pem"\nkeyfile = "/etc/key.pem"'
    gateway = parse(text, "x", folder=tmp_path).gateway
    assert (gateway.certfile, gateway.keyfile) == (tmp_path / "tls" / "cert.pem", Path("/etc/key.pem"))
    assert "name that in certfile" in mistakes_of('[gateway]\nkeyfile = "key.pem"')["gateway.keyfile"]


def test_the_access_log_is_a_file_that_starts_there_or_the_log_itself(tmp_path: Path) -> None:
    places = {"access.log": str(tmp_path / "access.log"), "/var/log/a": "/var/log/a", "-": "-"}
    for given, place in places.items():
        assert parse(f'[gateway]\naccess_log = "{given}"', "x", folder=tmp_path).gateway.access_log == place
    assert "gateway.access_log" in mistakes_of('[gateway]\naccess_log = ""')
    assert "text, json" in mistakes_of('[gateway]\nlog_format = "xml"')["gateway.log_format"]


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.1:8000", "http://a", "a b", "", "256.1.1.1", "a/b"])
def test_where_engines_may_be_is_said_by_names_addresses_and_networks(entry: str) -> None:
    assert "gateway.register_hosts" in mistakes_of(f'[gateway]\nregister_hosts = ["{entry}"]')


def test_hosts_that_are_some_are_taken() -> None:
    hosts = ("gpu-7", "gpu-7.example.", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "::1", "[::1]")
    listed = ", ".join(f'"{host}"' for host in hosts)
    assert parse(f"[gateway]\nregister_hosts = [{listed}]", "x").gateway.register_hosts == hosts


@pytest.mark.parametrize("entry", ["", "A B", "*_KEY", "A**", "A?", "sk-1"])
def test_which_variables_may_be_named_over_http_is_said_by_names_and_beginnings(entry: str) -> None:
    found = mistakes_of(f'[gateway]\napi_key_variables = ["{entry}"]')
    assert "must be the name of an environment variable" in found["gateway.api_key_variables"]
    assert parse('[gateway]\napi_key_variables = ["A_*", "B", "*"]', "x").gateway.api_key_variables == ("A_*", "B", "*")

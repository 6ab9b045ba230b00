"""What stands in docs/how-to/deploy is what those who run Stoker start from: it works, and says what is true."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.tree import make_app
from stoker.notifying import MOST_SECONDS_BETWEEN

from .test_metrics_page import described, one_of_everything

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "how-to" / "deploy"


def tool(name: str) -> str:
    """A program of this machine, or the test is left out."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def must(*command: str | Path) -> str:
    """What a command says, which has to succeed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# The systemd unit


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """But for where its files are, which are not on this machine."""
    analyze = tool("systemd-analyze")
    unit = (DEPLOY / "stoker.service").read_text().replace("/usr/bin/python3", "/bin/sh")
    (tmp_path / "stoker.service").write_text(unit)
    assert must(analyze, "verify", "--man=no", tmp_path / "stoker.service") == ""


def settings_of_the_unit() -> Mapping[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "stoker.service").read_text(), re.MULTILINE))


def test_the_unit_lets_engines_be_and_leaves_them_the_gpus() -> None:
    settings = settings_of_the_unit()
    wanted = {"Type": "notify", "KillMode": "process", "OOMPolicy": "continue", "Restart": "on-failure"}
    assert settings.items() >= wanted.items()
    assert float(settings["WatchdogSec"]) > 2 * MOST_SECONDS_BETWEEN
    harmful = {"PrivateDevices", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute", "PrivateTmp"}
    assert not settings.keys() & harmful


@pytest.mark.parametrize(("directive", "name"), [("ExecStart", "up"), ("ExecReload", "reload")])
def test_the_unit_runs_commands_that_there_are(directive: str, name: str) -> None:
    told = settings_of_the_unit()[directive].partition("/opt/stoker/stoker.pyz ")[2]
    command, _, _ = make_app().parse_args(told, print_error=False, exit_on_error=False)
    assert command.__name__ == name


# Metrics

ALERTS = (DEPLOY / "stoker-alerts.yml").read_text()
DASHBOARD: Mapping[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
ADDED = frozenset({"instance", "job", "le"})  # by Prometheus itself
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*", "$job": ".*"}


def metrics() -> Mapping[str, frozenset[str]]:
    """The labels of every metric, by the names that queries may use."""
    there_are: dict[str, frozenset[str]] = {}
    for metric in one_of_everything().collect():
        name, kind, labels = described(metric)
        there_are[name] = labels
        if kind == "histogram":
            there_are[f"{name}_bucket"] = labels
    return there_are


def panels() -> Sequence[Mapping[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with what asks it."""
    for title, query in re.findall(r"- alert: (\w+)\n\s+expr: ((?:\|\n(?:\s{10,}.*\n)+)|.*\n)", ALERTS):
        yield title, query.removeprefix("|")
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def test_every_query_asks_for_metrics_that_there_are_by_labels_that_they_have() -> None:
    known = metrics()
    asked = list(queries())
    assert len([title for title, _ in asked if title.startswith("Stoker")]) == ALERTS.count("- alert:")
    for title, query in asked:
        names = re.findall(r"\b((?:stoker|process)_\w+)(?:\{([^}]*)\})?", query)
        assert names or 'up{job="stoker"}' in query, title
        for name, selector in names:
            assert name in known, f"{title}: there is no metric {name}"
            labels = set(re.findall(r"(\w+)\s*=~?", re.sub(r'"[^"]*"', "", selector)))
            assert labels <= known[name] | ADDED, f"{title}: {name} has no label {labels - known[name] - ADDED}"
        every = frozenset[str]().union(*(known[name] for name, _ in names)) | ADDED
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}
        assert grouped <= every, f"{title}: nothing has the label {grouped - every}"


def test_what_a_panel_and_an_alert_show_are_labels_that_are_left() -> None:
    known = metrics()
    for panel in panels():
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
            if grouped is not None:
                left = {label.strip() for label in grouped[1].split(",")}
            elif re.match(r"(histogram_quantile|sum)\(", target["expr"]):
                left = set()
            else:
                left = set(known[re.findall(r"(?:stoker|process)_\w+", target["expr"])[0]] | ADDED)
            assert shown <= left, f"{panel['title']}: nothing is left of {shown - left}"


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used <= variables | {"__rate_interval"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} stands on another panel"
        taken |= cells


def test_every_metric_of_ours_that_can_move_is_somewhere_on_the_dashboard() -> None:
    """So that whoever adds one thinks of it. What is not there is only a name, a time, or part of another one."""
    shown = json.dumps(DASHBOARD)
    missing = {name for name in metrics() if name.startswith("stoker_") and name not in shown}
    assert missing == {
        "stoker_connections_accepted_total",
        "stoker_engine_ready_timestamp_seconds",
        "stoker_policy_in_service",
    }


def test_prometheus_understands_the_alerts_and_every_query_of_the_dashboard(tmp_path: Path) -> None:
    promtool = tool("promtool")
    must(promtool, "check", "config", DEPLOY / "prometheus.yml")
    rules = []
    for number, (_, query) in enumerate(queries()):
        if query.startswith("label_values"):
            continue
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        rules.append({"record": f"query:{number}", "expr": query})
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in must(promtool, "check", "rules", file)


# The container

CONTAINERFILE = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
RUN_AS_A_SERVICE = (DEPLOY.parent / "run-as-a-service.md").read_text()
HOME = "/var/lib/stoker"


def steps(name: str) -> list[str]:
    """What stands after every instruction of that name."""
    return re.findall(rf"^{name} +(.*)$", CONTAINERFILE, re.MULTILINE)


def words(step: str) -> list[str]:
    """Those of an instruction, or a part of one, that is a list."""
    found = json.loads(step[step.index("[") :])
    assert isinstance(found, list)
    return found


def test_the_container_starts_what_is_built_and_what_its_steps_installed() -> None:
    [copied] = steps("COPY")
    source, target = copied.split()[-2:]
    sources = runpy.run_path(str(ROOT / "zipapp.py"))
    assert ROOT / source == sources["OUTPUT"]
    [entry] = [words(each) for each in steps("ENTRYPOINT")]
    assert entry == ["tini", "--", "python3", target]
    assert re.search(r"apt-get install .*\btini\b", steps("RUN")[0])


def test_the_container_runs_as_nobody_in_particular_whose_home_is_what_is_kept() -> None:
    assert steps("USER") == ["stoker"]
    assert re.search(rf"useradd --uid 10001 .* --home-dir {HOME} stoker$", steps("RUN")[1])
    assert steps("VOLUME") == steps("WORKDIR") == [HOME]
    assert f"HOME={HOME} STOKER_HOME={HOME}/state" in steps("ENV")[0]
    assert f"-v stoker:{HOME} " in RUN_AS_A_SERVICE


def test_the_container_runs_a_command_that_there_is_at_the_port_that_it_shows() -> None:
    [told] = [words(each) for each in steps("CMD") if each.startswith("[")]
    command, _, _ = make_app().parse_args(told, print_error=False, exit_on_error=False)
    assert command.__name__ == "up"
    options = dict(pairwise(told))
    [port] = steps("EXPOSE")
    assert options["--listen"] == f"0.0.0.0:{port}"
    assert f"-p {port}:{port} " in RUN_AS_A_SERVICE
    assert f"-v ./stoker.toml:{options['--config']}:ro" in RUN_AS_A_SERVICE
    assert f"127.0.0.1:{port}/health" in steps("HEALTHCHECK")[0]


@pytest.mark.parametrize(("status", "is_well"), [("200 OK", True), ("503 Service Unavailable", False), (None, False)])
def test_the_health_check_of_the_container_tells_well_from_ill(status: str | None, is_well: bool) -> None:
    [step] = steps("HEALTHCHECK")
    assert words(step)[0] == "python3"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        port = listener.getsockname()[1]
        if status is None:
            listener.close()
        program = [each.replace(":8000/", f":{port}/") for each in words(step)[1:]]
        with subprocess.Popen([sys.executable, *program], stderr=subprocess.DEVNULL) as process:
            if status is not None:
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(4096).startswith(b"GET /health ")
                    connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
        assert (process.returncode == 0) == is_well


def test_podman_is_told_to_make_an_image_with_a_health_check() -> None:
    """It makes one in OCI's format by itself, which has none, and only warns."""
    for text in (CONTAINERFILE, RUN_AS_A_SERVICE):
        assert re.findall(r"podman build .*-t stoker \.", text) == [
            "podman build --format docker -f docs/how-to/deploy/Containerfile -t stoker ."
        ]

"""What stands in docs/how-to/deploy is what those who run Stoker start from: it works, and says what is true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from .test_metrics_page import described, one_of_everything

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy"


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


def test_the_unit_lets_engines_be_and_leaves_them_the_gpus() -> None:
    unit = (DEPLOY / "stoker.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    wanted = {"Type": "notify", "KillMode": "process", "OOMPolicy": "continue", "Restart": "on-failure"}
    assert settings.items() >= wanted.items()
    assert float(settings["WatchdogSec"]) > 10
    harmful = {"PrivateDevices", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute", "PrivateTmp"}
    assert not settings.keys() & harmful


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


def test_the_container_runs_as_nobody_in_particular_and_starts_what_is_built() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    assert "COPY --chmod=0644 dist/stoker.pyz /opt/stoker/stoker.pyz" in lines
    assert "USER stoker" in lines
    assert "VOLUME /var/lib/stoker" in lines
    [command] = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    [entry] = [json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT ")]
    assert entry[-1] == "/opt/stoker/stoker.pyz"
    assert command[0] == "up"

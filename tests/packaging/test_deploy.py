"""Prometheus, Grafana and the Dockerfile: they speak of what exists, and the image's steps work."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy_tools import ROOT, tool
from workers import metrics

PROMETHEUS = ROOT / "config" / "prometheus"
GRAFANA = ROOT / "config" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]

_SERIES = re.compile(r"\b(penstock_\w+)(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
ADDED_BY_PROMETHEUS = {"instance", "job"}


def _labels_by_name() -> dict[str, set[str]]:
    """Every series as Prometheus stores it, with its labels."""
    known: dict[str, set[str]] = {}
    for series in metrics.SERIES:
        labels = set(series.labels) | ADDED_BY_PROMETHEUS
        if series.kind == "histogram":
            known[f"{series.name}_bucket"] = labels | {"le"}
            known[f"{series.name}_sum"] = known[f"{series.name}_count"] = labels
        else:
            known[series.name] = labels
    return known


KNOWN = _labels_by_name()


def wrong_in(expression: str) -> list[str]:
    """Return what a PromQL expression says of series or labels that do not exist."""
    wrong: list[str] = []
    labels_here = set(ADDED_BY_PROMETHEUS)
    for name, matchers in _SERIES.findall(expression):
        if name not in KNOWN:
            wrong.append(f"no series {name}")
            continue
        labels_here |= KNOWN[name]
        wrong += [
            f"{name} has no label {label}"
            for label in re.findall(r"(\w+)\s*[!=]", matchers)
            if label not in KNOWN[name]
        ]
    for group in _GROUPING.findall(expression):
        wrong += [f"no label {label}" for label in re.findall(r"\w+", group) if label not in labels_here]
    return wrong


def _expressions(dashboard: Path) -> list[str]:
    content = json.loads(dashboard.read_text("utf-8"))
    panels = [target["expr"] for panel in content["panels"] for target in panel["targets"]]
    return panels + [variable["query"]["query"] for variable in content["templating"]["list"]]


def test_the_check_finds_what_it_looks_for() -> None:
    """A wrong name, a wrong label and a wrong grouping are found; right ones are not."""
    assert wrong_in('sum by (task) (rate(penstock_records_total{outcome="enriched"}[5m]))') == []
    assert wrong_in("penstock_record_total") == ["no series penstock_record_total"]
    assert wrong_in('penstock_ready{task="x"}') == ["penstock_ready has no label task"]
    assert wrong_in("sum by (topic) (penstock_ready)") == ["no label topic"]
    assert wrong_in("penstock_record_duration_seconds") == ["no series penstock_record_duration_seconds"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_speaks_of_what_exists(alert: dict[str, Any]) -> None:
    """Its series and labels exist; it says how grave it is, what it means and what to do."""
    assert wrong_in(alert["expr"]) == []
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "action"} == set(alert["annotations"])
    told = " ".join(alert["annotations"].values())
    names = set(KNOWN) | {series.name for series in metrics.SERIES}
    assert set(re.findall(r"penstock_\w+", told)) <= names
    shown = set(re.findall(r"\$labels\.(\w+)", told))
    kept = {label for group in _GROUPING.findall(alert["expr"]) for label in re.findall(r"\w+", group)}
    of_series = [KNOWN[name] for name, _ in _SERIES.findall(alert["expr"])]
    assert shown <= (kept or set().union(ADDED_BY_PROMETHEUS, *of_series))


def test_the_alerts_that_are_promised_exist() -> None:
    """Latency, failures, a growing queue, breaker, guard, readiness, age, commit gap."""
    promised = "LatencyHigh FailuresHigh QueueGrowing BreakerOpen GuardPaused NotReady OldestRecord CommitGap"
    assert {f"Penstock{name}" for name in promised.split()} <= {alert["alert"] for alert in ALERTS}


def test_prometheus_accepts_its_files() -> None:
    """Promtool takes the configuration with the rules that it names."""
    checked = subprocess.run(
        [tool("promtool"), "check", "config", PROMETHEUS / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    """Promtool plays series through the rules; the cases are in alerts_test.yml."""
    cases = Path(__file__).with_name("alerts_test.yml")
    played = subprocess.run([tool("promtool"), "test", "rules", cases], capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_shows_what_exists(dashboard: Path) -> None:
    """Every query speaks of existing series and labels, to the data source that is provisioned."""
    assert [wrong for expression in _expressions(dashboard) for wrong in wrong_in(expression)] == []
    content = json.loads(dashboard.read_text("utf-8"))
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    assert {panel["datasource"]["uid"] for panel in content["panels"]} == {source["uid"]}
    ids = [panel["id"] for panel in content["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_shows_the_promised_things() -> None:
    """Lag, outcomes by tier and reason, P50/P95/P99, breaker, in flight."""
    queries = " ".join(_expressions(GRAFANA / "dashboards" / "penstock.json"))
    for wanted in (
        "penstock_lag_records",
        "by (outcome, tier)",
        "by (reason)",
        "histogram_quantile(0.5,",
        "histogram_quantile(0.95,",
        "histogram_quantile(0.99,",
        "penstock_breaker_state",
        "penstock_in_flight_records",
    ):
        assert wanted in queries


ON_NO_PANEL = {
    "penstock_in_flight_bytes": "its bound stops the intake, and shows in penstock_in_flight_records",
    "penstock_channel_batches": "what waits there is in flight, and counted with it",
    "penstock_records_lost_to_retention_total": "0, or an alert",
    "penstock_guard_budget": "10 to 20, or the alert that the guard has paused the task",
    "penstock_log_lines_dropped_total": "says nothing of records",
    "penstock_build_info": "does not change",
}
"""Series that no panel shows, and why."""


def test_every_series_is_on_a_panel_or_it_is_said_why_not() -> None:
    """A series that comes later is seen by somebody, or left out on purpose."""
    shown = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for expression in _expressions(GRAFANA / "dashboards" / "penstock.json")
        for name, _ in _SERIES.findall(expression)
    }
    assert {series.name for series in metrics.SERIES} - shown == set(ON_NO_PANEL)


def test_grafana_finds_its_dashboards_and_its_source() -> None:
    """Provisioned paths are where compose mounts the files, the source is the compose service."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/penstock.yml").read_text("utf-8"))["providers"]
    assert mounts["./config/grafana/dashboards"] == provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).name).exists()
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0].rsplit(':', 1)[1]}"


# ------------------------------------------------------------------ the image


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def _ignored_by_docker(name: str) -> bool:
    """Our .dockerignore begins with `*`: a name is sent only when a line lets it in."""
    rules = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    assert "*" in rules
    return f"!{name}" not in rules


def test_the_image_runs_unprivileged_and_needs_no_shell() -> None:
    """A numeric user, exec form, and the same user as in docker-compose.yml."""
    last = dict(_instructions())
    assert last["USER"] == "10001:10001"
    assert json.loads(last["ENTRYPOINT"]) == ["penstock"]
    assert re.search(r":3\.11\.\d+-slim", last["ARG"])


def _do(instruction: str, rest: str, root: Path) -> None:
    """Do one step of the build stage, with its absolute folders under `root`."""
    source = root / "src"
    if instruction == "COPY" and not rest.startswith("--from"):
        *names, target = rest.split()
        for name in names:
            assert not _ignored_by_docker(name)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / target)
    elif instruction == "RUN":
        command = re.sub(r"(?<![\w./-])/(opt/penstock|dist|src)\b", rf"{root}/\1", rest)
        environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        step = subprocess.run(
            shlex.split(command), cwd=source, env=environ, capture_output=True, text=True, timeout=600, check=False
        )
        assert step.returncode == 0, f"RUN {rest}\n{step.stdout}\n{step.stderr}"


def _help_of(command: list[str], root: Path) -> str:
    """Run a command of the image with the image's PATH; return what its --help says."""
    binaries = root / "opt" / "penstock" / "bin"
    started = subprocess.run(
        [str(binaries / command[0]), *command[1:], "--help"],
        env={"PATH": f"{binaries}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    return started.stdout


def _knows(told: str, options: list[str]) -> None:
    assert [option for option in options if option not in told] == []


@pytest.mark.timeout(900)  # it downloads and compiles every dependency
def test_every_step_of_the_image_works(tmp_path: Path) -> None:
    """COPY and RUN of the build stage, done in a folder instead of a container, leave a worker that starts."""
    (tmp_path / "src").mkdir()
    for instruction, rest in _instructions():
        _do(instruction, rest, tmp_path)
    shutil.rmtree(tmp_path / "src")  # as the last stage: what runs is the installed wheel
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    _help_of(["penstock", services["worker"]["command"][0]], tmp_path)
    verbs, options = services["topics"]["command"][:2], services["topics"]["command"][3::2]
    _knows(_help_of(["penstock", *verbs], tmp_path), options)
    simulated = services["model"]
    _knows(_help_of(simulated["entrypoint"], tmp_path), simulated["command"][::2])

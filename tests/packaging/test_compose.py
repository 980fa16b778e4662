"""docker-compose.yml: accepted by the specification's own loader, safe, and of one mind with the files it names."""

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.deploy_tools import ROOT, tool
from workers.settings.checks import check
from workers.settings.source import Loaded, load

COMPOSE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
ENV_FILES = sorted((ROOT / "config" / "deploy").glob("*.env"))
OURS = ("topics", "worker", "model")


def _variables(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _worker_environment(variables: dict[str, str]) -> dict[str, str]:
    """What the worker's container sees when compose reads these variables."""

    def substitute(found: re.Match[str]) -> str:
        return variables.get(found["name"]) or found["default"]

    pattern = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")
    return {name: pattern.sub(substitute, value) for name, value in SERVICES["worker"]["environment"].items()}


def _pipeline(variables: dict[str, str]) -> Loaded:
    return load(ROOT / "config" / "pipelines" / "compose.yaml", _worker_environment(variables))


def _seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration[:-1])


@pytest.mark.parametrize("env_file", [None, *ENV_FILES], ids=lambda file: file.name if file else "default")
def test_the_specification_accepts_the_file(env_file: Path | None) -> None:
    """The compose specification's own loader takes the file, with and without each set of variables."""
    environ = {"PATH": "/usr/bin:/bin"} | (_variables(env_file) if env_file else {})
    checked = subprocess.run(
        [tool("compose-check"), str(COMPOSE)],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert set(yaml.safe_load(checked.stdout)["services"]) == set(SERVICES)


@pytest.mark.parametrize("env_file", [None, *ENV_FILES], ids=lambda file: file.name if file else "default")
def test_the_pipeline_lints_clean(env_file: Path | None) -> None:
    """The worker's configuration has no error with the variables that compose gives it."""
    loaded = _pipeline(_variables(env_file) if env_file else {})
    assert [str(problem) for problem in check(loaded) if problem.severity == "error"] == []


@pytest.mark.parametrize("env_file", ENV_FILES, ids=lambda file: file.name)
def test_a_set_of_variables_points_at_its_own_model(env_file: Path) -> None:
    """Each env file starts one profile, names a service of it, and sets only variables that compose reads."""
    variables = _variables(env_file)
    url = urlsplit(variables["MODEL_URL"])
    assert url.hostname is not None
    assert SERVICES[url.hostname]["profiles"] == [variables["COMPOSE_PROFILES"]]
    assert variables["SIMULATED_MODELS"] == "0"
    read = set(re.findall(r"(?<!\$)\$\{(\w+):-", COMPOSE.read_text("utf-8"))) | {"COMPOSE_PROFILES"}
    assert set(variables) <= read


def test_every_port_is_published_on_loopback_only() -> None:
    """Nothing listens on the machine's other addresses."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_every_image_is_pinned() -> None:
    """Each foreign image has a version of its own; `latest` and moving tags are not taken."""
    images = {service["image"] for service in SERVICES.values()}
    foreign = images - {"penstock:local"}
    assert all(re.search(r":[a-z-]*v?\d+(\.\d+\.\d+)?$", image) for image in foreign)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_confined(name: str) -> None:
    """Numeric user, read-only root, no capability, no new privileges."""
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["tmpfs"][0].startswith("/tmp:")  # noqa: S108 - the container's
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_a_stopping_worker_is_given_its_drain() -> None:
    """`stop_grace_period` exceeds `drain_s` plus 5 s; a Docker that kills a draining worker makes duplicates."""
    settings = _pipeline({}).settings
    assert _seconds(SERVICES["worker"]["stop_grace_period"]) > settings.worker.drain_s + 5


def test_replicas_share_the_work_as_dynamic_members() -> None:
    """Two replicas of one service never have a `group_instance_id`, a name or a port of their own."""
    worker = SERVICES["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert _pipeline({}).settings.kafka.group_instance_id is None
    assert not {"container_name", "ports"} & set(worker)


def test_topics_are_made_by_the_worker_and_by_nobody_else() -> None:
    """The job creates input and outputs from the configuration the worker runs; the broker makes none by itself."""
    verb, what, config, *options = SERVICES["topics"]["command"]
    assert (verb, what, config) == ("topics", "create", SERVICES["worker"]["command"][1])
    assert options == ["--inputs", "12", "--replication-factor", "1"]
    ((_, task),) = _pipeline({}).settings.tasks.items()
    assert f"--topic {task.input[0]} " in SERVICES["fill"]["command"][0]
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_worker_is_reached_by_what_needs_it() -> None:
    """Broker address, model address and probes port are those of the other services."""
    settings = _pipeline({}).settings
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert "INTERNAL://kafka:9092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    model = urlsplit(settings.models["small"].all_endpoints()[0].url)
    assert (model.hostname, str(model.port)) == ("model", SERVICES["model"]["command"][3])
    assert f":{settings.worker.http.port}/readyz" in SERVICES["worker"]["healthcheck"]["test"][3]
    (scrape,) = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (dns,) = scrape["dns_sd_configs"]
    assert (dns["names"], dns["port"], settings.worker.http.host) == (["worker"], settings.worker.http.port, "0.0.0.0")  # noqa: S104 - inside compose


def test_every_mounted_path_exists() -> None:
    """A missing path would become an empty folder, silently."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    paths = [path for path in mounted if path.startswith(".")]
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_named_volume_is_declared() -> None:
    """Volumes used and volumes declared are the same."""
    used = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", []) if v[0] not in "./"}
    assert used == set(yaml.safe_load(COMPOSE.read_text("utf-8"))["volumes"])

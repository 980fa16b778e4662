"""`penstock topics` on a real Kafka."""

from pathlib import Path
from uuid import uuid4

from typer.testing import CliRunner

from tests.support.deployment import configuration
from tests.support.kafka import KafkaBroker
from workers.cli.topics import app


def invoke(*arguments: str) -> tuple[int, str]:
    """Run the command; return exit code and everything it printed."""
    ran = CliRunner().invoke(app, arguments)
    return ran.exit_code, ran.output


def configured(folder: Path, kafka: KafkaBroker, name: str) -> str:
    """Write a configuration with one task that reads the topic `name`."""
    tasks = {"triage": {"input": name}}
    url = "http://127.0.0.1:9"
    servers = kafka.bootstrap_servers
    return str(configuration(folder, bootstrap_servers=servers, group_id=name, url=url, tasks=tasks))


def test_create_then_check(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Missing topics are named; create makes them once, and then check finds nothing."""
    name = f"in-{uuid4().hex}"
    config = configured(tmp_path, kafka, name)
    code, said = invoke("check", config)
    assert code == 1
    assert said.count("missing") == 5
    code, said = invoke("create", config)
    assert code == 78
    assert f"no such input topic: {name}" in said
    code, said = invoke("create", config, "--inputs", "3", "--replication-factor", "1")
    assert (code, said.splitlines()[-1]) == (0, "5 created, 0 were there")
    code, said = invoke("check", config)
    assert (code, said) == (0, "5 topics are as they should be\n")
    code, said = invoke("create", config)
    assert (code, said) == (0, "0 created, 5 were there\n")


def test_refused_creation_says_why(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A replication factor that the cluster cannot give ends with 78 and the broker's reason."""
    config = configured(tmp_path, kafka, f"in-{uuid4().hex}")
    code, said = invoke("create", config, "--inputs", "1", "--replication-factor", "3")
    assert code == 78
    assert "InvalidReplicationFactorError" in said

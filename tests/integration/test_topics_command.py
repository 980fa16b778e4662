"""`penstock topics` on a real Kafka."""

from pathlib import Path
from uuid import uuid4

from typer.testing import CliRunner

from tests.support.deployment import configuration
from tests.support.kafka import KafkaBroker
from topics.spec import TopicSpec
from workers.cli.topics import app
from workers.settings.model import Kafka
from workers.stream import topic_admin
from workers.stream.survey import partition_counts


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


async def test_what_was_created_is_there(kafka: KafkaBroker) -> None:
    """Whoever comes directly after it finds the topics: it returns when they are known, not when they are decided."""
    settings = Kafka(bootstrap_servers=kafka.bootstrap_servers, group_id="g")
    for _ in range(5):
        specs = [TopicSpec(name=f"made-{uuid4().hex}", partitions=3, retention_s=60) for _ in range(5)]
        await topic_admin.create(settings, specs, replication_factor=1)
        assert await partition_counts(settings, [spec.name for spec in specs]) == {spec.name: 3 for spec in specs}


def test_refused_creation_says_why(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A replication factor that the cluster cannot give ends with 78 and the broker's reason."""
    config = configured(tmp_path, kafka, f"in-{uuid4().hex}")
    code, said = invoke("create", config, "--inputs", "1", "--replication-factor", "3")
    assert code == 78
    assert "InvalidReplicationFactorError" in said

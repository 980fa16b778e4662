"""`penstock dry-run`, installed, against both brokers and a simulated model; and that it leaves nothing behind."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.support.deployment import PENSTOCK, configuration
from tests.support.embedded import EmbeddedKafka
from tests.support.fault_server import FaultServer, answer, status
from tests.support.kafka import KafkaBroker
from tests.support.topics import New, committed, fresh_name, produce, read_all
from topics.spec import output_names
from workers.demo.processes import SimulatedModel

Broker = KafkaBroker | EmbeddedKafka
RUN_S = 90.0
PRIVATE = "kim@example.org"


@pytest.fixture(scope="module")
def model() -> Iterator[SimulatedModel]:
    """A simulated model that answers at once."""
    with SimulatedModel(latency="zero") as running:
        yield running


@pytest.fixture(autouse=True)
def _sound_model(model: SimulatedModel) -> None:
    """A test's fault ends with the test."""
    model.ok()


async def dry_run(config: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run the installed command; return its exit code and, by what was looked at, state and text of each check."""
    process = await asyncio.create_subprocess_exec(
        PENSTOCK, "dry-run", "--json", config, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_S)
    assert process.returncode is not None
    assert err == b""
    assert PRIVATE.encode() not in out
    checks = {one["about"]: (one["state"], f"{one['what']}. {one['todo']}") for one in json.loads(out)["checks"]}
    return process.returncode, checks


def states(checks: dict[str, tuple[str, str]], wanted: str) -> list[str]:
    """Return what ended in this state."""
    return [about for about, (state, _) in checks.items() if state == wanted]


async def made(broker: Broker, *values: bytes) -> str:
    """Create an input topic with these records, and its outputs; return its name."""
    topic = fresh_name("dry")
    await broker.create_topics(dict.fromkeys([topic, *output_names(topic, "triage").values()], 3))
    await produce(broker.bootstrap_servers, topic, [New(value=value) for value in values])
    return topic


def configured(folder: Path, broker: Broker, topic: str, url: str, **model: Any) -> Path:
    """Write a configuration whose one task reads the topic; its group has the topic's name."""
    tasks = {"triage": {"input": topic}}
    servers = broker.bootstrap_servers
    return configuration(folder, bootstrap_servers=servers, group_id=topic, url=url, tasks=tasks, model=model)


async def test_all_is_fine_and_nothing_is_left_behind(broker: Broker, model: SimulatedModel, tmp_path: Path) -> None:
    """Nothing fails; afterwards there is no commit, no group and no record in any output topic."""
    topic = await made(broker, *[b'{"mail": "%s %d"}' % (PRIVATE.encode(), n) for n in range(50)])
    code, checks = await dry_run(configured(tmp_path, broker, topic, model.url))
    assert (code, states(checks, "failed")) == (0, [])
    assert checks[f"records of {topic} for triage"] == ("ok", "20 of the 20 newest decode and render. ")
    assert "the answer is JSON by the schema" in checks[f"model small at {model.url} for triage"][1]
    untold = {"rights to write", f"group {topic}"} if isinstance(broker, EmbeddedKafka) else set()
    assert set(states(checks, "unknown")) == untold
    for output in output_names(topic, "triage").values():
        assert await read_all(broker.bootstrap_servers, output) == []
    assert len(await read_all(broker.bootstrap_servers, topic)) == 50
    assert await committed(broker.bootstrap_servers, topic, [topic]) == {}
    if isinstance(broker, KafkaBroker):
        assert topic not in await groups(broker)


async def groups(broker: Broker) -> set[str]:
    """Return the groups that the cluster knows."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        return {group[0] for group in await admin.list_consumer_groups()}
    finally:
        await admin.close()


async def topics(broker: Broker) -> list[str]:
    """Return the topics that the cluster has."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        names: list[str] = await admin.list_topics()
        return names
    finally:
        await admin.close()


async def test_missing_topics_are_named_and_not_created(
    kafka_jars: Path, model: SimulatedModel, tmp_path: Path
) -> None:
    """On a broker that creates what is asked for, every missing topic fails, is asked for, and is missing still."""
    del kafka_jars
    with KafkaBroker(tmp_path / "kafka", properties={"auto.create.topics.enable": "true"}) as broker:
        config = configured(tmp_path, broker, "nowhere", model.url)
        code, checks = await dry_run(config)
        assert code == 1
        wanted = ["nowhere", *output_names("nowhere", "triage").values()]
        assert states(checks, "failed") == [f"topic {name}" for name in wanted]
        assert f"penstock topics create {config} --inputs PARTITIONS" in checks["topic nowhere"][1]
        assert checks["group nowhere"][0] == "ok"
        assert not [name for name in await topics(broker) if name.startswith("nowhere")]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("401", "the API key is missing or wrong"),
        ("503", "wait until the server has loaded"),
        ("429", "too many requests"),
        ("garbage", "no model server"),
        ("reset", "does it speak http or https?"),
        ("hang", "no complete answer"),
    ],
)
async def test_a_model_that_fails(
    embedded: EmbeddedKafka, model: SimulatedModel, tmp_path: Path, mode: str, said: str
) -> None:
    """The one line about the model fails, with what it answered and what to do; all others are as before."""
    topic = await made(embedded, b"{}")
    model.fail(mode)
    code, checks = await dry_run(
        configured(tmp_path, embedded, topic, model.url, timeout_s=1 if mode == "hang" else 30)
    )
    about = f"model small at {model.url} for triage"
    assert (code, states(checks, "failed")) == (1, [about])
    assert said in checks[about][1]


async def test_answers_that_no_task_can_use(embedded: EmbeddedKafka, tmp_path: Path) -> None:
    """A server that ignores the schema, has another model or cuts the answer fails, each in its own words."""
    topic = await made(embedded, b"{}")
    unknown = status(404, {"error": {"message": "The model `x` does not exist.", "code": "model_not_found"}})
    for step, said in [
        (answer("I would say billing."), "answer_not_json"),
        (answer('{"category": "pizza"}'), "keep to a JSON Schema"),
        (answer('{"category": "bi', "length"), "raise models.small.max_tokens"),
        (answer(""), "the model said nothing"),
        (unknown, "mend models.small.model"),
        (status(404), "mend models.small.url"),
    ]:
        async with FaultServer(step) as server:
            code, checks = await dry_run(configured(tmp_path, embedded, topic, server.url))
            state, text = checks[f"model small at {server.url} for triage"]
        assert (code, state) == (1, "failed")
        assert said in text, text
        assert len(server.requests) == 1


async def test_a_template_that_real_records_break(
    embedded: EmbeddedKafka, model: SimulatedModel, tmp_path: Path
) -> None:
    """A name that no record has is found on the records themselves, of which nothing is printed."""
    topic = await made(embedded, *[b'{"mail": "%s"}' % PRIVATE.encode()] * 30)
    config = configured(tmp_path, embedded, topic, model.url)
    (tmp_path / "user.j2").write_text("A ticket:\n{{ record.text }}\n")
    code, checks = await dry_run(config)
    state, text = checks[f"records of {topic} for triage"]
    assert (code, state) == (1, "failed")
    assert text.startswith("0 of the 20 newest decode and render; 20 x template (line 2: UndefinedError")
    assert str(tmp_path / "user.j2") in text


async def test_without_a_broker_the_models_are_asked_all_the_same(model: SimulatedModel, tmp_path: Path) -> None:
    """No check stops another."""
    config = configuration(
        tmp_path, bootstrap_servers="127.0.0.1:1", group_id="g", url=model.url, tasks={"triage": {"input": "in"}}
    )
    code, checks = await dry_run(config)
    assert (code, states(checks, "failed")) == (1, ["broker 127.0.0.1:1"])
    assert "nothing listens at 127.0.0.1:1" in checks["broker 127.0.0.1:1"][1]
    assert checks[f"model small at {model.url} for triage"][0] == "ok"

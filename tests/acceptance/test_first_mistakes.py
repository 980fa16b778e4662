"""What a person gets wrong first: the installed command says what is wrong, where, and what to do."""

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.support.deployment import PENSTOCK, WorkerProcess, configuration, wait_for
from tests.support.fault_server import FaultServer, garbage, page, raw, status
from tests.support.kafka import KafkaBroker
from tests.support.settings_files import SOUND, planted, write_sound
from tests.support.topics import New, fresh_name, produce
from topics.spec import output_names
from workers.demo.processes import SimulatedModel

SAY_S = 90.0
NOWHERE = "127.0.0.1:1"
NO_MODEL = "http://127.0.0.1:1"
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""What an https server answers to plain http: a fatal alert, protocol_version (RFC 8446, section 6)."""


async def said(*arguments: object, folder: Path, **environ: str) -> tuple[int, list[str]]:
    """Run the installed command; return its exit code and every line it printed."""
    process = await asyncio.create_subprocess_exec(
        PENSTOCK,
        *map(str, arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), SAY_S)
    assert process.returncode is not None
    assert b"Traceback" not in out, out.decode()
    return process.returncode, out.decode().splitlines()


async def made(broker: KafkaBroker, *values: bytes) -> str:
    """Create an input topic with these records, and its outputs; return its name."""
    topic = fresh_name("first")
    await broker.create_topics(dict.fromkeys([topic, *output_names(topic, "triage").values()], 2))
    await produce(broker.bootstrap_servers, topic, [New(value=value) for value in values])
    return topic


def configured(folder: Path, servers: str, url: str = NO_MODEL, *, topic: str = "in", **settings: Any) -> Path:
    """Write a configuration with one task that reads the topic."""
    tasks = {"triage": {"input": topic}}
    return configuration(folder, bootstrap_servers=servers, group_id=topic, url=url, tasks=tasks, **settings)


# ------------------------------------------------------------------ in the configuration: 78 before anything is started

OPENAI = "most gateways speak `openai` as well"
DIALECTS = "'openai', 'vllm', 'llamacpp', 'tgi', 'ollama', 'completions' or 'custom'"

# What is replaced in the sound configuration, by what, and the sentence that must follow `file(line,col) `.
IN_THE_FILE = {
    "typo in a key": (
        "    model: small",
        "    model: small\n    «max_in_fligth: 9",
        "unknown key `max_in_fligth` in `tasks.triage`; did you mean `max_in_flight`?",
    ),
    "empty group": ("group_id: triage", "group_id: «''", "`kafka.group_id` must not be empty"),
    "environment": (
        "group_id: triage",
        "group_id: «${GROUP}",
        "the environment variable `GROUP` is not set: set it, or write a default, `${GROUP:default}`",
    ),
    "dialect": (
        "    model: tiny",
        "    model: tiny\n    dialect: «mistral",
        f"`models.small.dialect` must be one of {DIALECTS}; {OPENAI}",
    ),
    "model's name in the task": (
        "    model: small",
        "    model: «smal",
        "no model is called `smal`; did you mean `small`?",
    ),
    "URL without scheme": ("http://localhost:8000", "«localhost:8000", "a URL begins with http:// or https://"),
    "broker without port": (
        "localhost:9092",
        "«localhost",
        "brokers are host:port, separated by commas, without scheme, user name or password",
    ),
    "missing file": ("user: user.j2", "user: «usr.j2", "no such file: `{folder}/usr.j2`; did you mean `user.j2`?"),
    "missing folder": (
        "user: user.j2",
        "user: «prompts/user.j2",
        "no such file: `{folder}/prompts/user.j2`; there is no folder `{folder}/prompts`",
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_FILE)
async def test_a_mistake_in_the_configuration(mistake: str, tmp_path: Path) -> None:
    """The worker does not start: one line, at the place, with what to do."""
    old, new, what = IN_THE_FILE[mistake]
    text, (line, column) = planted(old, new)
    write_sound(tmp_path, text)
    code, lines = await said("run", "penstock.yaml", folder=tmp_path)
    expected = what.replace("{folder}", str(tmp_path))
    assert (code, lines) == (78, [f"penstock.yaml({line},{column}) {expected}"])


# Of a file that the configuration names: its content, and what must be said of it.
IN_A_NAMED_FILE = {
    "template's name": (
        "user.j2",
        "one\n{{ recrod }}",
        "user.j2(2,1) a template sees no `recrod`; did you mean `record`?",
    ),
    "template's syntax": ("user.j2", "{% if record %}", "user.j2(1,1) Unexpected end of template"),
    "schema": (
        "answer.json",
        '{"type": "oject"}',
        "answer.json(1,10) type: 'oject' is none of what JSON Schema allows here",
    ),
    "schema that is no JSON": ("answer.json", '{"type": }', "answer.json(1,10) is not JSON: "),
}


@pytest.mark.parametrize("mistake", IN_A_NAMED_FILE)
async def test_a_mistake_in_a_named_file(mistake: str, tmp_path: Path) -> None:
    """The place is in that file, not in the configuration."""
    file, content, what = IN_A_NAMED_FILE[mistake]
    write_sound(tmp_path)
    (tmp_path / file).write_text(content)
    code, lines = await said("run", "penstock.yaml", folder=tmp_path)
    assert (code, len(lines)) == (78, 1)
    assert lines[0].startswith(what)


@pytest.mark.parametrize(
    ("verb", "expected"), [("run", 78), ("dry-run", 78), ("echo", 78), ("topics check", 78), ("lint", 1)]
)
async def test_every_verb_says_the_same(verb: str, expected: int, tmp_path: Path) -> None:
    """One sentence for one mistake, whichever command meets it; so it is for a file that is not there."""
    write_sound(tmp_path, SOUND.replace("drain_s: 20", "drain_s: soon"))
    code, lines = await said(*verb.split(), "penstock.yaml", folder=tmp_path)
    assert (code, lines) == (expected, ["penstock.yaml(5,12) `worker.drain_s` must be a number, not text"])
    code, lines = await said(*verb.split(), "penstok.yaml", folder=tmp_path)
    assert (code, lines) == (expected, ["penstok.yaml(1,1) no such file"])


# ------------------------------------------------------------------ the cluster


@pytest.mark.parametrize(("verb", "expected"), [("dry-run", 1), ("topics check", 69), ("topics create", 69)])
async def test_no_broker(verb: str, expected: int, tmp_path: Path) -> None:
    """The address, that nothing listens there, and what to look at; no line of a library among it."""
    config = configured(tmp_path, NOWHERE, kafka={"startup_timeout_s": 1})
    code, lines = await said(*verb.split(), config, folder=tmp_path)
    assert code == expected
    assert [line for line in lines if f"nothing listens at {NOWHERE}: is the broker running" in line], lines
    assert verb == "dry-run" or len(lines) == 1


async def test_run_without_a_broker(tmp_path: Path) -> None:
    """The worker says why while it waits, not only when it gives up with 69."""
    config = configured(tmp_path, NOWHERE, kafka={"startup_timeout_s": 5})
    code, lines = await said("run", config, folder=tmp_path)
    logged = [orjson.loads(line) for line in lines]
    waiting = [line["why"] for line in logged if line["event"] == "broker_unreachable"]
    stopping = [line["reason"] for line in logged if line["event"] == "stopping"]
    assert code == 69
    assert len(stopping) == 1
    for sentence in (waiting[0], stopping[0]):
        assert f"nothing listens at {NOWHERE}: is the broker running, and is this its port?" in sentence


async def test_the_port_of_another_service(tmp_path: Path) -> None:
    """A port that answers, and not as Kafka does, is not called unreachable."""
    async with FaultServer(default=page()) as other:
        servers = other.url.removeprefix("http://")
        config = configured(tmp_path, servers, kafka={"startup_timeout_s": 1})
        code, lines = await said("dry-run", config, folder=tmp_path)
    assert code == 1
    assert [line for line in lines if line.startswith("FAILED  broker") and "the port of a Kafka broker?" in line], (
        lines
    )


async def test_tls_where_there_is_none(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A listener without TLS, asked with it, points to the protocol."""
    config = configured(
        tmp_path, kafka.bootstrap_servers, kafka={"security": {"protocol": "SSL"}, "startup_timeout_s": 1}
    )
    code, lines = await said("topics", "check", config, folder=tmp_path)
    assert code == 69
    assert "check kafka.security.protocol" in lines[0] or "(kafka.security.protocol)" in lines[0], lines


async def test_a_broker_that_gives_a_wrong_address(kafka_jars: Path, tmp_path: Path) -> None:
    """A broker in a container often names an address that only the container knows: that address is said."""
    del kafka_jars
    with KafkaBroker(tmp_path / "kafka", properties={"advertised.listeners": f"PLAINTEXT://{NOWHERE}"}) as broker:
        config = configured(tmp_path, broker.bootstrap_servers, kafka={"startup_timeout_s": 1})
        for verb, expected in [("run", 69), ("dry-run", 1), ("topics check", 69)]:
            code, lines = await said(*verb.split(), config, folder=tmp_path)
            what = f"the cluster names {NOWHERE} as a broker's address (advertised.listeners)"
            assert code == expected, lines
            assert [line for line in lines if what in line], lines


async def test_no_verb_creates_what_was_mistyped(kafka_jars: Path, tmp_path: Path) -> None:
    """Kafka's default is to create a topic that is asked for; no look of ours may do so."""
    del kafka_jars
    with KafkaBroker(tmp_path / "kafka", properties={"auto.create.topics.enable": "true"}) as broker:
        config = configured(tmp_path, broker.bootstrap_servers, topic="mistyped")
        for verb, expected in [("run", 78), ("topics check", 1), ("dry-run", 1), ("topics create", 78)]:
            code, lines = await said(*verb.split(), config, folder=tmp_path)
            assert code == expected, lines
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        names = await admin.list_topics()
        await admin.close()
        assert [name for name in names if name.startswith("mistyped")] == []


@pytest.mark.parametrize(
    ("verb", "expected", "what"),
    [
        ("run", 78, "create it, or run `penstock topics create CONFIG`"),
        ("dry-run", 1, "does not exist. To do: check the name, or `penstock topics create "),
        ("topics check", 1, "missing, or this user may not DESCRIBE it (input)"),
        ("topics create", 78, "check the name, or give --inputs PARTITIONS"),
    ],
)
async def test_no_topic(kafka: KafkaBroker, tmp_path: Path, verb: str, expected: int, what: str) -> None:
    """The topic's name, and the command that makes it."""
    topic = fresh_name("mistyped")
    config = configured(tmp_path, kafka.bootstrap_servers, topic=topic)
    code, lines = await said(*verb.split(), config, folder=tmp_path)
    assert code == expected
    assert [line for line in lines if topic in line and what in line], lines


# ------------------------------------------------------------------ the model

UNKNOWN_MODEL = {"error": {"message": "The model `tny` does not exist.", "code": "model_not_found"}}
ANSWERS = {
    "wrong model name": (status(404, UNKNOWN_MODEL), "mend models.small.model:"),
    "wrong key": (status(401, {"error": {"message": "bad key"}}), "mend models.small.api_key"),
    "wrong path": (status(404), "no such path: is `url` the root of a server that speaks this dialect?"),
    "login page": (page(), "a login page, or no model server"),
    "https server asked by http": (raw(TLS_ALERT), "does it speak http or https?"),
    "another protocol": (garbage(), "is a model server at this port"),
    "loading": (status(503, {"error": {"message": "Loading model", "code": 503}}), "wait until the server has loaded"),
}


@pytest.mark.parametrize("mistake", ANSWERS)
async def test_a_model_that_answers_otherwise(mistake: str, tmp_path: Path) -> None:
    """The dry run names the endpoint, what it answered, and the setting to mend."""
    step, what = ANSWERS[mistake]
    async with FaultServer(default=step) as server:
        config = configured(tmp_path, NOWHERE, server.url, kafka={"startup_timeout_s": 1})
        code, lines = await said("dry-run", config, folder=tmp_path)
        [line] = [line for line in lines if line.startswith(f"FAILED  model small at {server.url} for triage:")]
    assert code == 1
    assert what in line


async def test_no_model(tmp_path: Path) -> None:
    """Nothing listens at the model's URL: the URL, and to start it or to mend the setting."""
    code, lines = await said("dry-run", configured(tmp_path, NOWHERE), folder=tmp_path)
    [line] = [line for line in lines if line.startswith("FAILED  model")]
    assert code == 1
    assert f"cannot connect to {NO_MODEL}: Connection refused" in line
    assert "start the server, or mend models.small.url" in line


async def test_https_for_a_server_that_speaks_http(tmp_path: Path) -> None:
    """TLS that fails asks whether the server speaks it at all."""
    with SimulatedModel(latency="zero") as server:
        config = configured(tmp_path, NOWHERE, server.url.replace("http:", "https:"))
        code, lines = await said("dry-run", config, folder=tmp_path)
    [line] = [line for line in lines if line.startswith("FAILED  model")]
    assert code == 1
    assert "does it speak https?" in line


async def logged(config: Path, folder: Path, event: str) -> dict[str, Any]:
    """Run the worker until it logs this event; return the first such line."""
    with WorkerProcess(config, folder / "log") as worker:
        await asyncio.to_thread(wait_for, lambda: worker.log_lines(event), SAY_S, worker.tail)
        await asyncio.to_thread(worker.terminate)
        return worker.log_lines(event)[0]


async def test_run_with_a_wrong_model_name(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The log of the worker has the cause, not only that the endpoint is no longer asked."""
    topic = await made(kafka, b'{"text": "hello"}')
    async with FaultServer(default=status(404, UNKNOWN_MODEL)) as server:
        line = await logged(
            configured(tmp_path, kafka.bootstrap_servers, server.url, topic=topic), tmp_path, "breaker_opened"
        )
    assert (line["endpoint"], line["reason"]) == (server.url, "misconfigured")
    assert "the server does not have the configured model" in line["why"]


async def test_run_with_a_template_that_no_record_fits(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The log has the template's line and the name that is missing, and nothing of the record."""
    topic = await made(kafka, b'{"mail": "kim@example.org"}')
    config = configured(tmp_path, kafka.bootstrap_servers, topic=topic)
    (tmp_path / "user.j2").write_text("one\n{{ record.text }}\n")
    line = await logged(config, tmp_path, "dead_letter")
    assert (line["stage"], line["reason"]) == ("prompt", "template")
    assert line["why"] == "line 2: UndefinedError: 'dict object' has no attribute 'text'"
    assert "kim" not in (tmp_path / "log").read_text()


# ------------------------------------------------------------------ this machine


async def test_the_probes_port_is_taken(tmp_path: Path) -> None:
    """A second worker on one machine is told which setting gives it a port of its own."""
    async with FaultServer() as other:
        port = int(other.url.rpartition(":")[2])
        config = configured(tmp_path, NOWHERE, worker={"http": {"port": port}})
        code, lines = await said("run", config, folder=tmp_path)
    assert code == 78
    assert [line for line in lines if f"127.0.0.1:{port}" in line and "set worker.http.port" in line], lines

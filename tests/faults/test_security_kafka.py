"""The worker and a secured cluster: certificates that nobody should accept, a password that changes, least rights."""

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.support.deployment import DEFAULT, PENSTOCK, wait_for
from tests.support.fault_server import FaultServer, answer, status
from tests.support.least_rights import ROWS, Row, rights
from tests.support.secured_kafka import SecuredKafka, make_ca
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New, fresh_name
from topics.spec import output_names
from workers.errors import EX_UNAVAILABLE

SAID = answer(orjson.dumps(DEFAULT | {"category": "bug"}).decode())


def security(broker: SecuredKafka, listener: str, user: str, secret: Path, **more: Any) -> dict[str, Any]:
    """Return the `kafka` part of a configuration: SCRAM over TLS, with the password in a file."""
    known = {"protocol": "SASL_SSL", "ca_file": str(broker.ca_file), "sasl_mechanism": "SCRAM-SHA-512"}
    return {
        "bootstrap_servers": broker.servers(listener),
        "security": known | {"username": user, "password": f"${{file:{secret}}}"} | more,
        "send_timeout_s": 4,  # longer than the worker's look at the queue, every 2 s
        "metadata_max_age_s": 2,
    }


def user_with(broker: SecuredKafka, folder: Path, password: str) -> tuple[str, Path]:
    """Return a new user, without any right, and the file with its password."""
    user, secret = fresh_name("user"), folder / "password"
    secret.write_text(f"{password}\n")
    broker.set_password(user, password)
    return user, secret


# ------------------------------------------------------------------ certificates


@pytest.mark.fault("B13")
def test_no_certificate_but_the_right_one_is_accepted(secured: SecuredKafka, tmp_path: Path) -> None:
    """Expired, for another host, by an unknown authority: exit 69 with OpenSSL's reason and what to look at."""
    user, secret = user_with(secured, tmp_path, "word-of-nobody")
    stranger = make_ca(tmp_path, "stranger")
    cases = {
        "certificate has expired": ("EXPIRED", secured.ca_file),
        "IP address mismatch, certificate is not valid for '127.0.0.1'": ("ELSEWHERE", secured.ca_file),
        "self-signed certificate in certificate chain": ("SECURE", stranger),
    }
    started = {}
    for reason, (listener, ca_file) in cases.items():
        stand = Stand(secured, tmp_path / listener)
        kafka = security(secured, listener, user, secret, ca_file=str(ca_file)) | {"startup_timeout_s": 0.5}
        started[reason] = stand.worker({TASK: {"input": "in"}}, "http://127.0.0.1:9", kafka=kafka).start()
    for reason, worker in started.items():
        with_code = worker.exit_code()
        said = worker.tail()
        assert (with_code, reason in said) == (EX_UNAVAILABLE, True), said
        assert "check kafka.security.ca_file" in said
        assert "Traceback" not in said
        assert "word-of-nobody" not in said


# ------------------------------------------------------------------ a password that changes


def permitted(broker: SecuredKafka, user: str, topic: str, group: str) -> None:
    """Give a user the rights of the README over the topics of one task."""
    broker.allow(user, rights(topic, group, TASK))


@pytest.mark.fault("B12")
async def test_a_changed_password_is_read_again_and_until_then_nothing_is_ready(
    secured: SecuredKafka, simulate: Simulate, tmp_path: Path
) -> None:
    """Password changed on the cluster: 503, alive; then in the file: goes on by itself, nothing lost, no word shown."""
    stand, model = Stand(secured, tmp_path), simulate(latency="const:0.02")
    topic = await stand.create()
    user, secret = user_with(secured, tmp_path, "word-of-may")
    permitted(secured, user, topic, stand.group)
    await stand.put(topic, tickets(40))
    kafka = security(secured, "ROTATING", user, secret)
    with stand.worker({TASK: {"input": topic}}, model.url, kafka=kafka, worker={"log": {"level": "debug"}}) as worker:
        worker.wait_finished(40)
        secured.set_password(user, "word-of-june")  # open connections end within REAUTHENTICATION_S
        wait_for(lambda: "Authentication failed" in worker.log.read_text(), 60, worker.tail)
        wait_for(lambda: "no broker has answered" in worker.not_ready(), 60, worker.tail)
        assert worker.get("/livez")[0] == 200
        await stand.put(topic, tickets(40, start=40))
        secret.write_text("word-of-june\n")
        worker.wait_ready()
        worker.wait_finished(80)
        code, _ = worker.terminate()
    log = worker.log.read_text()
    assert code == 0, worker.tail()
    assert "word-of-" not in log
    found = await stand.verdict(topic)
    assert not found.lost
    assert not found.out_of_order
    assert found.by_kind == {"enriched": 80}


# ------------------------------------------------------------------ least rights


def verb(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of penstock."""
    return subprocess.run([PENSTOCK, *words, config], capture_output=True, text=True, timeout=120, check=False)


async def test_the_rights_of_the_readme_are_enough(secured: SecuredKafka, tmp_path: Path) -> None:
    """With them and no others: every kind of output, commits, `dry-run` and `topics check`."""
    stand = Stand(secured, tmp_path)
    topic = await stand.create()
    user, secret = user_with(secured, tmp_path, "word-of-least")
    permitted(secured, user, topic, stand.group)
    kafka = security(secured, "SECURE", user, secret)
    task = {"input": topic, "ladder": [{"review": {"max_per_hour": 1}}, {"default": DEFAULT}]}
    await stand.put(topic, [*tickets(5), New(key=b"a", value=b"not json"), New(key=b"b")])

    async def refuse_some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        refused = b"invoice 3" in server.requests[-1].body or b"invoice 4" in server.requests[-1].body
        return await (status(422) if refused else SAID)(reader, writer)

    async with FaultServer(default=refuse_some) as server:
        worker = stand.worker({TASK: task}, server.url, kafka=kafka)
        looked, checked = await asyncio.gather(
            asyncio.to_thread(verb, worker.config, "dry-run"), asyncio.to_thread(verb, worker.config, "topics", "check")
        )
        with worker:
            await asyncio.to_thread(worker.wait_finished, 7)
            assert (await asyncio.to_thread(worker.terminate))[0] == 0
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr
    written = {kind: len(await stand.read(topic, kind)) for kind in output_names(topic, TASK)}
    assert written == {"enriched": 4, "fallback": 3, "review": 1, "dlq": 1}  # the tombstone is in two
    assert await stand.committed(topic) == await stand.ends(topic)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
async def test_a_right_that_is_missing_is_told_as_the_readme_says(
    secured: SecuredKafka, tmp_path: Path, simulate: Simulate, row: Row
) -> None:
    """Each right taken away alone has the effect that its row names: nothing in the table is superfluous."""
    stand = Stand(secured, tmp_path)
    topic = await stand.create()
    user, secret = user_with(secured, tmp_path, "word-of-less")
    secured.allow(user, rights(topic, stand.group, TASK, [one for one in ROWS if one != row]))
    await stand.put(topic, tickets(3))
    (sentence,) = re.findall(r"`([^`]+)`", row[2])
    kafka = security(secured, "SECURE", user, secret)
    with stand.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url, kafka=kafka) as worker:
        if code := re.search(r"exit (\d+)", row[2]):
            assert worker.exit_code() == int(code[1]), worker.tail()
        else:
            worker.wait_finished(3)
            assert worker.terminate()[0] == 0
        assert sentence in worker.log.read_text(), worker.tail()
        assert "Traceback" not in worker.log.read_text()


async def test_seeing_an_input_is_not_reading_it(secured: SecuredKafka, tmp_path: Path) -> None:
    """DESCRIBE without READ on the input: exit 78 with the right to grant, and nothing is committed past it."""
    stand = Stand(secured, tmp_path)
    topic = await stand.create()
    user, secret = user_with(secured, tmp_path, "word-of-less")
    others = [row for row in ROWS if row[0] != "each input topic"]
    secured.allow(user, [(ResourceType.TOPIC, topic, AclOperation.DESCRIBE), *rights(topic, stand.group, TASK, others)])
    await stand.put(topic, tickets(3))
    kafka = security(secured, "SECURE", user, secret)
    with stand.worker({TASK: {"input": topic}}, "http://127.0.0.1:9", kafka=kafka) as worker:
        assert worker.exit_code() == 78, worker.tail()
        assert "grant READ on" in worker.log.read_text()
    assert await stand.committed(topic) == {}

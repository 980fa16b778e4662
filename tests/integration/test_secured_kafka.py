"""The worker on a cluster with TLS and SASL: certificate and password are checked, and the password stays secret."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import WorkerProcess
from tests.support.secured_kafka import PASSWORD, USER, SecuredKafka, make_ca
from tests.support.stand import TASK, Simulate, Stand, tickets
from workers.errors import EX_CONFIG, EX_UNAVAILABLE


def settings(
    broker: SecuredKafka, folder: Path, password: str = PASSWORD, *, startup_timeout_s: float = 2, **security: Any
) -> dict[str, Any]:
    """Return the `kafka` part of a configuration; the password is in a file, as a secret would be."""
    secret = folder / "password"
    secret.write_text(f"{password}\n")
    known = {"protocol": "SASL_SSL", "ca_file": str(broker.ca_file), "username": USER, "sasl_mechanism": "PLAIN"}
    return {
        "bootstrap_servers": broker.secure_servers,
        "security": known | {"password": f"${{file:{secret}}}"} | security,
        "startup_timeout_s": startup_timeout_s,
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_records_flow_over_tls_and_sasl(
    secured: SecuredKafka, simulate: Simulate, tmp_path: Path, mechanism: str
) -> None:
    """Consumer, producer, commits and admin requests all go over the secured listener; nothing prints the password."""
    stand = Stand(secured, tmp_path)
    topic, model = await stand.create(), simulate(latency="const:0.02")
    await stand.put(topic, tickets(100))
    kafka = settings(secured, tmp_path, startup_timeout_s=60, sasl_mechanism=mechanism)
    with stand.worker({TASK: {"input": topic}}, model.url, kafka=kafka) as worker:
        worker.wait_finished(100)
        assert worker.terminate()[0] == 0
        assert PASSWORD not in worker.log.read_text()
    assert not (found := await stand.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 100}
    assert await stand.committed(topic) == await stand.ends(topic)


def refused(worker: WorkerProcess) -> str:
    """Start a worker that must not come up; return what it says in the end."""
    with worker:
        assert worker.exit_code() in (EX_CONFIG, EX_UNAVAILABLE)
        said = worker.tail()
        assert "Traceback" not in said
        return said


async def test_a_wrong_password(secured: SecuredKafka, tmp_path: Path) -> None:
    """It ends with a sentence that names the password or its user, and prints neither word."""
    stand = Stand(secured, tmp_path)
    kafka = settings(secured, tmp_path, password="wrong-word")  # noqa: S106 - that it is wrong is the point
    said = refused(stand.worker({TASK: {"input": "in"}}, "http://127.0.0.1:9", kafka=kafka))
    assert "uthentication" in said
    assert "wrong-word" not in said


async def test_a_certificate_of_somebody_else(secured: SecuredKafka, tmp_path: Path) -> None:
    """A broker whose certificate another authority signed is not talked to."""
    stand = Stand(secured, tmp_path)
    kafka = settings(secured, tmp_path, ca_file=str(make_ca(tmp_path, "stranger")))
    said = refused(stand.worker({TASK: {"input": "in"}}, "http://127.0.0.1:9", kafka=kafka))
    assert "certificate" in said

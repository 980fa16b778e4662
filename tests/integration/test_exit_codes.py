"""A worker that cannot start says why in one sentence, and its exit code says whom to call."""

import socket

import pytest

from tests.support.deployment import WorkerProcess
from tests.support.stand import TASK, Stand
from tests.support.topics import fresh_name
from workers.errors import EX_CONFIG, EX_UNAVAILABLE

NOBODY = "http://127.0.0.1:9"


def ended(worker: WorkerProcess) -> tuple[int, str]:
    """Start it; return its exit code and what it said."""
    with worker:
        return worker.exit_code(), worker.tail()


async def test_no_broker(quick: Stand) -> None:
    """69 when no broker has answered within `startup_timeout_s`, with the address that was tried."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{held.getsockname()[1]}"
        kafka = {"bootstrap_servers": address, "startup_timeout_s": 1}
        code, said = ended(quick.worker({TASK: {"input": "in"}}, NOBODY, kafka=kafka))
    assert code == EX_UNAVAILABLE
    assert address in said


@pytest.mark.fault("O2")
async def test_a_missing_topic(real: Stand) -> None:
    """78, naming the topics that are missing and the command that creates them."""
    topic = fresh_name("in")
    await real.broker.create_topics({topic: 1, f"{topic}.{TASK}.enriched": 1, f"{topic}.{TASK}.dlq": 1})
    code, said = ended(real.worker({TASK: {"input": topic}}, NOBODY))
    assert code == EX_CONFIG
    assert f"no such topic: {topic}.{TASK}.fallback, {topic}.{TASK}.review;" in said
    assert "penstock topics create" in said
    assert await real.committed(topic) == {}, "it must not have joined the group"


@pytest.mark.fault("P10")
async def test_a_broken_configuration(quick: Stand) -> None:
    """78 with every problem at its file(line,col), before anything is connected to."""
    worker = quick.worker({TASK: {"input": "in", "ordr": "key", "max_in_flight": "many"}}, NOBODY)
    lines = worker.config.read_text().splitlines()
    wrong = [next(n for n, line in enumerate(lines, 1) if name in line) for name in ("ordr", "max_in_flight: many")]
    code, said = ended(worker)
    assert code == EX_CONFIG
    for line in wrong:
        assert f"penstock.yaml({line}," in said
    assert "Traceback" not in said


async def test_a_port_in_use(quick: Stand) -> None:
    """78, naming the address of the probes and the setting that changes it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = ended(quick.worker({TASK: {"input": "in"}}, NOBODY, worker={"http": {"port": port}}))
    assert code == EX_CONFIG
    assert f"127.0.0.1:{port}" in said
    assert "worker.http.port" in said

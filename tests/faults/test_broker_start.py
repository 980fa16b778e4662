"""A worker that finds no usable broker when it starts."""

import asyncio
import time
import urllib.error
import urllib.request

import pytest

from tests.support.deployment import wait_for
from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import free_ports
from tests.support.memory import rig_settings
from tests.support.stand import TASK, Stand
from workers.errors import EX_UNAVAILABLE, Exit
from workers.stream import cluster

STARTUP_TIMEOUT_S, SHORT_TIMEOUT_S = 6, 2
"""Of the first: time for two attempts, and for a probe between them, on a machine that is busy with something else."""
OFFSET_FETCH, COORDINATOR_LOADS = 9, 14


@pytest.mark.parametrize("address", ["127.0.0.1", "kafka.invalid"], ids=["wrong port", "name that is gone"])
@pytest.mark.fault("B11")
async def test_a_worker_that_finds_no_broker_is_never_ready(address: str, quick: Stand) -> None:
    """B11: it tries again until `startup_timeout_s` is over, says what it tried, and ends with 69."""
    nobody, port = free_ports(2)
    servers = f"{address}:{nobody}"
    kafka = {"bootstrap_servers": servers, "startup_timeout_s": STARTUP_TIMEOUT_S}
    began_s = time.monotonic()
    probed: list[int] = []
    with quick.worker(
        {TASK: {"input": "in"}}, "http://127.0.0.1:9", kafka=kafka, worker={"http": {"port": port}}
    ) as it:

        def ended() -> bool:
            code = probe(port)
            if code:
                probed.append(code)
            return it.running.poll() is not None

        await asyncio.to_thread(wait_for, ended, 120, it.tail)
        assert it.exit_code() == EX_UNAVAILABLE
        assert time.monotonic() - began_s >= STARTUP_TIMEOUT_S
        assert set(probed) == {503}
        assert servers in it.tail()
        assert it.log.read_text().count('"broker_unreachable"') >= 2


def probe(port: int) -> int:
    """The status of /readyz, 0 while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.fault("B11")
async def test_a_coordinator_that_is_away_ends_the_start_too(
    embedded: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B11: `start: latest` asks what the group has committed; the client would ask for ever."""
    monkeypatch.setattr(cluster, "SETTLE_S", 0.5)
    embedded.create_topic("in", 1)
    embedded.push_errors(OFFSET_FETCH, [COORDINATOR_LOADS] * 1_000)
    servers = {"bootstrap_servers": embedded.bootstrap_servers, "group_id": "g"}
    kafka = rig_settings({**servers, "start": "latest", "startup_timeout_s": SHORT_TIMEOUT_S}, {}).kafka
    with pytest.raises(Exit, match="GroupCoordinatorNotAvailable") as caught:
        await asyncio.wait_for(cluster.settle_start(kafka, ["in"], {"in": 1}), 60)
    assert caught.value.code == EX_UNAVAILABLE

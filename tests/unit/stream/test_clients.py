"""What our settings become in the client's words, and how long a start goes on trying."""

import asyncio
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    UnsupportedVersionError,
)

from tests.support.memory import rig_settings
from workers.errors import EX_CONFIG, EX_UNAVAILABLE, Exit
from workers.settings.model import HEARTBEAT_MAX_S, Kafka
from workers.stream import clients


def kafka(**settings: Any) -> Kafka:
    """Settings of a cluster that is not there."""
    return Kafka.model_validate({"bootstrap_servers": "127.0.0.1:1", "group_id": "g", **settings})


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_is_checked(protocol: str) -> None:
    """B13: certificate and host name are always checked, and nothing older than TLS 1.2 is spoken."""
    sasl = {"sasl_mechanism": "PLAIN", "username": "u", "password": "p"} if protocol == "SASL_SSL" else {}
    context = clients.client_options(kafka(security={"protocol": protocol, **sasl}))["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_encrypted_key_without_its_password_is_an_error(tmp_path: Path) -> None:
    """OpenSSL would ask for it on the terminal, and the worker would wait for a person to type."""
    command = "req -x509 -newkey rsa:2048 -days 2 -subj /CN=x -passout pass:secret -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    files = {"protocol": "SSL", "cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    with pytest.raises(ssl.SSLError):
        clients.client_options(kafka(security=files))
    assert clients.client_options(kafka(security={**files, "key_password": "secret"}))["ssl_context"]


def test_nothing_secret_is_sent_where_none_is_asked_for() -> None:
    """A plain cluster gets neither a context nor a mechanism."""
    assert clients.client_options(kafka()).keys().isdisjoint({"ssl_context", "sasl_mechanism", "sasl_plain_password"})


@pytest.mark.parametrize("session_timeout_s", [1.0, 6.0, 45.0])
async def test_a_session_survives_two_lost_heartbeats(session_timeout_s: float) -> None:
    """KIP-62: at most a third of the session."""
    assert kafka(session_timeout_s=session_timeout_s).heartbeat_s <= session_timeout_s / 3


async def test_a_long_session_is_no_reason_to_hear_late_of_a_rebalance() -> None:
    """W9: the partitions of a member that left are silent until another's heartbeat is answered."""
    assert kafka(session_timeout_s=45.0).heartbeat_s == HEARTBEAT_MAX_S <= 0.5


async def test_a_join_may_take_as_long_as_our_drain() -> None:
    """Others wait for our drain, and the request that joins must outlast that wait."""
    settings = rig_settings({}, {"drain_s": 50.0})
    consumer = clients.consumer(settings)
    assert consumer._rebalance_timeout_ms > 50_000
    assert consumer._request_timeout_ms > consumer._rebalance_timeout_ms
    assert not consumer._enable_auto_commit
    assert consumer._auto_offset_reset == "none"
    assert consumer._isolation_level == "read_committed"
    await consumer.stop()


class Attempts:
    """Fails as often as it was given errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        """Make one attempt."""
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "there"


async def test_a_start_waits_for_a_cluster_that_is_not_ready() -> None:
    """B11: no connection yet, or an election: it goes on trying."""
    attempt = Attempts(KafkaConnectionError(), GroupCoordinatorNotAvailableError(), OSError())
    assert await clients.until_reachable(kafka(), attempt) == "there"
    assert attempt.made == 4


@pytest.mark.fault("B11")
async def test_a_start_ends_when_no_broker_comes() -> None:
    """B11: exit code 69 when `startup_timeout_s` is over, not sooner, with a sentence that names the address."""
    attempt, began_s = Attempts(*(KafkaConnectionError() for _ in range(100))), time.monotonic()
    with pytest.raises(Exit, match=r"127\.0\.0\.1:1") as caught:
        await clients.until_reachable(kafka(startup_timeout_s=0.5), attempt)
    assert time.monotonic() - began_s >= 0.5
    assert caught.value.code == EX_UNAVAILABLE


async def test_a_start_does_not_try_again_without_the_right() -> None:
    """B8: exit code 78: a person has to grant it."""
    attempt = Attempts(GroupAuthorizationFailedError("g"))
    with pytest.raises(Exit, match="GroupAuthorizationFailed") as caught:
        await clients.until_reachable(kafka(), attempt)
    assert caught.value.code == EX_CONFIG
    assert attempt.made == 1


@pytest.mark.parametrize("error", [UnsupportedVersionError("x"), KafkaError("x")])
async def test_what_trying_cannot_mend_is_not_tried_again(error: KafkaError) -> None:
    """It is not known what it is: the start fails with it."""
    attempt = Attempts(error)
    with pytest.raises(type(error)):
        await clients.until_reachable(kafka(), attempt)
    assert attempt.made == 1


async def test_a_client_that_hangs_is_left_behind() -> None:
    """`quietly_closed` is bounded, and says whether it ended; what a client raises at its end interests nobody."""

    class Cancelled:
        async def close(self) -> None:
            raise asyncio.CancelledError

    class Failing:
        async def stop(self) -> None:
            raise KafkaError("x")

    class Hanging:
        async def close(self) -> None:
            await asyncio.Event().wait()

    assert not await clients.quietly_closed(Failing(), 5.0)
    assert not await clients.quietly_closed(Cancelled(), 5.0)
    assert not await clients.quietly_closed(Hanging(), 0.01)

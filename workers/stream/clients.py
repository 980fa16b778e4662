"""From our settings to aiokafka's clients: one place that knows aiokafka's option names and their units (ms)."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.group import LeaveGroupRequest
from pydantic import SecretStr

from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, EX_UNAVAILABLE, Exit
from workers.log import get_logger, hide
from workers.settings.model import Kafka, Security, Settings
from workers.settings.secret_file import reread
from workers.stream import broken_writes, fresh_credentials, header_names, quick_lz4
from workers.stream.diagnosis import why_unreachable

_MAX_POLL_INTERVAL_MS = 86_400_000
"""A full window simply does not poll; aiokafka must not take that for a dead worker. Heartbeats tell the broker."""

FETCH_MAX_BYTES_PER_PARTITION = 262_144
"""12 full partitions cost 14 MB with this, 24 MB with aiokafka's default (kafka.md (d))."""

REFUSED_RIGHTS = (ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)
"""A person has to grant them: trying again is of no use."""

_CANCELS_MAX = 3
LEAVE_S = 1.0

T = TypeVar("T")

log = get_logger(__name__)


class _TokenFile(AbstractTokenProvider):
    """A bearer token from a file that something else keeps fresh (a projected service-account token, a sidecar)."""

    def __init__(self, security: Security) -> None:
        self._security = security

    async def token(self) -> str:
        """Return the token as it is now; the log hides it before anyone has it."""
        path = self._security.oauth_token_file
        token = (await asyncio.to_thread(path.read_text)).strip() if path else ""
        hide(token)
        return token


def client_options(kafka: Kafka) -> dict[str, Any]:
    """Return the options that every aiokafka client takes: where the cluster is and who we are."""
    header_names.tolerate()  # whoever reads with these options reads every record
    broken_writes.tolerate()
    fresh_credentials.renew()
    security = kafka.security
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": kafka.client_id,
        "security_protocol": security.protocol,
        "metadata_max_age_ms": int(kafka.metadata_max_age_s * 1000),
    }
    if security.protocol.endswith("SSL"):
        files = [file for file in (security.ca_file, security.cert_file, security.key_file) if file is not None]
        options["ssl_context"] = fresh_credentials.watched(lambda: _tls(security), files)
    if security.sasl_mechanism:
        options["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = _TokenFile(security)
        elif security.sasl_mechanism == "GSSAPI":
            options["sasl_kerberos_service_name"] = security.kerberos_service_name
            options["sasl_kerberos_domain_name"] = security.kerberos_domain_name
        else:
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = fresh_credentials.password(security.password or SecretStr(""))
    return options


def _tls(security: Security) -> ssl.SSLContext:
    """Return a context that checks certificate and host name, and speaks TLS 1.2 or newer.

    Raises:
        OSError: a file cannot be read, or is no certificate or key.
    """
    context: ssl.SSLContext = create_ssl_context(
        cafile=_text(security.ca_file),
        certfile=_text(security.cert_file),
        keyfile=_text(security.key_file),
        # Without any password OpenSSL would ask for one on the terminal, and the worker would wait for ever.
        password=reread(security.key_password).get_secret_value() if security.key_password else "",
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def consumer(settings: Settings) -> AIOKafkaConsumer:
    """Return the group's consumer, not started. Offsets are ours: no auto-commit, reset `none`."""
    kafka = settings.kafka
    return AIOKafkaConsumer(
        **client_options(kafka),
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        partition_assignment_strategy=[StickyPartitionAssignor],
        session_timeout_ms=int(kafka.session_timeout_s * 1000),
        heartbeat_interval_ms=int(kafka.heartbeat_s * 1000),
        rebalance_timeout_ms=int(_rebalance_s(settings) * 1000),
        request_timeout_ms=int(request_timeout_s(settings) * 1000),
        max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=FETCH_MAX_BYTES_PER_PARTITION,
    )


def _rebalance_s(settings: Settings) -> float:
    """JoinGroup waits for our drain, and for the other members'."""
    return settings.worker.drain_s + 10


def request_timeout_s(settings: Settings) -> float:
    """Return how long the consumer waits for an answer at most: a JoinGroup's takes longest."""
    return _rebalance_s(settings) + 10


def producer(kafka: Kafka, *, max_batch_size_bytes: int, idempotent: bool = True) -> AIOKafkaProducer:
    """Return a producer, not started. An idempotent one never gives up by itself: waits are bounded by who calls."""
    quick_lz4.use()
    return AIOKafkaProducer(
        **client_options(kafka),
        enable_idempotence=idempotent,
        acks="all",
        compression_type="lz4",
        max_batch_size=max_batch_size_bytes,
        max_request_size=1 << 30,  # the topic's own limit decides, read at start
        request_timeout_ms=int(kafka.send_timeout_s * 1000),
    )


async def open_admin(kafka: Kafka) -> AIOKafkaAdminClient:
    """Return a started admin client.

    Raises:
        KafkaError: the cluster cannot be reached, or refuses us; retryable when it is a connection error.
    """
    admin = AIOKafkaAdminClient(**client_options(kafka))
    try:
        await admin.start()
    except BaseException:
        await quietly_closed(admin, 2.0)
        raise
    return admin


async def until_reachable(kafka: Kafka, attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt` gives, trying again while the cluster cannot be reached, or is not ready (elections).

    Raises:
        Exit: 69 after `startup_timeout_s` and not before, 78 when a right is missing.
    """
    ends_at_s = monotonic_s() + kafka.startup_timeout_s
    wait_s, why = 0.2, ""
    while True:
        try:
            return await attempt()
        except REFUSED_RIGHTS as exc:
            raise Exit(EX_CONFIG, f"the cluster refuses this user: {type(exc).__name__}: {exc}") from exc
        except (KafkaError, OSError) as exc:
            if isinstance(exc, KafkaError) and not exc.retriable:
                raise
            left_s = ends_at_s - monotonic_s()
            if left_s <= 0:
                tried = f" (tried for {kafka.startup_timeout_s:g} s)"
                raise Exit(EX_UNAVAILABLE, await no_broker(kafka, exc) + tried) from exc
            why = why or await no_broker(kafka, exc)
            pause_s = min(wait_s, left_s)
            log.warning("broker_unreachable", why=why, retry_in_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)
            wait_s = min(wait_s * 2, 5.0)


async def no_broker(kafka: Kafka, error: Exception) -> str:
    """Return why no broker could be used, and what to do about it; `error` is what aiokafka said."""
    why = await why_unreachable(client_options(kafka))
    if not why:
        why = f"{kafka.bootstrap_servers}: {type(error).__name__}; check kafka.bootstrap_servers and kafka.security"
    return f"no Kafka broker can be used: {why}"


async def end(producer: AIOKafkaProducer) -> None:
    """End a producer whose `stop` hangs (a partition without a leader, a broker that froze), in bounded time.

    Left alone its sender goes on, and delivers what it holds behind its successor's back, after newer records of the
    same keys. aiokafka has no public way to stop it; the version is pinned, and a test holds this one.
    """
    producer._message_accumulator.fail_all(KafkaError("the producer was ended"))  # noqa: SLF001 - see above
    sender = producer._sender.sender_task  # noqa: SLF001 - see above
    for _ in range(_CANCELS_MAX):  # it first waits for a request that is under way; cancelled again it does not
        sender.cancel()
        await asyncio.wait({sender}, timeout=0.1)
    await quietly_closed(producer.client, 2.0)


async def stop_in_rebalance(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer whose group is being assigned, and leave the group at once; a static member stays.

    `stop` alone waits for the JoinGroup under way, which waits for the other members, and LeaveGroup comes after that:
    who does not wait so long goes without a word, and the group is held up until its session is over. `stop` begins
    first: who hears that it is no member any more would join again.
    """
    await asyncio.gather(consumer.stop(), _leave_group(consumer))


async def _leave_group(consumer: AIOKafkaConsumer) -> None:
    """Say so, in bounded time.

    A broker answers one connection's requests in turn, so this one goes over another than the coordination's. The
    version is pinned, and a test holds this.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - see above
    if coordinator is None or consumer._group_instance_id is not None or not coordinator.member_id:  # noqa: SLF001 - see above
        return
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    with contextlib.suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(consumer._client.send(coordinator.coordinator_id, request), LEAVE_S)  # noqa: SLF001 - see above


async def quietly_closed(client: Any, timeout_s: float) -> bool:
    """Stop a client; a stop that hangs (broker down) is left behind after `timeout_s`. Return whether it ended."""
    closing = asyncio.ensure_future(client.close() if hasattr(client, "close") else client.stop())
    done, _ = await asyncio.wait({closing}, timeout=timeout_s)
    if not done:
        closing.cancel()
        return False
    if closing.cancelled():  # aiokafka awaits tasks that it has cancelled, and so ends as one when a broker is away
        return False
    return not isinstance(closing.exception(), KafkaError)

"""Why no broker can be used, in a sentence for a person: what aiokafka only logs, found out by connecting once more."""

import asyncio
import errno
import os
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

CONNECT_S = 3.0

_OF_CLIENTS = ("bootstrap_servers", "metadata_max_age_ms")
"""Options that clients take and single connections do not."""


async def why_unreachable(options: Mapping[str, Any]) -> str:
    """Return what is wrong with the first broker that cannot be used, and what to do; '' when all answer by now.

    Brokers are those of `bootstrap_servers`, then those that the cluster itself names (its `advertised.listeners`).
    `options` are those of a client (`clients.client_options`). Bounded by a few seconds per broker; every
    connection is closed again.
    """
    connection_options = {name: option for name, option in options.items() if name not in _OF_CLIENTS}
    connection_options["request_timeout_ms"] = int(CONNECT_S * 1000)
    advertised: list[tuple[str, int]] = []
    for host, port, _ in collect_hosts(options["bootstrap_servers"]):
        said = await _try(host, port, connection_options, advertised)
        if said:
            return said
    for host, port in dict.fromkeys(advertised):
        if said := await _try(host, port, connection_options, []):
            return f"the cluster names {host}:{port} as a broker's address (advertised.listeners), and there: {said}"
    return ""


async def _try(host: str, port: int, options: Mapping[str, Any], advertised: list[tuple[str, int]]) -> str:
    """Connect, authenticate and ask for the brokers' addresses; return what went wrong, '' when nothing did."""
    try:
        async with asyncio.timeout(2 * CONNECT_S):
            connection = await create_conn(host, port, **options)
            try:
                answer = await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (KafkaError, OSError) as exc:
        return explain(exc, f"{host}:{port}", str(options["security_protocol"]))
    advertised += [(broker[1], broker[2]) for broker in answer.brokers]
    return ""


def explain(error: Exception, broker: str, protocol: str) -> str:
    """Return what an error of one connection attempt means, and what to do about it."""
    encrypted = protocol.endswith("SSL")
    match error:
        case SaslAuthenticationFailed():
            what = f"{broker} refuses the credentials: check kafka.security.username and password (or the token)"
        case UnsupportedSaslMechanismError():
            what = f"{broker} does not take this mechanism: check kafka.security.sasl_mechanism"
        case ssl.SSLCertVerificationError():
            what = (
                f"the certificate of {broker} is refused ({error.verify_message}): check kafka.security.ca_file,"
                " and that bootstrap_servers has the host name of the certificate"
            )
        case ssl.SSLError() | ConnectionResetError() if encrypted:
            what = f"no TLS with {broker}: its listener may not be encrypted; check kafka.security.protocol"
        case OSError() if _refused(error):
            what = f"nothing listens at {broker}: is the broker running, and is this its port?"
        case TimeoutError() | KafkaConnectionError() | ConnectionResetError():
            what = _silent(broker, encrypted=encrypted, closed=not isinstance(error, TimeoutError))
        case OSError() if error.errno is not None and error.errno < 0:  # getaddrinfo's own numbers
            what = f"the host name of {broker} cannot be resolved: check kafka.bootstrap_servers"
        case OSError() if error.errno is not None:
            what = f"{broker}: {os.strerror(error.errno)}; check kafka.bootstrap_servers and the network"
        case _:
            what = f"{broker}: {type(error).__name__}"
    return what


def _refused(error: OSError) -> bool:
    """Whether nothing listens; of a name with several addresses asyncio joins the errors into the text of one."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _silent(broker: str, *, encrypted: bool, closed: bool) -> str:
    did = "closes the connection" if closed else "does not answer"
    other = "is its listener encrypted by TLS?" if encrypted else "its listener may expect TLS or SASL"
    return f"{broker} {did}: {other} (kafka.security.protocol), and is this the port of a Kafka broker?"

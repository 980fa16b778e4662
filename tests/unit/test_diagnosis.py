"""Each way in which a connection to a broker fails has its own sentence."""

import errno
import socket
import ssl

import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from workers.stream.diagnosis import explain

REFUSED = OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect call failed")


@pytest.mark.parametrize(
    ("error", "protocol", "what"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "PLAINTEXT", "nothing listens at b:1"),
        (REFUSED, "PLAINTEXT", "nothing listens at b:1"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "PLAINTEXT", "the host name of b:1 cannot be resolved"),
        (OSError(errno.EHOSTUNREACH, "x"), "PLAINTEXT", "b:1: No route to host"),
        (TimeoutError(), "PLAINTEXT", "b:1 does not answer: its listener may expect TLS or SASL"),
        (KafkaConnectionError("x"), "PLAINTEXT", "b:1 closes the connection: its listener may expect TLS or SASL"),
        (KafkaConnectionError("x"), "SASL_SSL", "b:1 closes the connection: is its listener encrypted by TLS?"),
        (ssl.SSLError("x"), "SSL", "no TLS with b:1"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "SSL", "no TLS with b:1"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "PLAINTEXT", "b:1 closes the connection: its listener may"),
        (ssl.SSLCertVerificationError("x"), "SSL", "check kafka.security.ca_file"),
        (SaslAuthenticationFailed("x"), "SASL_SSL", "b:1 refuses the credentials"),
        (UnsupportedSaslMechanismError("x"), "SASL_SSL", "check kafka.security.sasl_mechanism"),
        (IncompatibleBrokerVersion("x"), "PLAINTEXT", "b:1: IncompatibleBrokerVersion"),
    ],
)
def test_each_failure_has_its_sentence(error: Exception, protocol: str, what: str) -> None:
    """The broker is named; the foreign text, which may hold anything, is not quoted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    said = explain(error, "b:1", protocol)
    assert what in said
    assert "x" not in said.split()

"""The cluster: addresses, static membership, and credentials that fit their protocol."""

import importlib.util
import re
import ssl
from collections.abc import Iterator

from workers.settings import tree
from workers.settings.checks.files import unreadable
from workers.settings.model import Security
from workers.settings.problems import Problem
from workers.settings.source import Loaded

_INSTANCE_ID = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # KIP-345: as a topic name
_BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_PORT_MAX = 65_535
_AT: tree.Path = ("kafka", "security")


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the cluster's settings."""
    kafka = loaded.settings.kafka
    for broker in kafka.bootstrap_servers.split(","):
        found = _BROKER.fullmatch(broker.strip())
        if not found or not 0 < int(found[1]) <= _PORT_MAX:
            what = "brokers are host:port, separated by commas, without scheme, user name or password"
            yield loaded.problem(("kafka", "bootstrap_servers"), what)
            break
    if kafka.group_instance_id and not _INSTANCE_ID.fullmatch(kafka.group_instance_id):
        what = "a static member id is 1-249 letters, digits, `.`, `_` or `-`"
        yield loaded.problem(("kafka", "group_instance_id"), what)
    for name, what in _security_faults(kafka.security):
        yield loaded.problem((*_AT, name), what)
    if kafka.security.protocol == "SASL_PLAINTEXT" and kafka.security.sasl_mechanism == "OAUTHBEARER":
        what = "the bearer token crosses the network in clear: use SASL_SSL"
        yield loaded.problem((*_AT, "protocol"), what, severity="warning")
    for name, what in _certificate_faults(kafka.security):
        yield loaded.problem((*_AT, name), what)


def _security_faults(security: Security) -> Iterator[tuple[str, str]]:
    """Yield what does not go together, with the setting it is about."""
    uses_sasl = security.protocol.startswith("SASL_")
    mechanism = security.sasl_mechanism
    if uses_sasl and mechanism is None:
        yield "protocol", f"{security.protocol} needs a `sasl_mechanism`"
    if mechanism and not uses_sasl:
        yield "sasl_mechanism", f"{security.protocol} does not use it: the protocol must be SASL_SSL or SASL_PLAINTEXT"
    if mechanism == "PLAIN" and security.protocol == "SASL_PLAINTEXT":
        yield "sasl_mechanism", "PLAIN sends the password in clear: use SASL_SSL, or SCRAM"
    if mechanism == "PLAIN" or (mechanism or "").startswith("SCRAM"):
        for name in ("username", "password"):
            if getattr(security, name) is None:
                yield "sasl_mechanism", f"{mechanism} needs a `{name}`"
    elif security.username or security.password:
        given = "username" if security.username else "password"
        yield given, "unused: only PLAIN and SCRAM take a user name and a password"
    if mechanism == "OAUTHBEARER" and security.oauth_token_file is None:
        yield "sasl_mechanism", "OAUTHBEARER needs an `oauth_token_file`"
    if mechanism == "GSSAPI" and importlib.util.find_spec("gssapi") is None:
        yield "sasl_mechanism", "GSSAPI needs the Python package `gssapi`, which is not installed"
    yield from _tls_faults(security)


def _tls_faults(security: Security) -> Iterator[tuple[str, str]]:
    if security.cert_file and not security.key_file:
        yield "cert_file", "a client certificate needs its `key_file`"
    if security.key_file and not security.cert_file:
        yield "key_file", "a client key needs its `cert_file`"
    if not security.protocol.endswith("SSL"):
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(security, name):
                yield name, f"{security.protocol} does not use TLS: the protocol must be SSL or SASL_SSL"


def _certificate_faults(security: Security) -> Iterator[tuple[str, str]]:
    """Yield what the TLS library says about files that are there; `files` tells about the others."""
    if not security.protocol.endswith("SSL"):
        return
    password = security.key_password.get_secret_value() if security.key_password else ""
    if security.ca_file and not unreadable(security.ca_file):
        try:
            ssl.create_default_context(cafile=str(security.ca_file))
        except ssl.SSLError:
            yield "ca_file", "not a PEM file with certificates"
    certificate, key = security.cert_file, security.key_file
    if certificate and key and not unreadable(certificate) and not unreadable(key):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: password)
        except (ssl.SSLError, ValueError):
            yield "key_file", "certificate, key and `key_password` do not fit together, or are not PEM"

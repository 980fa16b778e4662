"""Credentials are read again for each connection, certificates are always checked, and what is weak is refused."""

import ssl
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.conn import AIOKafkaConnection

from tests.support.secured_kafka import make_ca, make_certificate, make_client_certificate
from tests.support.settings_files import SOUND, write_sound
from workers.cli.configuration import examine
from workers.cli.schema import editor_schema
from workers.log.redact import LEARNED_MAX, Redactor
from workers.settings.source import load
from workers.stream import fresh_credentials
from workers.stream.clients import client_options

OLD, NEW, LATER = "word-of-may", "word-of-june", "word-of-july"


def options(folder: Path, **security: Any) -> dict[str, Any]:
    """Return aiokafka's options for a secured cluster, the password in a file."""
    (folder / "password").write_text(OLD)
    known = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", "username": "u"}
    given = orjson.dumps(known | {"password": "${file:password}"} | security).decode()
    path = write_sound(folder, SOUND.replace("  group_id: triage", f"  group_id: triage\n  security: {given}"))
    made = client_options(load(path, environ={}).settings.kafka)
    return {name: made[name] for name in made if name.startswith(("sasl_", "ssl_", "security_"))}


async def test_each_connection_takes_the_password_of_its_moment(tmp_path: Path) -> None:
    """A connection that is made after the file has changed has the new password; the client's own stays as it was."""
    client = options(tmp_path)
    assert AIOKafkaConnection.connect is fresh_credentials.connect
    for password in (OLD, NEW, LATER):
        (tmp_path / "password").write_text(f"{password}\n")
        connection = AIOKafkaConnection("127.0.0.1", 9, **client)
        fresh_credentials.refresh(connection)
        assert connection._sasl_plain_password == password


async def test_each_connection_takes_the_certificate_of_its_moment(tmp_path: Path) -> None:
    """A renewed client certificate is taken up; unchanged files cost nothing; files in the middle of a change raise."""
    authority = make_ca(tmp_path, "ca")
    make_certificate(tmp_path)
    certificate, key = make_client_certificate(tmp_path, "client", "first")
    (tmp_path / "phrase").write_text("first")
    encrypted = {"key_password": "${file:phrase}"}
    files = {"ca_file": str(authority), "cert_file": str(certificate), "key_file": str(key)}
    client = options(tmp_path, protocol="SASL_SSL", **files, **encrypted)

    def context() -> ssl.SSLContext:
        connection = AIOKafkaConnection("127.0.0.1", 9, **client)
        fresh_credentials.refresh(connection)
        made: ssl.SSLContext = connection._ssl_context
        return made

    assert context() is client["ssl_context"]
    make_client_certificate(tmp_path, "client", "second")
    with pytest.raises(OSError):  # noqa: PT011 - the key is new, its passphrase is not: aiokafka tries again
        context()
    (tmp_path / "phrase").write_text("second")
    renewed = context()
    assert renewed is not client["ssl_context"]
    assert context() is renewed


def test_tls_checks_name_and_chain_and_speaks_no_old_version(tmp_path: Path) -> None:
    """Certificate required, host name checked, TLS 1.2 at least."""
    context = options(tmp_path, protocol="SASL_SSL", ca_file=str(make_ca(tmp_path, "ca")))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_no_setting_switches_a_check_off() -> None:
    """The schema has no key of that kind, and unknown keys are errors."""
    names = set(_names(editor_schema()))
    assert {"ca_file", "security"} <= names
    suspicious = ("verify", "insecure", "skip", "check_hostname", "tls_version", "ssl", "proxy", "trust", "redirect")
    assert not {name for name in names if any(word in name.lower() for word in suspicious)} - {"skip", "SkipRung"}


def _names(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for child in schema for name in _names(child)]
    if not isinstance(schema, dict):
        return []
    own = [name for part in ("properties", "$defs") for name in schema.get(part, {})]
    return own + [name for child in schema.values() for name in _names(child)]


@pytest.mark.parametrize(
    ("security", "said"),
    [
        (
            "{protocol: SASL_PLAINTEXT, sasl_mechanism: PLAIN, username: u, password: long-word}",
            "sends the password in",
        ),
        ("{protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: long-word, verify: false}", "verify"),
        ("{protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: abc}", "fewer than"),
    ],
    ids=["PLAIN without TLS", "verify: false", "a short password"],
)
def test_lint_refuses_what_is_weak(tmp_path: Path, security: str, said: str) -> None:
    """A password in clear, a check switched off, a secret too short to be kept out of the log."""
    text = SOUND.replace("  group_id: triage", f"  group_id: triage\n  security: {security}")
    _, problems = examine(write_sound(tmp_path, text), environ={})
    assert any(said in problem.what and problem.severity == "error" for problem in problems), problems


def test_secrets_that_come_and_go_fill_no_memory() -> None:
    """Of secrets that are learned later the newest are hidden, those of the start for ever."""
    redactor = Redactor(["of-the-start"])
    for number in range(2 * LEARNED_MAX):
        redactor.learn(f"token-{number:03}")
    hidden = [number for number in range(2 * LEARNED_MAX) if "token" not in redactor.text(f"token-{number:03}")]
    assert hidden == list(range(LEARNED_MAX, 2 * LEARNED_MAX))
    assert "of-the-start" not in redactor.text("of-the-start")

"""What the dry run says on a cluster with users and rights: a real broker with StandardAuthorizer and SASL/PLAIN."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.support.deployment import configuration, wait_for
from tests.support.kafka import KafkaBroker
from topics.spec import output_names
from workers import log
from workers.cli.dry_run import look
from workers.settings.model import Settings
from workers.settings.source import load

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        f'{LOGIN} username="admin" password="admin-word" user_admin="admin-word" user_penstock="right-word";'
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",  # the controller's own listener knows no users
}
OUTPUTS = output_names("in", "triage")
DENIED, HIDDEN = OUTPUTS["dlq"], OUTPUTS["review"]


@pytest.fixture(scope="module")
def secured(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker on which the user penstock may do all it needs, but write one output and see another."""
    del kafka_jars
    with KafkaBroker(tmp_path_factory.mktemp("secured"), properties=PROPERTIES) as running:
        admin = AdminClient(
            {
                "bootstrap.servers": running.bootstrap_servers,
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "admin",
                "sasl.password": "admin-word",
            }
        )
        names = ["in", "unread", *OUTPUTS.values()]
        for made in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
            made.result(60)
        readable = [
            allow(ResourceType.TOPIC, "in", AclOperation.READ),
            allow(ResourceType.GROUP, "g", AclOperation.READ),
        ]
        hints = [allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE) for name in ("unread", DENIED)]
        written = [name for name in OUTPUTS.values() if name not in (DENIED, HIDDEN)]
        writable = [allow(ResourceType.TOPIC, name, AclOperation.WRITE) for name in written]
        rights = [*readable, *hints, *writable]
        for granted in admin.create_acls(rights).values():
            granted.result(60)
        every = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        wait_for(lambda: len(admin.describe_acls(every).result(60)) == len(rights), 60)
        yield running


def allow(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    """Return a right of the user penstock."""
    permission = AclPermissionType.ALLOW
    return AclBinding(kind, name, ResourcePatternType.LITERAL, "User:penstock", "*", operation, permission)


def settings_for(
    folder: Path, broker: KafkaBroker, *, topic: str = "in", group: str = "g", **security: Any
) -> Settings:
    """Return settings as that user. The password crosses loopback in clear, which lint refuses: it is not asked."""
    given = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "penstock", "password": "right-word"}
    config = configuration(
        folder,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        url="http://127.0.0.1:9",
        tasks={"triage": {"input": topic, "topics": OUTPUTS}},
        kafka={"security": given | security},
    )
    return load(config, {}).settings


def found(settings: Settings) -> dict[str, tuple[str, str]]:
    """Return state and text of each check, but for the model's."""
    with log.silenced():
        findings = asyncio.run(look(settings, "c.yaml"))
    return {one.about: (one.state, f"{one.what}. {one.todo}") for one in findings if not one.about.startswith("model")}


def test_rights_are_told_without_writing(secured: KafkaBroker, tmp_path: Path) -> None:
    """What this user may do passes; an output that it may not write or see fails, with the right to give."""
    checks = found(settings_for(tmp_path, secured))
    failed = {about: text for about, (state, text) in checks.items() if state == "failed"}
    assert set(failed) == {"rights to write", f"topic {HIDDEN}"}, checks
    assert DENIED in failed["rights to write"]
    assert "allow WRITE" in failed["rights to write"]
    assert "allow DESCRIBE and WRITE" in failed[f"topic {HIDDEN}"]
    assert checks["group g"][0] == checks["rights to read in"][0] == checks["idempotent producer"][0] == "ok"


def test_a_topic_and_a_group_that_may_not_be_read(secured: KafkaBroker, tmp_path: Path) -> None:
    """READ on the input and on the group are two rights, and each is named."""
    checks = found(settings_for(tmp_path, secured, topic="unread", group="foreign"))
    assert checks["rights to read unread"][0] == "failed"
    assert "allow READ on the topic `unread`" in checks["rights to read unread"][1]
    assert checks["group foreign"] == ("failed", "this user may not join it. allow READ on the group `foreign`")


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"password": "wrong-word"}, "refuses the credentials: check kafka.security.username and password"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "check kafka.security.sasl_mechanism"),
        ({"protocol": "PLAINTEXT", "sasl_mechanism": None}, "its listener may expect TLS or SASL"),
        ({"protocol": "SASL_SSL"}, "check kafka.security.protocol"),
    ],
    ids=["password", "mechanism", "no SASL", "TLS"],
)
def test_a_user_who_is_not_let_in(secured: KafkaBroker, tmp_path: Path, security: dict[str, Any], said: str) -> None:
    """A wrong password, a wrong mechanism and a wrong protocol are told apart, and the password is not shown."""
    checks = found(settings_for(tmp_path, secured, **security))
    state, text = checks[f"broker {secured.bootstrap_servers}"]
    assert state == "failed"
    assert said in text, text
    assert "-word" not in text

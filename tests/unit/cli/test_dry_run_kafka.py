"""What the dry run says of a cluster that a survey saw."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from topics.spec import output_names
from workers.cli.dry_run_kafka import all_topics, group_finding, read_finding, topic_findings, write_findings
from workers.cli.findings import Finding
from workers.settings.model import Settings
from workers.stream.survey import DESCRIBE, READ, WRITE, GroupSeen, Survey, TopicSeen
from workers.stream.topic_admin import TopicState

OUTPUTS = list(output_names("in", "t").values())
MISSING = TopicSeen(partitions=0, error="UNKNOWN_TOPIC_OR_PARTITION", rights=None)
REFUSED = TopicSeen(partitions=0, error="TOPIC_AUTHORIZATION_FAILED", rights=None)
STATE = TopicState(partitions=6, max_message_bytes=1_048_588, cleanup_policy="delete")
SETTINGS = Settings.model_validate(
    {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"},
        "models": {"m": {"model": "x", "url": "http://127.0.0.1:1"}},
        "tasks": {
            "t": {
                "input": "in",
                "model": "m",
                "prompt": {"system": Path("s"), "user": Path("u")},
                "answer": {"text": {}},
            }
        },
    }
)


NOTHING: Mapping[str, TopicSeen] = {}


def topic(*operations: int) -> TopicSeen:
    """A topic of six partitions on which this user may do these things."""
    return TopicSeen(partitions=6, error="", rights=sum(1 << operation for operation in operations))


def seen(changes: Mapping[str, TopicSeen] = NOTHING, producer_error: str = "") -> Survey:
    """A survey in which all is fine, but for some topics (by the last part of their name)."""
    topics = dict.fromkeys(["in", *OUTPUTS], topic(READ, WRITE, DESCRIBE))
    topics |= {name: changes[name.rpartition(".")[2]] for name in topics if name.rpartition(".")[2] in changes}
    return Survey(cluster_id="c", brokers=1, topics=topics, group=GroupSeen(), producer_error=producer_error)


def of_topics(survey: Survey, **states: TopicState) -> dict[str, Finding]:
    """Return the findings about topics, by topic."""
    there = {name: STATE for name, one in survey.topics.items() if not one.error}
    there |= {name: states[name.rpartition(".")[2]] for name in there if name.rpartition(".")[2] in states}
    found = list(topic_findings(SETTINGS, survey, there, "c.yaml"))
    assert [one.about for one in found] == [f"topic {name}" for name in all_topics(SETTINGS)]
    return {one.about.removeprefix("topic "): one for one in found}


def test_topics_that_are_as_they_should_be() -> None:
    """Each topic is one line with its partitions and its limit."""
    found = of_topics(seen())
    assert {one.state for one in found.values()} == {"ok"}
    assert found["in"].what == "6 partitions, max.message.bytes 1048588"


@pytest.mark.parametrize(("name", "todo"), [("in", "--inputs PARTITIONS`"), ("in.t.dlq", "topics create c.yaml`")])
def test_a_missing_topic_comes_with_the_command_that_makes_it(name: str, todo: str) -> None:
    """The command has the configuration's own path, and for an input the option that it needs."""
    found = of_topics(seen({name.rpartition(".")[2]: MISSING}))
    assert [one for one, finding in found.items() if finding.state == "failed"] == [name]
    assert found[name].what == "does not exist"
    assert found[name].todo.endswith(todo)


def test_a_topic_that_is_hidden_from_this_user() -> None:
    """Kafka does not tell a forbidden topic from a missing one: both are named, with the rights that it takes."""
    assert of_topics(seen({"in": REFUSED}))["in"].todo == "check the name, and allow DESCRIBE and READ on it"
    found = of_topics(seen({"enriched": REFUSED}))["in.t.enriched"]
    assert (found.state, found.todo) == ("failed", "check the name, and allow DESCRIBE and WRITE on it")


def test_what_topics_check_finds_fails_here_too() -> None:
    """Partitions and limits are judged as `penstock topics check` does."""
    found = of_topics(seen(), enriched=TopicState(partitions=3), dlq=TopicState(partitions=6, max_message_bytes=1000))
    assert {name for name, one in found.items() if one.state == "failed"} == {"in.t.enriched", "in.t.dlq"}
    assert "3 partitions, its input has 6" in found["in.t.enriched"].what
    assert "max.message.bytes is 1000" in found["in.t.dlq"].what


def test_rights_to_write() -> None:
    """Failed names what may not be written, unknown that of which nobody tells; a missing topic is neither."""
    [rights, producer] = write_findings(SETTINGS, seen({"review": MISSING}))
    assert (rights.state, rights.what, producer.state) == ("ok", "3 output topics", "ok")
    [rights, _] = write_findings(SETTINGS, seen({"dlq": topic(READ, DESCRIBE)}))
    assert (rights.state, rights.what) == ("failed", "this user may not write in.t.dlq")
    [rights, _] = write_findings(SETTINGS, seen({"dlq": TopicSeen(partitions=6, error="", rights=None)}))
    assert rights.state == "unknown"
    assert rights.what.endswith(": in.t.dlq")


@pytest.mark.parametrize(
    ("error", "state"),
    [("", "ok"), ("CLUSTER_AUTHORIZATION_FAILED", "failed"), ("COORDINATOR_LOAD_IN_PROGRESS", "unknown")],
)
def test_the_producer(error: str, state: str) -> None:
    """Only a refusal of rights fails: what passes by itself is unknown."""
    assert list(write_findings(SETTINGS, seen(producer_error=error)))[-1].state == state


@pytest.mark.parametrize(
    ("group", "state"),
    [
        (GroupSeen(members=2, rights=1 << READ | 1 << DESCRIBE), "ok"),
        (GroupSeen(rights=1 << DESCRIBE), "failed"),
        (GroupSeen(error="GROUP_AUTHORIZATION_FAILED"), "failed"),
        (GroupSeen(error="COORDINATOR_NOT_AVAILABLE"), "unknown"),
        (GroupSeen(rights=None), "unknown"),
    ],
)
def test_the_group(group: GroupSeen, state: str) -> None:
    """Joining needs READ; describing alone is not enough."""
    assert group_finding("g", group).state == state


def test_reading() -> None:
    """A refused fetch fails, and so does a right that the cluster says is missing."""
    assert read_finding("in", topic(READ), "").state == "ok"
    assert read_finding("in", topic(DESCRIBE), "").state == "failed"
    assert read_finding("in", topic(READ), "the fetch was refused").what == "the fetch was refused"

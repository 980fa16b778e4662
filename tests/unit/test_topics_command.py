"""What `penstock topics` finds wrong, and what it would create."""

from pathlib import Path

import pytest
import typer

from topics.spec import KINDS, Kind, output_names
from workers.cli.topics import all_names, faults, missing
from workers.settings.model import Settings
from workers.stream.topic_admin import TopicState

GOOD = TopicState(partitions=6, max_message_bytes=1_048_588, cleanup_policy="delete")
OUTPUTS = output_names("in", "t")
STATES = {"in": GOOD, **dict.fromkeys(OUTPUTS.values(), GOOD)}


def make_settings(**task: object) -> Settings:
    """Return a configuration with one task `t` that reads `in`."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"},
            "models": {"m": {"model": "x", "url": "http://127.0.0.1:1"}},
            "tasks": {
                "t": {
                    "input": "in",
                    "model": "m",
                    "prompt": {"system": Path("s"), "user": Path("u")},
                    "answer": {"text": {}},
                    **task,
                }
            },
        }
    )


def test_nothing_wrong() -> None:
    """Outputs with as many partitions as the input and Kafka's defaults are fine."""
    assert list(faults(make_settings(), STATES)) == []
    assert set(all_names(make_settings())) == set(STATES)


def test_what_the_cluster_does_not_tell_is_no_fault() -> None:
    """Without the right to read configurations only existence and partitions are checked."""
    assert list(faults(make_settings(), dict.fromkeys(STATES, TopicState(partitions=6)))) == []


@pytest.mark.parametrize("name", sorted(STATES))
def test_missing_topic_is_named(name: str) -> None:
    """One line per missing topic, whether it is an input or an output."""
    [fault] = faults(make_settings(), {one: state for one, state in STATES.items() if one != name})
    assert fault.startswith(f"{name}: missing")


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("enriched", TopicState(partitions=3), "3 partitions, its input has 6"),
        ("fallback", TopicState(partitions=6, max_message_bytes=300_000), "an accepted record may need 327680"),
        ("dlq", TopicState(partitions=6, max_message_bytes=270_000), "an accepted record may need 278528"),
        ("dlq", TopicState(partitions=6, cleanup_policy="compact,delete"), "compaction would drop"),
        ("review", TopicState(partitions=6, cleanup_policy="compact"), "compaction would drop"),
    ],
)
def test_wrong_output_is_named(kind: Kind, state: TopicState, expected: str) -> None:
    """Partitions, size limit and compaction are compared with what the task needs."""
    name = OUTPUTS[kind]
    [fault] = faults(make_settings(), STATES | {name: state})
    assert fault.startswith(name)
    assert expected in fault


def test_escaped_text_needs_more() -> None:
    """Kafka's default limit is too small for 256 KiB of text that JSON has to escape."""
    found = list(faults(make_settings(input_format="text"), STATES))
    assert len(found) == len(KINDS) - 1
    assert all("max.message.bytes" in fault for fault in found)


DEFER = {"order": "none", "when_unavailable": "defer", "retry_delay_s": 600.0}
RETRY = "in.t.retry"


def test_a_task_that_defers_has_a_retry_topic() -> None:
    """It is created like an output, kept for a week, and looked for."""
    settings = make_settings(**DEFER)
    [spec] = missing(settings, STATES, input_partitions=0)
    assert (spec.name, spec.partitions, spec.retention_s) == (RETRY, 6, 7 * 86_400)
    [fault] = faults(settings, STATES)
    assert fault.startswith(f"{RETRY}: missing")
    assert list(faults(settings, STATES | {RETRY: GOOD})) == []
    assert set(all_names(settings)) == {*STATES, RETRY}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TopicState(partitions=6, retention_s=4_199.0), "keep them 7 times as long"),
        (TopicState(partitions=6, retention_s=4_200.0), ""),
        (TopicState(partitions=6, retention_s=-0.001), ""),  # for ever
        (TopicState(partitions=6, cleanup_policy="compact"), "compaction would drop"),
        (TopicState(partitions=6, max_message_bytes=270_000), "an accepted record may need 278528"),
    ],
)
def test_what_would_lose_waiting_records_is_named(state: TopicState, expected: str) -> None:
    """Retention and compaction of the retry topic remove what nobody has read yet."""
    found = list(faults(make_settings(**DEFER), STATES | {RETRY: state}))
    assert [expected in fault for fault in found] == ([True] if expected else [])


def test_compacted_enriched_topic_is_fine() -> None:
    """The last write of a key wins there, and order per key makes that right."""
    states = STATES | {OUTPUTS["enriched"]: TopicState(partitions=6, cleanup_policy="compact")}
    assert list(faults(make_settings(), states)) == []


def test_missing_outputs_get_the_inputs_partitions() -> None:
    """Only what is missing is created, with the input's partition count."""
    specs = missing(make_settings(), {"in": GOOD, OUTPUTS["dlq"]: GOOD}, input_partitions=0)
    assert {spec.name for spec in specs} == {OUTPUTS["enriched"], OUTPUTS["fallback"], OUTPUTS["review"]}
    assert {spec.partitions for spec in specs} == {6}


def test_inputs_are_created_only_when_told() -> None:
    """A missing input stops the command, unless its partitions are given."""
    with pytest.raises(typer.Exit) as stopped:
        missing(make_settings(), {}, input_partitions=0)
    assert stopped.value.exit_code == 78
    specs = missing(make_settings(), {}, input_partitions=4)
    assert specs[0].name == "in"
    assert {spec.partitions for spec in specs} == {4}


def test_shared_output_is_created_once() -> None:
    """Two inputs may share a dead-letter topic."""
    settings = make_settings(input=["in", "in2"], topics={"dlq": "dead"})
    specs = missing(settings, {"in": GOOD, "in2": GOOD}, input_partitions=0)
    assert [spec.name for spec in specs].count("dead") == 1

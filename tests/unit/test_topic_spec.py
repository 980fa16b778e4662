"""What topics Penstock wants."""

import pytest

from topics.spec import KAFKA_DEFAULT_MAX_MESSAGE_BYTES, KINDS, Kind, needed_bytes, output_names, specs_for


def test_names_default_to_input_task_kind() -> None:
    """`<input>.<task>.<kind>` unless one is given; an empty or missing override is none."""
    names = output_names("tickets.raw", "triage", {"dlq": "dead", "review": None})
    assert names == {
        "enriched": "tickets.raw.triage.enriched",
        "fallback": "tickets.raw.triage.fallback",
        "review": "tickets.raw.triage.review",
        "dlq": "dead",
    }


def test_specs_have_the_inputs_partitions_and_kafkas_settings() -> None:
    """As many partitions as the input; dead letters outlive a holiday; Kafka's own words and units."""
    specs = specs_for(output_names("in", "t"), partitions=6, max_input_bytes=262_144)
    assert set(specs) == set(KINDS)
    assert {spec.partitions for spec in specs.values()} == {6}
    assert specs["dlq"].retention_s > specs["enriched"].retention_s
    assert specs["enriched"].configs() == {
        "cleanup.policy": "delete",
        "retention.ms": "604800000",
        "max.message.bytes": str(KAFKA_DEFAULT_MAX_MESSAGE_BYTES),
    }


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [("enriched", False, 2_065_536), ("enriched", True, 12_065_536), ("dlq", True, 2_016_384)],
)
def test_outputs_are_larger_than_their_input(kind: Kind, *, text: bool, expected: int) -> None:
    """Wrapping adds, escaping text multiplies, a dead letter only gets headers."""
    assert needed_bytes(kind, max_input_bytes=2_000_000, text=text) == expected
    specs = specs_for(output_names("in", "t"), partitions=1, max_input_bytes=2_000_000, text=text)
    assert specs[kind].max_message_bytes == expected

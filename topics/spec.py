"""Topics as Penstock wants them: names, partitions, retention. What creates and checks them is `penstock topics`.

Output timestamps are the input's, so the retention of enriched and fallback counts from when the *input* was produced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from topics.headers import MAX_BYTES

Kind = Literal["enriched", "fallback", "review", "dlq", "retry"]
KINDS: tuple[Kind, ...] = ("enriched", "fallback", "review", "dlq")
"""The outputs that every task has."""
KINDS_WITH_RETRY: tuple[Kind, ...] = (*KINDS, "retry")
"""With `when_unavailable: defer` there is one more, which the task itself reads."""

_DAY_S = 86_400
RETENTION_S: Mapping[Kind, int] = {
    "enriched": 7 * _DAY_S,  # Kafka's own default (log.retention.hours=168)
    "fallback": 7 * _DAY_S,  # read side by side with enriched: the same
    "review": 30 * _DAY_S,  # people take holidays
    "dlq": 30 * _DAY_S,  # somebody mends, deploys, and only then replays
    "retry": 7 * _DAY_S,  # unread it must outlast any stop of the workers, as the input does
}

RETRY_DELAY_MAX_S = _DAY_S
"""A seventh of the retry topic's retention: what is removed before it is due and read is lost."""

KAFKA_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's `max.message.bytes` where nothing else is set: 1 MiB and a record batch's 12 bytes of log overhead."""

TEXT_ESCAPE_FACTOR = 6
"""JSON writes a control character of a text as `\\u0000`: one byte becomes six."""

OVERHEAD_BYTES = 64 << 10
"""Beside the input: headers (16 KiB), raw answer (2,048 characters, at worst 12 KiB), provenance, key, enrichment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic. `cleanup_policy` is Kafka's word: delete, compact or compact,delete."""

    name: str
    partitions: int
    retention_s: int
    cleanup_policy: str = "delete"
    max_message_bytes: int = KAFKA_DEFAULT_MAX_MESSAGE_BYTES

    def configs(self) -> dict[str, str]:
        """Return Kafka's topic configuration."""
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_s * 1000),
            "max.message.bytes": str(self.max_message_bytes),
        }


def output_names(
    input_topic: str,
    task: str,
    overrides: Mapping[Kind, str | None] | None = None,
    kinds: tuple[Kind, ...] = KINDS,
) -> dict[Kind, str]:
    """Return the names of the output topics of one input topic: `<input>.<task>.<kind>` unless overridden."""
    given = overrides or {}
    return {kind: given.get(kind) or f"{input_topic}.{task}.{kind}" for kind in kinds}


def needed_bytes(kind: Kind, *, max_input_bytes: int, text: bool = False) -> int:
    """Return the `max.message.bytes` below which a record that was accepted might not fit its output.

    A dead letter is not wrapped, only given headers; larger records than `max_input_bytes` land there as well, as stubs
    if need be. Neither is a deferred record.
    """
    wrapped = kind not in ("dlq", "retry")
    factor = TEXT_ESCAPE_FACTOR if text and wrapped else 1
    return max_input_bytes * factor + (OVERHEAD_BYTES if wrapped else MAX_BYTES)


def specs_for(
    names: Mapping[Kind, str], *, partitions: int, max_input_bytes: int, text: bool = False
) -> dict[Kind, TopicSpec]:
    """Return the output topics of one input topic. As many partitions as the input: then records keep theirs."""
    return {
        kind: TopicSpec(
            name=name,
            partitions=partitions,
            retention_s=RETENTION_S[kind],
            max_message_bytes=max(
                KAFKA_DEFAULT_MAX_MESSAGE_BYTES, needed_bytes(kind, max_input_bytes=max_input_bytes, text=text)
            ),
        )
        for kind, name in names.items()
    }

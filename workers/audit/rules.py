"""What the outputs are asked for, and what is known of the topics that were read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from topics.headers import SOURCE
from topics.shapes import Shape
from topics.spec import Kind
from workers.records import Record


def named_source(record: Record) -> str:
    """Return what an output of Penstock says of where it comes from, '' when it does not say; the last one counts."""
    for name, value in reversed(record.headers):
        if name == SOURCE:
            return (value or b"").decode("utf-8", "replace")
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is judged. `source_of` reads an output's source, so that the outputs of other workers can be judged too.

    `shape` None: values, headers and outcomes are not Penstock's, and not looked into. `check` says what is wrong with
    an enrichment, None when nothing is; with `schema_version` it is asked only about answers of that version. No
    canary may be in an output whose input does not have it. `others`: topics whose records share the outputs. `over`:
    the run is over, every record must have ended, and a commit that is given must be at the end. `latest`: the group
    began at the end of the topic, and nobody knows any more where that was. `max_span`: how far past the commit a
    worker looks. `cluster_id` None: the mark in commit metadata is believed.
    """

    source_of: Callable[[Record], str] = named_source
    order: Literal["key", "partition", "none"] = "key"
    shape: Shape | None = None
    check: Callable[[Any], str | None] | None = None
    schema_version: str = ""
    canaries: tuple[bytes, ...] = ()
    others: frozenset[str] = frozenset()
    over: bool = True
    latest: bool = False
    max_span: int = 10_000
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The offsets of one partition, as far as it was read: from `begin` (retention took what was before) to `end`."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """What is known of the topics besides their records. `cut`: output partitions whose first records are gone."""

    spans: Mapping[int, Span] = field(default_factory=dict)
    cut: frozenset[tuple[Kind, int]] = frozenset()
    compacted: frozenset[Kind] = frozenset()
    input_compacted: bool = False
    output_partitions: Mapping[Kind, int] = field(default_factory=dict)

"""Commits as they were seen from outside, and what they claim: that records are finished."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from topics.spec import KINDS, Kind
from workers.audit.partition import UNSEEN, Partition
from workers.stream.commit_metadata import Ignored, decode, fingerprint

Commit = tuple[int, str]
"""Committed offset and metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look: the group's commit for each input partition, taken first, and then where the outputs ended.

    `label` says at which occasion (a kill). No clock is needed: what was committed first must be in the outputs.
    """

    committed: Mapping[int, Commit]
    ends: Mapping[tuple[Kind, int], int]
    label: str = ""


class Ends:
    """Which sample is the first to show an output."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        every = {at for sample in samples for at in sample.ends}
        # What was seen once stays seen: an end may be told lower right after a leader moved.
        self._rising = {at: list(accumulate((one.ends.get(at, 0) for one in samples), max)) for at in every}

    def seen_from(self, kind: Kind, partition: int, offset: int) -> int:
        """Return the index of the first sample whose end is past this offset, UNSEEN when none is."""
        rising = self._rising.get((kind, partition), [])
        index = bisect_right(rising, offset)
        return index if index < len(rising) else UNSEEN


def claimed(commit: Commit | None, topic: str, partition: int, cluster_id: str | None) -> tuple[int, set[int]]:
    """Return what a commit calls finished: all offsets below the first number, and these past it."""
    if commit is None:
        return 0, set()
    offset, text = commit
    mark = text.split(":")[2] if cluster_id is None and text.count(":") > 2 else ""  # noqa: PLR2004 - its third field
    if cluster_id is not None:
        mark = fingerprint(cluster_id, topic, partition)
    try:
        return offset, decode(offset, text, mark)
    except Ignored:  # a worker does not believe it either
        return offset, set()


def early(
    samples: Sequence[Sample], number: int, partition: Partition, topic: str, cluster_id: str | None
) -> Iterator[tuple[int, int]]:
    """Yield (place, index of the sample) of records that a sample calls finished before the outputs show it.

    An output that is seen stays seen: only the first sample that claims a record has to be looked at.
    """
    below, looked_at, last = 0, set[int](), None
    for index, sample in enumerate(samples):
        if (commit := sample.committed.get(number)) == last:
            continue
        last = commit
        offset, past = claimed(commit, topic, number, cluster_id)
        first, below = below, max(below, bisect_left(partition.offsets, offset))
        places = [place for place in range(first, below) if partition.offsets[place] not in looked_at]
        places += [place for one in past - looked_at if (place := partition.place_of(one)) is not None]
        looked_at |= past
        for place in sorted(places):
            if place >= first and complete_from(partition, place) > index:
                yield place, index


def complete_from(partition: Partition, place: int) -> int:
    """Return the first sample that shows everything which had to be written before the record may count as finished."""
    seen = {kind: partition.seen_from[kind][place] for kind in KINDS}
    if partition.is_erased(place):
        return min(seen["dlq"], max(seen["enriched"], seen["fallback"]))
    if partition.flagged[place]:
        seen["fallback"] = max(seen["fallback"], seen["review"])
    return min(seen["enriched"], seen["fallback"], seen["dlq"], partition.deferred.get(place, UNSEEN))

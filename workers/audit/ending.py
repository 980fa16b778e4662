"""The end of the reckoning: of each input record, whether it has what it must have, and whether the commit is right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from topics.deadletters import REJECTED
from topics.enriched import ENRICHED, ERASED
from topics.fallbacks import FALLBACK
from topics.spec import Kind
from workers.audit.commits import Commit, Sample, claimed, early
from workers.audit.partition import NO_KEY, Partition
from workers.audit.rules import Rules, Topics
from workers.audit.verdict import Tally, Verdict

OUTCOMES: Mapping[Kind, tuple[str, ...]] = {
    "enriched": (ENRICHED, ERASED),
    "fallback": (FALLBACK, ERASED),
    "dlq": (REJECTED,),
}
"""The topics in which a record ends, and with which outcomes. A review copy is a copy, and no end."""

KINDS_OF_ENDS = tuple(OUTCOMES)
NEVER = 1 << 63


def belongs(kind: Kind, outcome: str, *, erased: bool) -> bool:
    """Return whether an output with this outcome may be in a topic of this kind; only a tombstone may be erased."""
    return outcome in OUTCOMES[kind] and (kind == "dlq" or (outcome == ERASED) == erased)


def is_later(partition: Partition, place: int, kind: Kind) -> bool:
    """Return whether the output that was just noted is not the first outcome of its record."""
    return sum(partition.counts[one][place] for one in KINDS_OF_ENDS) > 1 or kind == "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """One input partition, all outputs of which were read."""

    topic: str
    number: int
    partition: Partition
    rules: Rules
    topics: Topics
    first_left: Mapping[tuple[Kind, int, int], int]
    samples: Sequence[Sample]

    def into(self, verdict: Verdict, commits: Mapping[int, Commit] | None) -> None:
        """Add what is found to the verdict."""
        partition, tally = self.partition, Tally(records=len(self.partition.offsets))
        commit = None if commits is None else commits.get(self.number)
        below, past = claimed(commit, self.topic, self.number, self.rules.cluster_id)
        begins = self._begins()
        last = self._last_of_keys()
        for place, offset in enumerate(partition.offsets):
            self._count(verdict, place)
            is_claimed = offset < below or offset in past
            if self._is_complete(place):
                tally.finished += 1
                tally.past_commit += not is_claimed
            elif not self.rules.over and (not is_claimed or place in partition.waiting):
                tally.waiting += 1
            elif offset < begins or self._may_be_gone(place, offset, last):
                verdict.unjudged["records without an outcome, which they may have had (see what was cut)"] += 1
            else:
                verdict.lost.append(self._source(place))
        self._samples_into(verdict, begins)
        self._commit_into(verdict, commits, commit)
        tally.commit = commit[0] if commit else None
        verdict.inputs += tally.records
        verdict.partitions[self.number] = tally

    def _source(self, place: int) -> str:
        return f"{self.topic}/{self.number}/{self.partition.offsets[place]}"

    def _is_complete(self, place: int) -> bool:
        counts = self.partition.counts
        if self.partition.is_erased(place):
            return bool(counts["dlq"][place] or (counts["enriched"][place] and counts["fallback"][place]))
        copied = counts["review"][place] >= min(1, self.partition.flagged[place])
        return any(counts[kind][place] for kind in KINDS_OF_ENDS) and copied

    def _count(self, verdict: Verdict, place: int) -> None:
        """Note in which kind of topic a record ended, and what it has too many of."""
        counts = {kind: self.partition.counts[kind][place] for kind in KINDS_OF_ENDS}
        if self.partition.is_erased(place):
            counts["fallback"] = max(0, counts["fallback"] - 1) if counts["enriched"] else counts["fallback"]
        kinds = [kind for kind, count in counts.items() if count]
        if kinds:
            verdict.by_kind[kinds[0]] += 1
        copies, flagged = self.partition.counts["review"][place], self.partition.flagged[place]
        verdict.review_copies += copies
        extra = max(0, sum(counts.values()) - 1) + max(0, copies - max(flagged, 1 if not kinds else 0))
        if extra and self.rules.shape is None:
            extra = max(0, sum(counts.values()) - 1)
        if extra:
            verdict.repeated[self._source(place)] = extra
        if len(kinds) > 1 and not self.partition.is_erased(place):
            verdict.in_two_kinds.append(self._source(place))

    def _begins(self) -> int:
        """Return the first offset that the group must have done."""
        if not self.rules.latest:
            return 0
        done = (
            offset
            for place, offset in enumerate(self.partition.offsets)
            if any(self.partition.counts[kind][place] for kind in KINDS_OF_ENDS)
        )
        return next(done, NEVER)

    def _last_of_keys(self) -> set[int]:
        """Return the places that compaction of an output leaves: the last record of each key."""
        if not self.topics.compacted & {"enriched", "fallback", "dlq"}:
            return set()
        lasts = {key: place for place, key in enumerate(self.partition.keys) if key != NO_KEY}
        return {place for place in lasts.values() if self.partition.sizes[place] >= 0}

    def _may_be_gone(self, place: int, offset: int, last: set[int]) -> bool:
        """Return whether the record's outcome may have been written and removed since."""
        if self.topics.compacted and self.partition.keys[place] != NO_KEY and place not in last:
            return True
        return any(offset < self._judged_from(kind, output) for kind, output in self._cuts())

    def _cuts(self) -> Iterator[tuple[Kind, int]]:
        """Yield the output partitions that lost records and where this partition's outcomes may have been."""
        same_count = len(self.topics.spans) or None
        for kind, output in self.topics.cut:
            if self.topics.output_partitions.get(kind) != same_count or output == self.number:
                yield kind, output

    def _judged_from(self, kind: Kind, output: int) -> int:
        """Return from where on nothing is gone: what was written before has offsets less than a span further."""
        first = self.first_left.get((kind, output, self.number))
        return NEVER if first is None else first + self.rules.max_span

    def _samples_into(self, verdict: Verdict, begins: int) -> None:
        found = early(self.samples, self.number, self.partition, self.topic, self.rules.cluster_id)
        for place, index in found:
            if self.partition.offsets[place] < begins:
                continue
            if not verdict.early:
                sample = self.samples[index]
                verdict.first_early = f"sample {index}" + (f", {sample.label}" if sample.label else "")
            verdict.early.append(self._source(place))

    def _commit_into(self, verdict: Verdict, commits: Mapping[int, Commit] | None, commit: Commit | None) -> None:
        if commits is None or not self.rules.over:
            return
        end = self.partition.end
        if end is None:
            end = self.partition.offsets[-1] + 1 if self.partition.offsets else 0
        told = commit[0] if commit else 0
        if told != end and (end > self.partition.begin or commit):
            verdict.uncommitted.append(f"{self.topic}/{self.number} ({told} of {end})")

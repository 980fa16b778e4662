"""The oracle: inputs are folded into a few bytes each, outputs are held against them as they are read, and judged."""

from collections.abc import Iterable, Mapping, Sequence

from topics import requests, retries
from topics.spec import KINDS, Kind
from workers.audit import contents, ending
from workers.audit.commits import Commit, Ends, Sample
from workers.audit.order import broken_order
from workers.audit.partition import Partition
from workers.audit.rules import Rules, Topics
from workers.audit.verdict import Verdict
from workers.records import Record

Place = tuple[int, int]
"""Number of an input partition, place of a record in it."""


def coordinates(source: str) -> tuple[str, int, int]:
    """Return topic, partition and offset of a source; -1 for what is no number."""
    topic, partition, offset = ["", "", *source.rsplit("/", 2)][-3:]
    return topic, _number(partition), _number(offset)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else -1


def judge(  # noqa: PLR0913 - each is a thing that may be known or not, all but the first two by name
    inputs: Iterable[Record],
    outputs: Mapping[Kind, Iterable[Record]],
    *,
    rules: Rules | None = None,
    samples: Sequence[Sample] = (),
    commit: Mapping[int, Commit] | None = None,
    topics: Topics | None = None,
    topic: str = "",
) -> Verdict:
    """Compare an input topic with its output topics, each partition in the order of its offsets, read to their ends."""
    came = list(inputs)
    oracle = Oracle(topic or (came[0].topic if came else ""), rules or Rules(), samples=samples, topics=topics)
    for record in came:
        oracle.add_input(record)
    for kind in KINDS:
        for record in outputs.get(kind, ()):
            oracle.add_output(kind, record)
    return oracle.verdict(commit)


class Oracle:
    """One input topic. First every input record, then every output record, then the verdict."""

    def __init__(
        self, topic: str, rules: Rules, *, samples: Sequence[Sample] = (), topics: Topics | None = None
    ) -> None:
        self._topic = topic
        self._rules = rules
        self.topics = topics or Topics()
        """May be learned later: before the outputs are added, and once more before the verdict."""
        self._samples = samples
        self._ends = Ends(samples)
        self._partitions: dict[int, Partition] = {}
        self._replays: dict[str, list[Place]] = {}
        self._first_left: dict[tuple[Kind, int, int], int] = {}
        self._sealed = False
        self._verdict = Verdict()

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = Partition(erased_twice=self._rules.shape is not None)
        return self._partitions[number]

    def add_input(self, record: Record) -> None:
        """Fold an input record; those of a partition come in the order of their offsets."""
        partition = self._partition(record.partition)
        place = partition.add(record)
        if record.headers and (origin := requests.decode(record.headers).origin):  # its outputs name that
            partition.replayed.add(place)
            self._replays.setdefault(origin, []).append((record.partition, place))
        if self._rules.canaries and contents.holds_canary(record, self._rules.canaries):
            partition.secret.add(place)

    def add_output(self, kind: Kind, record: Record) -> None:
        """Hold an output record against its input; those of a partition come in the order of their offsets."""
        if not self._sealed:
            self._seal()
        source = self._rules.source_of(record)
        found = self._find(source, kind)
        name = source or f"{record.source} (no source header)"
        if contents.holds_canary(record, self._rules.canaries) and not self._had_canary(found, record):
            self._verdict.leaked.append(name)
        if found is None:
            self._note_stranger(source, name)
            return
        number, place = found
        partition = self._partitions[number]
        self._first_left.setdefault((kind, record.partition, number), partition.offsets[place])
        seen_from = self._ends.seen_from(kind, record.partition, record.offset) if self._samples else 0
        before = partition.note(kind, place, seen_from)
        self._check(kind, record, source, found)
        if not before and self._rules.order != "none":
            self._check_order(kind, record, source, found)

    def add_deferred(self, record: Record, *, waits: bool) -> None:
        """Hold a record of the retry topic against its input. It is no outcome; `waits`: nor is it finished there."""
        if not self._sealed:
            self._seal()
        retry = retries.decode(record.headers)
        if retry is None:
            self._verdict.unknown.append(f"{record.source} (not deferred by Penstock)")
            return
        came_from = f"{retry.topic}/{retry.partition}/{retry.offset}"
        partition = self._partitions.get(retry.partition) if retry.topic == self._topic else None
        place = None if partition is None else partition.place_of(retry.offset)
        if partition is None or place is None:
            self._note_stranger(came_from, came_from)
            return
        seen_from = self._ends.seen_from("retry", record.partition, record.offset) if self._samples else 0
        partition.note_deferred(place, seen_from, waits=waits)
        if not partition.has_key(place, record.key):
            self._verdict.key_changed.append(came_from)
        headers = retries.originals(record.headers)
        if not partition.has_value(place, record.value) or not partition.has_headers(place, headers, stub=False):
            self._verdict.altered.append(came_from)

    def _seal(self) -> None:
        self._sealed = True
        for number, span in self.topics.spans.items():
            partition = self._partition(number)
            partition.begin, partition.end = span.begin, span.end
        for partition in self._partitions.values():
            partition.seal()

    def _find(self, source: str, kind: Kind) -> Place | None:
        """Return the record that an output names; of several of one origin, the first that still waits for one."""
        own = self._own(source)
        if source not in self._replays:
            return own
        same = [*([own] if own else []), *self._replays[source]]
        return next((place for place in same if self._waits(place, kind)), same[-1])

    def _own(self, source: str) -> Place | None:
        """Return the record that stands where the source says, and is not a replay of another."""
        topic, number, offset = coordinates(source)
        partition = self._partitions.get(number) if topic == self._topic else None
        place = None if partition is None else partition.place_of(offset)
        if place is None or partition is None or place in partition.replayed:
            return None
        return number, place

    def _waits(self, at: Place, kind: Kind) -> bool:
        partition = self._partitions[at[0]]
        if partition.is_erased(at[1]) or kind == "review":
            return not partition.counts[kind][at[1]]
        return not any(partition.counts[one][at[1]] for one in ending.KINDS_OF_ENDS)

    def _had_canary(self, found: Place | None, record: Record) -> bool:
        """Return whether the input had it in its own value, and nothing but the value has it now."""
        if found is None or contents.in_headers(record, self._rules.canaries):
            return False
        return found[1] in self._partitions[found[0]].secret

    def _note_stranger(self, source: str, name: str) -> None:
        """An output of no record that is there: retention took it, it is of another topic, or there never was one."""
        topic, number, offset = coordinates(source)
        if topic in self._rules.others and topic != self._topic:
            return
        known = self._partitions.get(number) if topic == self._topic else None
        gone = known is not None and 0 <= offset < known.begin
        dropped = known is not None and self.topics.input_compacted and 0 <= offset < (known.end or 0)
        if gone or dropped:
            self._verdict.unjudged["outputs whose input is gone (retention or compaction)"] += 1
        else:
            self._verdict.unknown.append(name)

    def _check(self, kind: Kind, record: Record, source: str, found: Place) -> None:
        """Look whether the output is what it has to be."""
        partition, place = self._partitions[found[0]], found[1]
        verdict, rules = self._verdict, self._rules
        if not partition.has_key(place, record.key) and not contents.is_long_key_of_stub(kind, record):
            verdict.key_changed.append(source)
        if rules.shape is None:
            return
        seen = contents.read(kind, record, rules)
        if seen.flagged:
            partition.flagged[place] = min(255, partition.flagged[place] + 1)
        if kind in ending.OUTCOMES and not ending.belongs(kind, seen.outcome, erased=partition.is_erased(place)):
            verdict.misfiled.append(source)
            return
        if (end := seen.end) is not None and not ending.is_later(partition, place, kind):
            verdict.ends[end] += 1
        if seen.forged:
            verdict.forged.append(source)
        if seen.invalid:
            verdict.invalid.append(source)
        elif not contents.same(seen, partition, place):
            verdict.altered.append(source)
        if seen.older_schema:
            verdict.unjudged["answers to another version of the schema (only parsed)"] += 1

    def _check_order(self, kind: Kind, record: Record, source: str, found: Place) -> None:
        if kind in self.topics.compacted:
            self._verdict.unjudged[f"records in {kind}, whose order compaction may have changed"] += 1
            return
        partition, place = self._partitions[found[0]], found[1]
        if (kind, record.partition) in self.topics.cut and partition.offsets[place] < self._judged_from(
            kind, record.partition, found[0]
        ):
            return  # its first outcome may be gone, and this a repetition
        by_partition = self._rules.order == "partition"
        for fault in broken_order(kind, record.partition, partition, place, by_partition=by_partition):
            getattr(self._verdict, fault).append(source)

    def _judged_from(self, kind: Kind, output: int, number: int) -> int:
        first = self._first_left.get((kind, output, number))
        return ending.NEVER if first is None else first + self._rules.max_span

    def verdict(self, commit: Mapping[int, Commit] | None = None) -> Verdict:
        """Return the verdict, once; `commit`: the group's last commit, None when it is not judged."""
        if not self._sealed:
            self._seal()
        for number, partition in sorted(self._partitions.items()):
            close = ending.Closing(
                topic=self._topic,
                number=number,
                partition=partition,
                rules=self._rules,
                topics=self.topics,
                first_left=self._first_left,
                samples=self._samples,
            )
            close.into(self._verdict, commit)
        return self._verdict

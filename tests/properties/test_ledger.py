"""The ledger, under any order of deliveries, finishes, gaps, commits and crashes."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.stream.commit_metadata import Ignored, decode, encode, fingerprint
from workers.stream.ledger import FINISHED_PAST_MAX, Ledger

MARK = fingerprint("cluster", "in", 0)


class LedgerLife(RuleBasedStateMachine):
    """A partition with gaps, read by one worker after the other; each crash restarts from a commit made earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.end = 0
        self.reader = 0
        self.ledger = Ledger("in", 0, 0)
        self.acked: set[int] = set()
        self.commits: list[tuple[int, str]] = [(0, "")]

    @rule(gap=st.integers(0, 40), count=st.integers(1, 30))
    def produce(self, gap: int, count: int) -> None:
        """Records arrive, sometimes after a gap (compaction, transaction markers)."""
        start = self.end + gap
        self.log += range(start, start + count)
        self.end = start + count

    @precondition(lambda self: any(offset >= self.reader for offset in self.log))
    @rule(count=st.integers(1, 20))
    def deliver(self, count: int) -> None:
        """The consumer gives the next records; an offset that the metadata calls finished is not done again."""
        for offset in [offset for offset in self.log if offset >= self.reader][:count]:
            taken = self.ledger.take(offset, 0)
            assert taken or offset in self.acked, "a record was skipped that nobody had finished"
            self.reader = offset + 1

    @precondition(lambda self: self.ledger.unfinished)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Any unfinished record may finish next."""
        offset = data.draw(st.sampled_from(sorted(self.ledger.unfinished)))
        self.acked.add(offset)
        self.ledger.finish(offset)

    @precondition(lambda self: self.acked & set(self.log))
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """The cleaner removes records that were done, also some that the metadata still names."""
        done = sorted(self.acked & set(self.log))
        gone = data.draw(st.sets(st.sampled_from(done), max_size=10))
        self.log = [offset for offset in self.log if offset not in gone]

    @rule()
    def pass_gap(self) -> None:
        """An empty ledger follows the consumer's position, which may stand behind a trailing gap."""
        if all(offset < self.reader for offset in self.log):
            self.ledger.pass_gap(self.end)

    @rule()
    def commit(self) -> None:
        """Position and bitmap reach the broker."""
        position = self.ledger.position
        self.commits.append((position, encode(position, self.ledger.finished_past(), MARK)))

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A successor starts from the last commit; late finishes of the old generation do nothing."""
        committed, text = self.commits[-1]
        old = self.ledger
        old.closed = True
        if old.unfinished:
            late = data.draw(st.sampled_from(sorted(old.unfinished)))
            old.finish(late)
            assert late in old.unfinished
        self.ledger = Ledger("in", 0, committed, decode(committed, text, MARK))
        self.reader = committed

    @invariant()
    def never_past_unfinished_work(self) -> None:
        """I3: the commit point never passes a record that was not acked."""
        position = self.ledger.position
        assert all(offset in self.acked for offset in self.log if offset < position)

    @invariant()
    def catches_up_when_all_is_done(self) -> None:
        """I4: with nothing unfinished the commit point is the next offset to read."""
        if not self.ledger.unfinished:
            assert self.ledger.position == self.ledger.next_offset

    @invariant()
    def bitmap_names_only_finished_records(self) -> None:
        """A bit past the commit point never stands for a record that still has to be done."""
        base = self.ledger.position
        bits = self.ledger.finished_past()
        for offset in self.log:
            index = offset - base
            if index >= 0 and index >> 3 < len(bits) and bits[index >> 3] >> (index & 7) & 1:
                assert offset in self.acked


TestLedgerLife = LedgerLife.TestCase


@given(base=st.integers(0, 2**62), offsets=st.sets(st.integers(1, 60_000), max_size=400))
def test_metadata_round_trip_loses_only_the_far_end(base: int, offsets: set[int]) -> None:
    """Decoding gives a prefix of what was encoded: what does not fit is done twice, never skipped wrongly."""
    bits = bytearray(max(offsets, default=0) // 8 + 1)
    for offset in offsets:
        bits[offset >> 3] |= 1 << (offset & 7)
    text = encode(base, bits, MARK)
    assert len(text) <= 3_900
    assert text.isascii()
    found = {offset - base for offset in decode(base, text, MARK)}
    assert found <= offsets
    assert found == {offset for offset in offsets if offset <= max(found, default=0)}


@given(st.text(max_size=200), st.integers(0, 1000))
def test_foreign_metadata_is_ignored(text: str, committed: int) -> None:
    """Whatever another tool wrote there gives no offsets, and no other error."""
    found: set[int] = set()
    with contextlib.suppress(Ignored):
        found = decode(committed, text, MARK)
    assert not found


@given(offset=st.integers(0, 10**9), moved=st.integers(1, 10**6))
def test_metadata_of_another_offset_partition_or_cluster_is_ignored(offset: int, moved: int) -> None:
    """Mirroring tools copy metadata to other offsets and clusters: the bitmap must not be believed there."""
    text = encode(offset, b"\xfe\xff", MARK)
    for committed, mark in ((offset + moved, MARK), (offset, fingerprint("other", "in", 0)), (offset, "x")):
        try:
            decode(committed, text, mark)
        except Ignored:
            continue
        raise AssertionError(f"believed at {committed} with {mark}")


def test_a_skipped_offset_that_was_compacted_away_marks_no_other() -> None:
    """Compaction may remove a record that the metadata calls finished: its bit must not land on a record to come."""
    ledger = Ledger("in", 0, 0, {5})
    for offset in (0, 1, 2, 3, 4):
        ledger.take(offset, 0)
        ledger.finish(offset)
    ledger.take(6, 0)
    assert ledger.position == 6
    assert not any(ledger.finished_past())


@given(st.integers(FINISHED_PAST_MAX - 20, 50_000_000), st.sets(st.integers(1, FINISHED_PAST_MAX + 20), max_size=20))
def test_a_gap_of_millions_costs_no_more_than_a_small_one(gap: int, unfinished: set[int]) -> None:
    """A compacted log may jump far: the bitmap stays small, and names nothing that has to be done."""
    ledger = Ledger("in", 0, 0)
    for offset in sorted({0, gap, *unfinished}):
        ledger.take(offset, 0)
    bits = ledger.finished_past()
    assert len(bits) <= FINISHED_PAST_MAX // 8
    skip = decode(0, encode(0, bits, MARK), MARK)
    assert not skip & {0, gap, *unfinished}

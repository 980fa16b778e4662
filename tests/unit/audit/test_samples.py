"""Sampled commits: none may call a record finished whose outcome was not written when the outputs were looked at."""

from tests.support.outcomes import TOPIC, Outputs, answered, came, dead, erased, fell_back, placed
from topics.shapes import Shape
from topics.spec import Kind
from workers.audit import Rules, Sample, Verdict, judge
from workers.records import Record
from workers.stream.commit_metadata import encode, fingerprint

CLUSTER = "cluster"
OURS = Rules(shape=Shape(), cluster_id=CLUSTER)


def bitmap(base: int, *offsets: int, cluster: str = CLUSTER) -> tuple[int, str]:
    """A commit that calls these offsets past it finished."""
    bits = bytearray(max(offsets) - base + 8 >> 3)
    for offset in offsets:
        bits[offset - base >> 3] |= 1 << (offset - base & 7)
    return base, encode(base, bits, fingerprint(cluster, TOPIC, 0))


def sample(commit: tuple[int, str] | int, label: str = "", **ends: int) -> Sample:
    """One look: the commit, and how many records each kind of output had."""
    kinds: dict[str, Kind] = {"enriched": "enriched", "fallback": "fallback", "dlq": "dlq", "review": "review"}
    stored = (commit, "") if isinstance(commit, int) else commit
    return Sample(committed={0: stored}, ends={(kinds[kind], 0): end for kind, end in ends.items()}, label=label)


def verdict(inputs: list[Record], outputs: Outputs, *samples: Sample, rules: Rules = OURS) -> Verdict:
    """The verdict with these samples."""
    return judge(inputs, placed(outputs), rules=rules, samples=samples)


FOUR = [came(n) for n in range(4)]
IN_ORDER: Outputs = {"enriched": [answered(one) for one in FOUR]}


def test_commits_behind_the_outputs_are_sound() -> None:
    """At the edge: what is committed is written, and the commit moves back in a rebalance."""
    steps = (sample(0), sample(1, enriched=1), sample(4, enriched=4), sample(2, enriched=4), sample(4, enriched=4))
    assert not verdict(FOUR, IN_ORDER, *steps).broken()


def test_an_early_commit_shows_in_the_one_sample_that_saw_it() -> None:
    """In the end everything is written: only the sample in the middle tells."""
    steps = (sample(0), sample(1, enriched=1), sample(3, "kill 1", enriched=1), sample(4, enriched=4))
    found = verdict(FOUR, IN_ORDER, *steps)
    assert found.faults() == {"early": ["in/0/1", "in/0/2"]}
    [sentence] = found.broken(crashed=True)
    assert sentence.endswith("in/0/1, in/0/2 (first seen in sample 2, kill 1)")
    assert not verdict(FOUR, IN_ORDER, steps[0], steps[1], steps[3]).broken()


def test_an_early_bit_counts_like_an_early_offset() -> None:
    """Offset 3 is called finished past a commit of 1, and only 0 and 2 are written."""
    outputs: Outputs = {"enriched": [IN_ORDER["enriched"][n] for n in (0, 2, 1, 3)]}
    rules = Rules(shape=Shape(), cluster_id=CLUSTER, order="none")
    sound = sample(bitmap(1, 2), enriched=2)
    assert not verdict(FOUR, outputs, sound, rules=rules).broken()
    early = sample(bitmap(1, 2, 3), enriched=2)
    assert verdict(FOUR, outputs, sound, early, rules=rules).faults() == {"early": ["in/0/3"]}


def test_a_bitmap_that_no_worker_believes_claims_nothing() -> None:
    """Of another cluster, or damaged; without a cluster id its own mark is believed."""
    foreign = sample(bitmap(1, 3, cluster="other"), enriched=1)
    assert not verdict(FOUR, IN_ORDER, foreign).broken()
    assert verdict(FOUR, IN_ORDER, foreign, rules=Rules(shape=Shape())).early == ["in/0/3"]
    assert not verdict(FOUR, IN_ORDER, sample((1, "junk:1:x:y"), enriched=1)).broken()


def test_bits_of_offsets_without_a_record_are_no_claim() -> None:
    """A gap is never delivered, and its bits are set."""
    gappy = [came(0), came(5)]
    step = sample(bitmap(1, 2, 3, 4), enriched=1)
    assert not verdict(gappy, {"enriched": [answered(one) for one in gappy]}, step).broken()


def test_any_outcome_will_do() -> None:
    """A dead letter or a fallback finishes a record as well."""
    outputs: Outputs = {"dlq": [dead(FOUR[0])], "fallback": [fell_back(FOUR[1], "rules")]}
    assert not verdict(FOUR[:2], outputs, sample(2, dlq=1, fallback=1)).broken()
    assert verdict(FOUR[:2], outputs, sample(2, dlq=1, fallback=0)).early == ["in/0/1"]


def test_two_confirmations_precede_a_commit_where_two_records_are_written() -> None:
    """A tombstone on both topics, a flagged record with its copy: one of the two is not enough."""
    gone = came(0, None)
    both: Outputs = {"enriched": [erased(gone, "enriched")], "fallback": [erased(gone, "fallback")]}
    assert not verdict([gone], both, sample(1, enriched=1, fallback=1)).broken()
    assert verdict([gone], both, sample(1, enriched=1, fallback=0)).early == ["in/0/0"]
    copied: Outputs = {"fallback": [fell_back(FOUR[0], "review")], "review": [fell_back(FOUR[0], "review", "review")]}
    assert not verdict(FOUR[:1], copied, sample(1, fallback=1, review=1)).broken()
    assert verdict(FOUR[:1], copied, sample(1, fallback=1, review=0)).early == ["in/0/0"]


def test_an_end_that_is_told_lower_once_is_no_early_commit() -> None:
    """A new leader may not know yet what it has: what was seen stays seen."""
    steps = (sample(2, enriched=2), sample(2, enriched=1), sample(bitmap(2, 3), enriched=4), sample(4, enriched=0))
    assert not verdict(FOUR, IN_ORDER, *steps).broken()

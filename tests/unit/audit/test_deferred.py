"""Records in the retry topic: they wait, and are neither lost nor done twice; what is wrong with them is found."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from tests.support.outcomes import TASK, TOPIC, answered, came, placed
from topics import retries
from topics.headers import Header
from topics.retries import Retry
from topics.shapes import Shape
from topics.spec import Kind
from workers.audit import Oracle, Rules, Sample, Verdict
from workers.records import Record

RUNNING = Rules(shape=Shape(), order="none", over=False)
OVER = replace(RUNNING, over=True)
SAID: list[Header] = [("shop", b"berlin"), ("__penstock.source", b"forged")]
INPUTS = [came(offset, said=SAID) for offset in range(3)]
ALL_COMMITTED = {0: (3, "")}


def deferred(record: Record, *, offset: int = 0, deferrals: int = 1) -> Record:
    """What the retry topic holds of a record."""
    retry = Retry(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        deferrals=deferrals,
    )
    headers = retries.headers(record.headers, retry, source=record.source, task=TASK, reason="timeout")
    return Record(f"{TOPIC}.{TASK}.retry", 0, offset, 1_800_000_000_000, record.key, record.value, headers)


def judged(
    waiting: Iterable[tuple[Record, bool]],
    ended: Iterable[Record] = (),
    *,
    rules: Rules = RUNNING,
    samples: Sequence[Sample] = (),
) -> Verdict:
    """The verdict over the inputs, all of them committed; of a deferred record, whether it waits."""
    oracle = Oracle(TOPIC, rules, samples=samples)
    for record in INPUTS:
        oracle.add_input(record)
    for record in placed({"enriched": [*ended]})["enriched"]:
        oracle.add_output("enriched", record)
    for record, waits in waiting:
        oracle.add_deferred(record, waits=waits)
    return oracle.verdict(ALL_COMMITTED)


def test_what_waits_is_not_lost_and_what_came_back_is_done_once() -> None:
    """One waits, one came back and ended, one never left."""
    waiting = [(deferred(INPUTS[0]), False), (deferred(INPUTS[1]), True)]
    verdict = judged(waiting, [answered(INPUTS[0]), answered(INPUTS[2])])
    assert not verdict.broken()
    assert (verdict.partitions[0].finished, verdict.partitions[0].waiting) == (2, 1)
    assert verdict.by_kind == {"enriched": 2}
    assert not verdict.repeats


def test_deferred_again_it_waits() -> None:
    """The first is finished because the second was written."""
    waiting = [(deferred(one), False) for one in INPUTS] + [(deferred(one, deferrals=2), True) for one in INPUTS]
    verdict = judged(waiting)
    assert not verdict.broken()
    assert verdict.partitions[0].waiting == 3


def test_what_came_back_and_has_no_outcome_is_lost() -> None:
    """The group has finished with it in the retry topic, and it is nowhere: a loss like any other."""
    verdict = judged([(deferred(one), False) for one in INPUTS], [answered(INPUTS[1])])
    assert verdict.faults() == {"lost": ["in/0/0", "in/0/2"]}


def test_when_the_run_is_over_nothing_may_wait() -> None:
    """Then every record must have ended."""
    verdict = judged([(deferred(INPUTS[0]), True)], [answered(one) for one in INPUTS[1:]], rules=OVER)
    assert verdict.faults() == {"lost": ["in/0/0"]}


def test_two_outcomes_are_two_also_after_a_deferral() -> None:
    """A crash between them may have left the first."""
    twice = [answered(INPUTS[0]), answered(INPUTS[0])]
    verdict = judged([(deferred(INPUTS[0]), False)], [*twice, *map(answered, INPUTS[1:])])
    assert verdict.faults() == {"repeated": ["in/0/0"]}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"key": b"other"}, "key_changed"),
        ({"key": None}, "key_changed"),
        ({"value": b"{}"}, "altered"),
        ({"headers": [one for one in deferred(INPUTS[0]).headers if one[0] != "shop"]}, "altered"),
    ],
)
def test_a_deferred_record_is_the_input_untouched(changes: dict[str, object], fault: str) -> None:
    """Key, value and headers: what is changed there, its outputs never show."""
    waiting = [
        (replace(deferred(INPUTS[0]), **changes), True),
        (deferred(INPUTS[1]), True),
        (deferred(INPUTS[2]), True),
    ]
    assert judged(waiting).faults() == {fault: ["in/0/0"]}


def test_what_comes_from_no_input_is_named() -> None:
    """A record that Penstock did not write, and one of a record that never was."""
    alien = replace(deferred(INPUTS[0], offset=9), headers=[])
    waiting = [(alien, True), (deferred(came(99)), True), *((deferred(one), True) for one in INPUTS)]
    verdict = judged(waiting)
    assert verdict.faults() == {"unknown": ["in.t.retry/0/9 (not deferred by Penstock)", "in/0/99"]}


def test_a_commit_before_the_deferral_was_written_is_early() -> None:
    """A sample shows it: what it calls finished must be below the end of the retry topic, or of an output."""
    kinds: list[Kind] = ["enriched", "retry"]

    def sample(commit: int, deferrals: int) -> Sample:
        return Sample(committed={0: (commit, "")}, ends={(kind, 0): deferrals * (kind == "retry") for kind in kinds})

    waiting = [(deferred(one, offset=one.offset), True) for one in INPUTS]
    assert not judged(waiting, samples=[sample(1, 1), sample(3, 3)]).broken()
    assert judged(waiting, samples=[sample(2, 1), sample(3, 3)]).faults() == {"early": ["in/0/1"]}

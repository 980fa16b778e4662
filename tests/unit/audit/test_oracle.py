"""The oracle: what it takes for a fault, and that it takes nothing else for one."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest

from tests.support.outcomes import (
    Outputs,
    answered,
    came,
    dead,
    erased,
    fell_back,
    forged,
    placed,
    provenance,
)
from topics import enriched, headers
from topics.deadletters import STUB_KEY_MAX_BYTES
from topics.requests import ORIGIN
from topics.shapes import Shape
from topics.spec import KINDS, Kind
from workers.audit import End, Rules, Sample, Span, Tally, Topics, Verdict, judge
from workers.records import Record
from workers.stream.commit_metadata import encode, fingerprint

OURS = Rules(shape=Shape())
INPUTS = [came(0), came(1), came(2), came(3, b"no"), came(4, None), came(5)]
ASKED, BY_RULES, FLAGGED, BROKEN, FORGOTTEN, LAST = INPUTS


def right() -> Outputs:
    """Outputs in which every record has exactly one outcome."""
    return {
        "enriched": [answered(ASKED), erased(FORGOTTEN, "enriched"), answered(LAST)],
        "fallback": [fell_back(BY_RULES, "rules"), fell_back(FLAGGED, "review"), erased(FORGOTTEN, "fallback")],
        "review": [fell_back(FLAGGED, "review", "review")],
        "dlq": [dead(BROKEN)],
    }


def found(outputs: Outputs, **known: object) -> Verdict:
    """The verdict over these outputs."""
    return judge(INPUTS, placed(outputs), **{"rules": OURS} | known)


def test_exactly_one_outcome_each_is_no_problem() -> None:
    """A tombstone on enriched and fallback counts once, a review copy counts as a copy, and the sum is the inputs'."""
    verdict = found(right())
    assert verdict.broken() == []
    assert verdict.ends.total() == verdict.inputs == len(INPUTS)
    assert verdict.ends == {
        End(outcome="enriched", tier="model", reason=""): 2,
        End(outcome="fallback", tier="rules", reason="breaker_open"): 1,
        End(outcome="fallback", tier="review", reason="breaker_open"): 1,
        End(outcome="rejected", tier="", reason="not_json"): 1,
        End(outcome="erased", tier="", reason=""): 1,
    }
    assert verdict.by_kind == {"enriched": 3, "fallback": 2, "dlq": 1}
    assert verdict.review_copies == 1
    assert not verdict.unjudged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, -1])
def test_any_record_missing_from_any_topic_is_a_loss(kind: Kind, place: int) -> None:
    """A planted loss in each of the four topics is named, half a tombstone and a missing review copy included."""
    outputs = right()
    gone = dict(outputs[kind].pop(place).headers)[headers.SOURCE]
    assert gone is not None
    verdict = found(outputs)
    assert verdict.faults() == {"lost": [gone.decode()]}
    assert verdict.broken(crashed=True) == [f"1 records have no outcome: {gone.decode()}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, -1])
def test_any_record_twice_is_a_repetition(kind: Kind, place: int) -> None:
    """A planted duplicate in each of the four topics is named and counted; a crash allows it."""
    outputs = right()
    outputs[kind] += [deepcopy(outputs[kind][place]), deepcopy(outputs[kind][place])]
    verdict = found(outputs)
    assert [*verdict.faults()] == ["repeated"]
    assert verdict.repeats == 2
    assert "more than one outcome" in verdict.broken()[0]
    assert verdict.broken(crashed=True) == []


def test_two_different_outcomes_are_one_too_many() -> None:
    """A record that is enriched and a dead letter as well has two outcomes, of two kinds."""
    outputs = right()
    outputs["dlq"].append(dead(ASKED))
    verdict = found(outputs, rules=Rules(shape=Shape(), order="none"))
    assert verdict.faults() == {"repeated": [ASKED.source], "in_two_kinds": [ASKED.source]}
    assert verdict.broken(crashed=True) == []


def test_an_output_of_nothing_is_named() -> None:
    """An output without a source, or whose source is no input record, is nobody's outcome."""
    outputs = right()
    outputs["enriched"].append(answered(came(99)))
    for source in ("other/0/1", "in/7/0", "in/0/-1", "in/0", "/", "in/0/²"):
        stranger = answered(came(99))
        stranger.headers = [forged(source)]
        outputs["enriched"].append(stranger)
    outputs["dlq"].append(Record("in.t.dlq", 0, 7, 0, None, b"", []))
    wrong = ["in/0/99", "other/0/1", "in/7/0", "in/0/-1", "in/0", "/", "in/0/²", "in.t.dlq/0/1 (no source header)"]
    assert found(outputs).faults() == {"unknown": wrong}
    assert found(outputs, rules=Rules(shape=Shape(), others=frozenset({"other"}))).unknown == [wrong[0], *wrong[2:]]


def test_an_input_that_was_changed_is_named() -> None:
    """The input's bytes are in the output as they came: white space counts; so does the key."""
    outputs = right()
    how = provenance(LAST, "model")
    outputs["enriched"][2].value = enriched.encode(b'{"text":"hello"}', {"a": 1}, how)
    outputs["dlq"][0].key = b"bert"
    assert found(outputs).faults() == {"key_changed": [BROKEN.source], "altered": [LAST.source]}


@pytest.mark.parametrize("key", [None, b""])
def test_no_key_and_an_empty_key_are_two_things(key: bytes | None) -> None:
    """Null to empty or back is a change."""
    one = came(0, key=key)
    output = answered(one)
    assert judge([one], {"enriched": [output]}, rules=OURS).broken() == []
    output.key = b"" if key is None else None
    assert judge([one], {"enriched": [output]}, rules=OURS).key_changed == [one.source]


HEADERS: list[headers.Header] = [("a", b"1"), ("a", None), ("b", b""), ("\udcff", b"2")]


@pytest.mark.parametrize("stub", [False, True])
@pytest.mark.parametrize(
    "change", ["value", "name", "null", "order", "missing", "one more"], ids=lambda one: one.replace(" ", "_")
)
def test_a_dead_letter_keeps_headers_byte_for_byte(stub: bool, change: str) -> None:  # noqa: FBT001 - parametrized
    """Values, names, null values, order and number; of a stub as well. A forged header of the input does not count."""
    one = came(0, b"no", said=[*HEADERS, ("__penstock.source", b"in/0/77")])
    letter = dead(one, stub=stub)
    assert judge([one], {"dlq": [letter]}, rules=OURS).broken() == []
    said = list(letter.headers)
    said[:4] = {
        "value": [("a", b"x"), *said[1:4]],
        "name": [("c", b"1"), *said[1:4]],
        "null": [said[0], ("a", b""), *said[2:4]],
        "order": [said[1], said[0], *said[2:4]],
        "missing": said[1:4],
        "one more": [*said[:4], ("z", None)],
    }[change]
    letter.headers = said
    assert judge([one], {"dlq": [letter]}, rules=OURS).faults() == {"altered": [one.source]}


def test_a_stub_stands_for_its_record_by_hash_and_size() -> None:
    """Headers that a stub has no room for, and a key that is too long, are no fault; another value's stub is one."""
    long = came(0, b"x" * 99, b"k" * (STUB_KEY_MAX_BYTES + 1), said=[(f"h{n}", b"v" * 300) for n in range(100)])
    stub = dead(long, stub=True)
    assert len(stub.headers) < 100
    stub.key = None
    assert judge([long], {"dlq": [stub]}, rules=OURS).broken() == []
    whole = stub.value or b""
    stub.value = whole.replace(b'"size_bytes":99', b'"size_bytes":98')
    assert judge([long], {"dlq": [stub]}, rules=OURS).faults() == {"altered": [long.source]}
    stub.value = dead(came(0, b"y" * 99), stub=True).value
    assert judge([long], {"dlq": [stub]}, rules=OURS).faults() == {"altered": [long.source]}


def test_an_outcome_in_the_wrong_topic_is_named() -> None:
    """A fallback answer on the enriched topic would be taken for the model's."""
    outputs = right()
    outputs["enriched"].append(outputs["fallback"].pop(0))
    assert found(outputs, rules=Rules(shape=Shape(), order="none")).faults() == {"misfiled": [BY_RULES.source]}


def test_only_a_tombstone_is_erased() -> None:
    """A ticket that comes out as a tombstone was not erased but lost."""
    outputs = right()
    outputs["enriched"][2] = erased(LAST, "enriched")
    assert found(outputs).misfiled == [LAST.source]


def test_a_record_that_overtook_its_key_is_named() -> None:
    """Within one topic the records of one key first appear in order; null keys have none, nor `order: none`."""
    outputs = right()
    outputs["enriched"].reverse()
    assert found(outputs).faults() == {"out_of_order": [FORGOTTEN.source, ASKED.source]}
    assert not found(outputs, rules=Rules(shape=Shape(), order="none")).broken()
    keyless = [came(0, key=None), came(1, key=None)]
    backwards = {"enriched": [answered(keyless[1]), answered(keyless[0])]}
    assert not judge(keyless, backwards, rules=OURS).broken()
    by_partition = Rules(shape=Shape(), order="partition")
    assert judge(keyless, backwards, rules=by_partition).out_of_order == [keyless[0].source]


def test_a_repetition_is_out_of_no_order() -> None:
    """After a crash old outcomes come again behind younger ones: only first appearances count."""
    outputs = right()
    outputs["enriched"].append(deepcopy(outputs["enriched"][0]))
    assert [*found(outputs).faults()] == ["repeated"]


def test_a_key_on_two_partitions_is_named() -> None:
    """A key's outcomes go to one partition of a topic; of each topic it may be another."""
    outputs = right()
    outputs["enriched"][2].partition = 1
    outputs["dlq"][0].partition = 2
    assert found(outputs).faults() == {"key_moved": [LAST.source]}


def test_one_key_in_two_input_partitions_is_two_keys() -> None:
    """A producer may spread a key: neither order nor partition binds its records together then."""
    two = [came(5, partition=0), came(1, partition=1)]
    assert not judge(two, {"enriched": [answered(one) for one in two]}, rules=OURS).broken()


def test_answers_are_held_against_their_schema() -> None:
    """What breaks the schema or cannot be read is invalid; an answer to another version of the schema is not judged."""

    def check(answer: object) -> str | None:
        return None if answer == {"a": 1} else "no"

    one, two = came(0), came(1)
    outputs: Outputs = {"enriched": [answered(one), answered(two, {"a": 2})]}
    rules = Rules(shape=Shape(), check=check, schema_version="s")
    assert judge([one, two], placed(outputs), rules=rules).faults() == {"invalid": [two.source]}
    later = judge([one, two], outputs, rules=Rules(shape=Shape(), check=check, schema_version="s2"))
    assert later.broken() == []
    assert later.unjudged.total() == 2
    outputs["enriched"][0].value = (outputs["enriched"][0].value or b"").replace(b'"a":1', b'"a":NaN')
    assert judge([one, two], outputs, rules=OURS).faults() == {"invalid": [one.source]}


def test_two_sources_on_one_output_are_a_forgery() -> None:
    """Headers that contradict each other or the provenance: a consumer would drop the wrong duplicate."""
    outputs = right()
    outputs["enriched"][0].headers = [forged("in/0/5"), *outputs["enriched"][0].headers]
    outputs["fallback"][0].value = fell_back(came(0), "rules").value
    assert found(outputs).faults() == {"forged": [ASKED.source, BY_RULES.source]}


def test_a_canary_leaks_unless_the_input_had_it() -> None:
    """In a header never; in a value only if the record brought it."""
    rules = Rules(shape=Shape(), canaries=(b"S3CRET",))
    brought = came(0, b'{"text": "S3CRET"}')
    assert not judge([brought], {"enriched": [answered(brought)]}, rules=rules).broken()
    clean = came(0)
    leaks = answered(clean, {"a": "S3CRET"})
    assert judge([clean], {"enriched": [leaks]}, rules=rules).faults() == {"leaked": [clean.source]}
    for one in (brought, clean):
        says = answered(one)
        says.headers = [*says.headers, ("x", b"my S3CRET!")]
        assert judge([one], {"enriched": [says]}, rules=rules).faults() == {"leaked": [one.source]}


def test_a_replayed_record_answers_for_its_origin() -> None:
    """Outputs of a replay name where it first came from: one outcome for each time that it came."""
    first = came(0)
    again = came(7, said=[(ORIGIN, b"in/0/0")])
    elsewhere = came(8, said=[(ORIGIN, b"old/3/9")])
    inputs = [first, again, elsewhere]
    old = answered(elsewhere)
    how = provenance(elsewhere, "model")
    how.source = "old/3/9"
    old.headers, old.value = enriched.headers(how), enriched.encode(elsewhere.value or b"", {"a": 1}, how)
    assert not judge(inputs, placed({"enriched": [answered(first), answered(first), old]}), rules=OURS).broken()
    assert judge(inputs, placed({"enriched": [answered(first), old]}), rules=OURS).lost == [again.source]
    by_its_place = placed({"enriched": [answered(first), answered(again), old]})
    assert judge(inputs, by_its_place, rules=OURS).faults() == {"lost": [again.source], "unknown": [again.source]}


def test_a_replayed_tombstone_is_on_both_topics_each_time() -> None:
    """Its four outcomes have one source; three are one too few."""
    first = came(0, None)
    inputs = [first, came(7, None, said=[(ORIGIN, b"in/0/0")])]
    outputs: Outputs = {kind: [erased(first, kind), erased(first, kind)] for kind in ("enriched", "fallback")}
    assert not judge(inputs, placed(outputs), rules=OURS).broken()
    outputs["fallback"].pop()
    assert judge(inputs, outputs, rules=OURS).faults() == {"lost": [inputs[1].source]}


def test_what_a_peer_cannot_be_asked_is_not_judged() -> None:
    """With a `source_of` and no shape only the bookkeeping counts: outcomes, order and keys."""

    def by_its_header(record: Record) -> str:
        return (dict(record.headers)["source"] or b"").decode()

    outputs = [Record("out", 0, n, 0, one.key, b"?", [("source", one.source.encode())]) for n, one in enumerate(INPUTS)]
    peer = Rules(source_of=by_its_header)
    assert not judge(INPUTS, {"enriched": outputs}, rules=peer).broken()
    assert judge(INPUTS, {"enriched": outputs[1:]}, rules=peer).faults() == {"lost": [ASKED.source]}


def test_many_are_counted_and_a_few_are_named() -> None:
    """A sentence stays readable when everything is lost."""
    assert found({}).broken() == ["6 records have no outcome: in/0/0, in/0/1, in/0/2 and 3 more"]


def test_a_run_that_goes_on_has_no_loss_but_below_its_commit() -> None:
    """What is not finished waits; the bitmap counts like the offset; what is past both would be done again."""
    outputs = right()
    outputs["dlq"].clear()
    outputs["enriched"].pop()
    going = Rules(shape=Shape(), over=False)
    verdict = found(outputs, rules=going, commit={0: (3, "")})
    assert verdict.broken() == []
    assert verdict.partitions == {0: Tally(records=6, finished=4, waiting=2, past_commit=1, commit=3)}
    assert found(outputs, rules=going, commit={0: (4, "")}).faults() == {"lost": [BROKEN.source]}
    assert found(outputs, rules=going, commit={}).partitions[0].past_commit == 4
    bit = encode(3, b"\x04", fingerprint("c", "in", 0))
    claimed = found(outputs, rules=replace(going, cluster_id="c"), commit={0: (3, bit)})
    assert claimed.faults() == {"lost": [LAST.source]}


def test_a_commit_that_is_not_at_the_end_is_named() -> None:
    """When nothing is left to do the commit is at the end, past a gap as well."""
    topics = Topics(spans={0: Span(begin=0, end=9)})
    assert found(right(), topics=topics, commit={0: (9, "")}).broken() == []
    verdict = found(right(), topics=topics, commit={0: (6, "")})
    assert verdict.faults() == {"uncommitted": ["in/0 (6 of 9)"]}
    assert found(right(), commit={}).uncommitted == ["in/0 (0 of 6)"]


def test_offsets_without_a_record_are_no_loss() -> None:
    """Transaction markers, aborted records and compaction leave gaps."""
    gappy = [came(3), came(1_000)]
    assert not judge(gappy, {"enriched": [answered(one) for one in gappy]}, rules=OURS).broken()


class TestWhatCannotBeTold:
    """Retention, compaction and `start: latest` are no false alarm, and the verdict says of how many it cannot tell."""

    def test_outputs_of_records_that_retention_took(self) -> None:
        """They name offsets before the first that is left."""
        outputs = {"enriched": [answered(came(n)) for n in range(10)]}
        left = [came(n) for n in range(4, 10)]
        topics = Topics(spans={0: Span(begin=4, end=10)})
        verdict = judge(left, placed(outputs), rules=OURS, topics=topics)
        assert verdict.broken() == []
        assert [*verdict.unjudged.values()] == [4]
        assert len(judge(left, outputs, rules=OURS, topics=Topics(spans={0: Span(begin=3, end=10)})).unknown) == 1

    def test_outputs_whose_beginning_is_gone(self) -> None:
        """A span past the first outcome that is left, everything is judged again."""
        inputs = [came(n) for n in range(20)]
        outputs = placed({"enriched": [answered(one) for one in inputs[5:15]]})
        topics = Topics(
            spans={0: Span(begin=0, end=20)}, cut=frozenset({("enriched", 0)}), output_partitions={"enriched": 1}
        )
        rules = Rules(shape=Shape(), max_span=12)
        verdict = judge(inputs, outputs, rules=rules, topics=topics)
        assert verdict.lost == [f"in/0/{n}" for n in (17, 18, 19)]
        assert verdict.unjudged.total() == 7
        elsewhere = Topics(
            spans={0: Span(begin=0, end=20), 1: Span(begin=0, end=0)},
            cut=frozenset({("enriched", 1)}),
            output_partitions={"enriched": 2},
        )
        assert len(judge(inputs, outputs, rules=rules, topics=elsewhere).lost) == 10

    def test_outputs_that_are_compacted(self) -> None:
        """Only the last record of each key must still be there, and no tombstone."""
        inputs = [came(0, key=b"a"), came(1, key=b"a"), came(2, key=b"b"), came(3, None, key=b"c"), came(4, key=b"d")]
        topics = Topics(compacted=frozenset({"enriched"}))
        verdict = judge(inputs, placed({"enriched": [answered(inputs[2])]}), rules=OURS, topics=topics)
        assert verdict.lost == [inputs[1].source, inputs[4].source]
        backwards = placed({"enriched": [answered(inputs[1]), answered(inputs[0])]})
        assert not judge(inputs[:2], backwards, rules=OURS, topics=topics).broken()

    def test_an_input_that_is_compacted(self) -> None:
        """An output may name a record that is no longer there, but none past the end."""
        topics = Topics(spans={0: Span(begin=0, end=3)}, input_compacted=True)
        outputs = placed({"enriched": [answered(came(n)) for n in range(4)]})
        verdict = judge([came(2)], outputs, rules=OURS, topics=topics)
        assert verdict.faults() == {"unknown": ["in/0/3"]}
        assert verdict.unjudged.total() == 2

    def test_a_group_that_began_at_the_end(self) -> None:
        """Under `start: latest` nobody knows where that was: what is before the first outcome is not judged."""
        inputs = [came(n) for n in range(6)]
        outputs = placed({"enriched": [answered(inputs[3]), answered(inputs[5])]})
        verdict = judge(inputs, outputs, rules=Rules(shape=Shape(), latest=True))
        assert verdict.lost == ["in/0/4"]
        assert verdict.unjudged.total() == 3
        assert judge(inputs, {}, rules=Rules(shape=Shape(), latest=True)).broken() == []
        sample = Sample(committed={0: (4, "")}, ends={("enriched", 0): 0})
        sampled = judge(inputs, outputs, rules=Rules(shape=Shape(), latest=True), samples=[sample])
        assert sampled.early == ["in/0/3"]


def test_the_numbers_of_a_verdict_add_up() -> None:
    """Per partition: records are finished, waiting or lost."""
    verdict = found(right())
    assert verdict.partitions[0] == Tally(records=6, finished=6, past_commit=6)
    assert verdict.repeated == Counter()

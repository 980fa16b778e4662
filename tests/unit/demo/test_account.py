"""The demo's accounting: what it takes for a fault, and that it takes nothing else for one."""

from copy import deepcopy

import pytest

from topics import deadletters, enriched, fallbacks, headers
from topics.deadletters import Failure
from topics.provenance import Provenance
from topics.spec import KINDS, Kind
from workers.demo.account import Account, End, account
from workers.records import Record

Outputs = dict[Kind, list[Record]]


def came(offset: int, value: bytes | None = b'{"text": "hello"}', key: bytes | None = b"anna") -> Record:
    """An input record."""
    return Record("in", 0, offset, 1_700_000_000_000, key, value, [])


def out(kind: Kind, record: Record, said: list[headers.Header], value: bytes | None) -> Record:
    """An output record of an input record; its offset does not matter."""
    return Record(f"in.t.{kind}", record.partition, 0, record.timestamp_ms, record.key, value, said)


def provenance(record: Record, tier: str, reason: str | None = None) -> Provenance:
    """How an answer came about, as far as accounting looks at it."""
    return Provenance(
        source=record.source,
        task="t",
        tier=tier,
        reason=reason,
        prompt_version="p",
        schema_version="s",
        attempts=1,
        produced_at="2026-01-01T00:00:00.000Z",
    )


def answered(record: Record) -> Record:
    """What the model's answer looks like."""
    how = provenance(record, "model")
    return out("enriched", record, enriched.headers(how), enriched.encode(record.value or b"", {"a": 1}, how))


def fell_back(record: Record, tier: str, kind: Kind = "fallback") -> Record:
    """What a rung's answer, or a copy of it, looks like."""
    how = provenance(record, tier, "breaker_open")
    return out(kind, record, fallbacks.headers(how), fallbacks.encode(record.value or b"", None, how))


def dead(record: Record) -> Record:
    """What a dead letter looks like."""
    failure = Failure(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        stage="decode",
        reason="not_json",
        exception_class="NotJson",
        exception_message="no",
    )
    return out("dlq", record, deadletters.headers([], failure, source=record.source, task="t"), record.value)


def erased(record: Record, kind: Kind) -> Record:
    """What a tombstone looks like."""
    return out(kind, record, enriched.tombstone_headers(source=record.source, task="t"), None)


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


def found(outputs: Outputs) -> Account:
    """The account of these outputs."""
    return account(INPUTS, outputs)


def test_exactly_one_outcome_each_is_no_problem() -> None:
    """A tombstone on enriched and fallback counts once, a review copy counts as a copy, and the sum is the inputs'."""
    sums = found(right())
    assert sums.problems() == []
    assert sums.ends.total() == sums.inputs == len(INPUTS)
    assert sums.ends == {
        End(outcome="enriched", tier="model", reason=""): 2,
        End(outcome="fallback", tier="rules", reason="breaker_open"): 1,
        End(outcome="fallback", tier="review", reason="breaker_open"): 1,
        End(outcome="rejected", tier="", reason="not_json"): 1,
        End(outcome="erased", tier="", reason=""): 1,
    }
    assert sums.review_copies == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, -1])
def test_any_record_missing_from_any_topic_is_a_loss(kind: Kind, place: int) -> None:
    """A planted loss in each of the four topics is named, half a tombstone and a missing review copy included."""
    outputs = right()
    gone = outputs[kind].pop(place)
    source = dict(gone.headers)[headers.SOURCE]
    sums = found(outputs)
    assert source is not None
    assert sums.lost == [source.decode()]
    assert sums.problems() == [f"1 records have no outcome: {source.decode()}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, -1])
def test_any_record_twice_is_a_repetition(kind: Kind, place: int) -> None:
    """A planted duplicate in each of the four topics is named, of tombstones and review copies as well."""
    outputs = right()
    outputs[kind].append(deepcopy(outputs[kind][place]))
    assert len(found(outputs).repeated) == 1
    assert "more than one outcome" in found(outputs).problems()[0]


def test_two_different_outcomes_are_one_too_many() -> None:
    """A record that is enriched and a dead letter as well has two outcomes."""
    outputs = right()
    outputs["dlq"].append(dead(ASKED))
    assert found(outputs).repeated == [ASKED.source]


def test_an_output_of_nothing_is_named() -> None:
    """An output without a source, or whose source is no input record, is nobody's outcome."""
    outputs = right()
    outputs["enriched"].append(answered(came(99)))
    outputs["dlq"].append(Record("in.t.dlq", 0, 7, 0, None, b"", []))
    assert found(outputs).unknown == ["in/0/99", "in.t.dlq/0/7 (no source header)"]


def test_an_input_that_was_changed_is_named() -> None:
    """The input's bytes and key are in the output as they came: white space counts."""
    outputs = right()
    how = provenance(LAST, "model")
    outputs["enriched"][2].value = enriched.encode(b'{"text":"hello"}', {"a": 1}, how)
    outputs["dlq"][0].key = b"bert"
    assert found(outputs).altered == [LAST.source, BROKEN.source]


def test_an_outcome_in_the_wrong_topic_is_named() -> None:
    """A fallback answer on the enriched topic would be taken for the model's."""
    outputs = right()
    outputs["enriched"].append(outputs["fallback"].pop(0))
    assert found(outputs).misfiled == [BY_RULES.source]


def test_only_a_tombstone_is_erased() -> None:
    """A ticket that comes out as a tombstone was not erased but lost."""
    outputs = right()
    outputs["enriched"][2] = erased(LAST, "enriched")
    assert found(outputs).misfiled == [LAST.source]


def test_a_record_that_overtook_its_key_is_named() -> None:
    """Within one topic the records of one key keep their order; null keys have none."""
    outputs = right()
    outputs["enriched"].reverse()
    assert found(outputs).out_of_order == [FORGOTTEN.source, ASKED.source]
    for record in outputs["enriched"]:
        record.key = None
    assert found(outputs).out_of_order == []


def test_many_are_counted_and_a_few_are_named() -> None:
    """A sentence stays readable when everything is lost."""
    nothing: Outputs = {kind: [] for kind in KINDS}
    assert found(nothing).problems() == ["6 records have no outcome: in/0/0, in/0/1, in/0/2 and 3 more"]

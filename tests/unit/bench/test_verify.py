"""The bench reads every output back: what is planted is found."""

from collections.abc import Sequence

import pytest
from aiokafka.structs import ConsumerRecord

from tests.bench.matrix.cell import judged
from tests.bench.matrix.verify import ANSWER, Found, first_numbers, noted
from tests.bench.matrix.workloads import Case

CASE = Case(workload="W1", name="64", latency="const:0.15", slots=64, records=4)


def output(
    number: int, *, key: bytes = b"k", value: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
) -> ConsumerRecord:
    """Return what a peer writes for a record."""
    content = value if value is not None else b'{"id":%d,"result":"%b"}' % (number, ANSWER)
    return ConsumerRecord("out", 0, number, 0, 0, key, content, 0, len(key), len(content), tuple(headers))


def by_source(place: bytes) -> ConsumerRecord:
    """Return what Penstock writes."""
    return output(0, value=b'{"summary":"%b"}' % ANSWER, headers=[("__penstock.source", place)])


def found_in(outputs: Sequence[ConsumerRecord], *, records: int = 4) -> Found:
    """Count outputs that carry ids."""
    found = Found(records)
    noted(found, outputs, first=None)
    return found


def test_every_record_once_is_right() -> None:
    """Nothing is counted that is not there."""
    found = found_in([output(number) for number in range(4)])
    assert set(found.figures().values()) == {0}
    assert "failed" not in judged(found, CASE, "key")


def test_a_lost_record_is_found_and_fails_the_cell() -> None:
    """Whatever its speed."""
    found = found_in([output(number) for number in (0, 1, 3)])
    assert found.lost == 1
    assert judged(found, CASE, "none")["failed"] == "1 lost"


def test_a_record_that_is_there_twice_is_counted_and_does_not_hide_a_lost_one() -> None:
    """Four outputs are not four records."""
    found = found_in([output(number) for number in (0, 1, 1, 3)])
    assert (found.twice, found.lost) == (1, 1)


def test_a_repetition_alone_does_not_fail_a_cell() -> None:
    """At least once is what everybody promises."""
    found = found_in([output(number) for number in (0, 1, 2, 3, 3)])
    assert (found.twice, "failed" in judged(found, CASE, "key")) == (1, False)


@pytest.mark.parametrize("value", [b"not json", b"[1]", b'{"result":"x"}', b'{"id":99}', b'{"id":-1}'])
def test_an_output_of_no_record_is_unknown(value: bytes) -> None:
    """An output that cannot be told apart counts for nobody."""
    assert found_in([output(0, value=value)]).unknown == 1


def test_an_output_without_the_answer_fails_unless_the_ladder_may_answer() -> None:
    """A record that is passed on as it came is no answer."""
    found = found_in([output(0, value=b'{"id":0,"text":"as it came"}'), *(output(number) for number in (1, 2, 3))])
    assert judged(found, CASE, "none")["failed"] == "1 unanswered"
    allowed = Case(workload="W5", name="x", latency="zero", slots=1, records=4, may_default=True)
    assert "failed" not in judged(found, allowed, "none")


def test_order_is_that_of_first_appearances_within_a_key() -> None:
    """A repetition comes late by nature; two keys have nothing to do with each other."""
    assert found_in([output(0), output(1), output(0), output(2)]).out_of_order == 0
    assert found_in([output(1, key=b"a"), output(0, key=b"b")]).out_of_order == 0
    found = found_in([output(number) for number in (0, 2, 1, 3)])
    assert judged(found, CASE, "key")["failed"] == "1 out of order"
    assert "failed" not in judged(found, CASE, "none")


def test_penstocks_outputs_are_told_apart_by_their_source() -> None:
    """Partition and offset number the input through."""
    first = first_numbers({0: 3, 1: 2})
    assert first == {0: 0, 1: 3}
    found = Found(5)
    noted(found, [by_source(b"in/0/2"), by_source(b"in/1/1"), by_source(b"in/1/1"), output(0)], first=first)
    assert list(found.times) == [0, 0, 1, 0, 2]
    assert (found.unknown, found.lost, found.twice) == (1, 3, 1)

"""The retry topic: nothing is taken up early, nothing waits for ever, and nothing of the record is lost on the way."""

from hypothesis import given
from hypothesis import strategies as st

from tests.properties.test_wire import HEADERS, KEYS
from tests.support.wire import make_record, make_task, route_at_now
from topics import requests
from topics.headers import Header
from workers.errors import BreakerOpen
from workers.outcome import Deferred, Erased, Rejected
from workers.records import Record
from workers.stream.due import CREDIBLE_DELAYS, LOOK_AGAIN_S, due, restored

DELAYS_S = st.floats(0.1, 86_400)
AGES_S = st.lists(st.floats(-200_000, 200_000), max_size=20)
TASK = make_task(order="none", when_unavailable="defer")
NOW_S = 1_767_225_600.0


@given(AGES_S, DELAYS_S)
def test_what_is_taken_up_is_due_and_waiting_is_bounded(ages_s: list[float], delay_s: float) -> None:
    """Only a timestamp that no sound clock gave is not waited for; the wait ends with the first that is not due."""
    stamps = [int((NOW_S - age_s) * 1000) for age_s in ages_s]
    count, wait_s = due(stamps, delay_s, NOW_S)
    lefts_s = [stamp / 1000 + delay_s - NOW_S for stamp in stamps]
    assert all(left_s <= 0 or left_s > CREDIBLE_DELAYS * delay_s for left_s in lefts_s[:count])
    if count == len(stamps):
        assert wait_s == 0
    else:
        assert 0 < lefts_s[count] <= wait_s <= max(CREDIBLE_DELAYS * delay_s, LOOK_AGAIN_S)
        assert due(stamps[count:], delay_s, NOW_S + wait_s + 0.001)[0] > 0


RECORDS = st.builds(
    make_record,
    partition=st.integers(0, 500),
    offset=st.integers(0, 1 << 60),
    timestamp_ms=st.integers(-(1 << 62), 1 << 62),
    key=KEYS,
    value=st.binary(max_size=50),
    headers=HEADERS,
)


def sendable(headers: list[Header]) -> list[Header]:
    """The headers as they are in a topic: names in UTF-8, no forged ones, what a replay set at the end."""
    kept = [(name, value) for name, value in headers if not name.startswith("__penstock.")]
    return [*kept, *requests.encode(requests.decode(headers))]


@given(RECORDS, st.integers(1, 99))
def test_a_deferred_record_comes_back_as_it_was(record: Record, deferrals: int) -> None:
    """Deferred as often as one likes, it is the record of the input again, and its outputs are the same."""
    back, times = record, 0
    for number in (deferrals, min(99, deferrals + 1)):
        [outgoing] = route_at_now(back, Deferred(BreakerOpen("open"), number), TASK)
        again = make_record(
            topic=outgoing.topic,
            offset=9,
            timestamp_ms=1,
            key=outgoing.key,
            value=outgoing.value,
            headers=outgoing.headers,
        )
        back, times = restored(again, TASK.outputs)
        assert times == number
    assert (back.topic, back.partition, back.offset) == (record.topic, record.partition, record.offset)
    assert (back.timestamp_ms, back.key, back.value) == (record.timestamp_ms, record.key, record.value)
    assert back.headers == sendable(list(record.headers))
    for outcome in (Erased(), Rejected(BreakerOpen("open"))):
        assert route_at_now(back, outcome, TASK) == route_at_now(record, outcome, TASK)

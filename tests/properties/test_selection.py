"""Which records see the model: by a condition, and by a share of the keys that is the same everywhere."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory import TOPIC, memory_task
from tests.support.scripted_model import ScriptedModel
from tests.support.wire import make_record
from workers.errors import NotSelected, OutOfShare
from workers.outcome import Enriched, Fallback
from workers.pipeline import decide
from workers.records import Passage, Request
from workers.selection import in_share, selection
from workers.task import Task

KEYS = st.binary(max_size=20)
SHARES = st.floats(0.001, 1)
ASKED = {"only_when": {"field": "plan", "in": ["business"]}}


def settings(**changes: Any) -> Any:
    """A task's settings."""
    return memory_task(ScriptedModel(), **changes).settings


def selected_task(model: ScriptedModel, **changes: Any) -> Task:
    """A task with a selection, compiled as `compile_task` does it."""
    task = memory_task(model, **changes)
    return replace(task, selection=selection(task.settings, task.name))


@given(KEYS, SHARES, SHARES)
def test_a_larger_share_holds_all_of_a_smaller_one(key: bytes, one: float, other: float) -> None:
    """Growing the share from 1 % to 100 % never takes the model away from a key that had it."""
    record = make_record(key=key)
    small, large = sorted((one, other))
    assert in_share(record, large, b"t") or not in_share(record, small, b"t")
    assert in_share(record, 1.0, b"t")


@given(KEYS, st.integers(0, 99), st.integers(0, 99))
def test_all_records_of_a_key_are_treated_alike(key: bytes, one: int, other: int) -> None:
    """A customer's records are all shown to the model or none, wherever they lie."""
    assert in_share(make_record(key=key, offset=one, partition=1), 0.5, b"t") == in_share(
        make_record(key=key, offset=other, partition=2), 0.5, b"t"
    )


def test_a_share_is_about_that_share_and_tasks_choose_differently() -> None:
    """Of 20,000 keys a share of 0.2 shows a fifth; without keys a fifth of the records; two tasks are independent."""
    keyed = [make_record(key=f"customer-{number}".encode()) for number in range(20_000)]
    for records in (keyed, [make_record(key=None, offset=number) for number in range(20_000)]):
        assert abs(sum(in_share(record, 0.2, b"t") for record in records) / 20_000 - 0.2) < 0.02
    both = sum(in_share(record, 0.2, b"t") and in_share(record, 0.2, b"u") for record in keyed)
    assert abs(both / 20_000 - 0.04) < 0.01


def test_what_is_not_selected_and_why() -> None:
    """The condition is asked first, then the share; without either there is nothing to ask."""
    select = selection(settings(**ASKED, share=0.5), "t")
    assert select is not None
    records = [make_record(key=b"%d" % number) for number in range(50)]
    assert {type(select(Request(record, {"plan": "free"}))) for record in records} == {NotSelected}
    assert {type(select(Request(record, {"plan": "business"}))) for record in records} == {OutOfShare, type(None)}
    assert selection(settings(), "t") is None


async def test_a_record_that_is_not_selected_leaves_as_skip_unasked() -> None:
    """No call, no attempt, enrichment null, the reason in the outcome; the others are asked as ever."""
    model = ScriptedModel("fine")
    task = selected_task(model, **ASKED)
    passed_on = await decide(make_record(topic=TOPIC, value=b'{"plan": "free"}'), task, Passage(5.0))
    assert isinstance(passed_on, Fallback), passed_on
    assert (passed_on.tier, passed_on.enrichment, passed_on.error.reason) == ("skip", None, "only_when")
    assert (passed_on.spent.attempts, model.calls) == (0, [])
    assert isinstance(
        await decide(make_record(topic=TOPIC, value=b'{"plan": "business"}'), task, Passage(5.0)), Enriched
    )

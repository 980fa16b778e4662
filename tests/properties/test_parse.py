"""Stage 4 over arbitrary answers: what is taken passed its check and can be written (row D20)."""

import json
import re
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.shipped import shipped_task
from tests.support.wire import make_record, make_reply, make_task, route_at_now
from topics import enriched
from workers.errors import BadAnswer
from workers.json_text import loads, loads_raw_controls
from workers.outcome import Enriched
from workers.stages.s4_parse import parse

TRIAGE = shipped_task()
ANYTHING = replace(make_task(), check=lambda _: None)
PIECES = st.sampled_from(
    ['{"', '"}', "{", "}", "[", "]", '"', ":", ",", "\\", "```", "```json\n", "1e999", "NaN", "null"]
)
WORDS = st.sampled_from(['"category"', '"urgency"', '"summary"', '"bug"', '"low"', "\n", " ", "é", "\u2028"])
ANSWERS = st.lists(PIECES | WORDS | st.text(max_size=4), max_size=40).map("".join)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def taken(text: str, task: Any) -> Any:
    """Return the enrichment, None when there is none."""
    try:
        return parse(replace(make_reply(), text=text), task)
    except BadAnswer:
        return None


@pytest.mark.fault("D20")
@given(ANSWERS | st.text())
def test_an_answer_is_refused_or_passed_its_check(text: str) -> None:
    """Nothing but a BadAnswer leaves the stage, and what is taken satisfies the schema."""
    value = taken(text, TRIAGE)
    assert value is None or TRIAGE.check is None or TRIAGE.check(value) is None


@pytest.mark.fault("D20")
@given(VALUES.filter(lambda value: not isinstance(value, int | float)))
def test_control_characters_in_strings_change_no_value(value: Any) -> None:
    """An answer whose strings hold them as they are is the one that has them escaped."""
    escapes = {json.dumps(chr(code))[1:-1]: chr(code) for code in range(0x20)}
    whole = re.compile(r"\\(?:u00[01].|.)")
    raw = whole.sub(lambda found: escapes.get(found[0], found[0]), json.dumps(value, ensure_ascii=False))
    assert taken(raw, ANYTHING) == taken(json.dumps(value, ensure_ascii=False), ANYTHING)


@pytest.mark.fault("D20")
@given(ANSWERS | VALUES.map(json.dumps))
def test_without_control_characters_nothing_more_is_json(text: str) -> None:
    """What is no JSON for another reason stays none: NaN, half a surrogate, a number that is too large."""
    text = re.sub(r"[\x00-\x1f]", "", text)
    read = []
    for reader in (loads, loads_raw_controls):
        try:
            read.append(repr(reader(text)))
        except orjson.JSONDecodeError:
            read.append("no JSON")
    assert read[0] == read[1]


@pytest.mark.fault("D20")
@given(ANSWERS | VALUES.map(json.dumps))
def test_what_is_taken_can_be_written(text: str) -> None:
    """An enrichment of any schema is JSON that an output holds and gives back."""
    value = taken(text, ANYTHING)
    [outgoing] = route_at_now(make_record(), Enriched(value, make_reply()), make_task())
    assert outgoing.value is not None
    assert enriched.decode(outgoing.value).enrichment == value

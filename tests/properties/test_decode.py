"""Stage 1 over arbitrary bytes (row D20)."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.wire import make_record, make_task
from workers.errors import Reject
from workers.nesting import MAX_DEPTH, too_deep
from workers.stages.s1_decode import decode

TASKS = st.sampled_from([make_task(), make_task(input_format="text"), make_task(max_input_bytes=100)])
BRACKETS = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"1"])).map(b"".join)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(alphabet='[]{}"\\é\n,a', max_size=40)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(st.binary() | BRACKETS, TASKS)
def test_arbitrary_bytes_are_decoded_or_rejected(value: bytes, task: Any) -> None:
    """Nothing but a Reject leaves the stage, and the record's bytes stay as they came."""
    record = make_record(value=value)
    rejected = None
    try:
        assert decode(record, task).record is record
    except Reject as error:
        rejected = error
    assert rejected is None or (rejected.stage, rejected.retryable) == ("decode", False)
    assert record.value == value


@given(VALUES)
def test_json_is_decoded_as_python_decodes_it(value: Any) -> None:
    """What Python writes is read back as the same value."""
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode()
        assert decode(make_record(value=text), make_task()).value == value


@given(st.lists(st.text(alphabet='[]{}"\\é', max_size=300), max_size=4), st.integers(150, 250), st.booleans())
def test_depth_is_counted_outside_of_strings_only(texts: list[str], depth: int, objects: bool) -> None:  # noqa: FBT001 - drawn
    """The check agrees with the number of levels that were written, whatever the strings hold."""
    leaf = json.dumps([texts, texts])[1:-1]
    opening, closing = ('{"]}": [', "]}") if objects else ("[", "]")
    levels = depth // 2 if objects else depth
    text = opening * levels + leaf + closing * levels
    written = levels * (2 if objects else 1) + 1
    assert too_deep(f"[{text}]".encode()) is (written + 1 > MAX_DEPTH)

"""Stage 1: what is a value, and why it is not (rows D1, D4-D7)."""

from typing import Any

import pytest

from tests.support.wire import make_record, make_task
from workers.errors import EmptyValue, NotJson, NotUtf8, PenstockError, TooDeep, ValueTooLarge
from workers.nesting import MAX_DEPTH
from workers.stages.s1_decode import decode

JSON = make_task()
TEXT = make_task(input_format="text")


def nested(depth: int) -> bytes:
    """Return objects and lists in turn, `depth` levels of them."""
    inner = b"1"
    for level in range(depth):
        inner = b"[%b]" % inner if level % 2 else b'{"a":%b}' % inner
    return inner


@pytest.mark.fault("D1", "D5", "D6", "D9")
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", EmptyValue),
        (b" ", NotJson),
        (b"\x00\x00\x00\x00\x07{}", NotJson),  # a schema registry's frame
        (b"\x00\x00", NotJson),
        (b"\xef\xbb\xbf{}", NotJson),
        (b'{"a": 1', NotJson),
        (b"{'a': 1}", NotJson),
        (b'{"a": 1}{"a": 2}', NotJson),
        (b'{"a": NaN}', NotJson),
        (b"[Infinity]", NotJson),
        (b"[-Infinity]", NotJson),
        (b"[1e999]", NotJson),
        (b'"a\x00b"', NotJson),
        (b'"\\ud800"', NotJson),
        (b'{"a": "\xff"}', NotUtf8),
        (b"\xff\xfe{\x00}\x00", NotUtf8),
        (nested(MAX_DEPTH + 1), TooDeep),
        (nested(1_024), TooDeep),
        (b"[" * 100_000, TooDeep),
        (b"[" * 100_000 + b"]" * 100_000, TooDeep),
    ],
)
def test_refused_as(value: bytes, error: type[PenstockError]) -> None:
    """Each way of being no JSON value has its own error, so that a dead letter says what to look for."""
    with pytest.raises(error):
        decode(make_record(value=value), JSON)


@pytest.mark.fault("D7")
@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (b'{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (b"null", None),
        (b'"text"', "text"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"18446744073709551616", 1.8446744073709552e19),
        (b'"\\u0000\\u202e"', "\x00\u202e"),
        ('"ü"'.encode(), "ü"),
    ],
)
def test_decoded_as(value: bytes, decoded: Any) -> None:
    """JSON is read as orjson reads it: the last of duplicate keys, big integers as floats; the bytes stay."""
    record = make_record(value=value)
    request = decode(record, JSON)
    assert request.value == decoded
    assert request.record is record
    assert record.value == value


@pytest.mark.parametrize(
    "value",
    [
        nested(MAX_DEPTH),
        b"[" + b",".join([b"[[],{}]"] * 500) + b"]",
        b'["' + b"[{" * 500 + b'"]',
        b'["\\"' + b"[" * 500 + b'\\\\", "]"]',
        b'["' + b"[" * 500 + b'", "", "\\\\"]',
    ],
)
def test_depth_is_not_a_count_of_brackets(value: bytes) -> None:
    """Two hundred levels pass, and so do many brackets side by side or inside strings."""
    decode(make_record(value=value), JSON)


def test_deep_behind_strings_with_brackets() -> None:
    """Closing brackets and escaped quotes inside strings do not hide depth."""
    value = b'["]]]\\\\\\"]]", "", ' * 201 + b"1" + b"]" * 201
    with pytest.raises(TooDeep):
        decode(make_record(value=value), JSON)


@pytest.mark.parametrize("task", [JSON, TEXT])
def test_size_is_checked_before_anything_else(task: Any) -> None:
    """A value at `max_input_bytes` passes, one byte more does not, whatever it holds."""
    limit = task.settings.max_input_bytes
    decode(make_record(value=b'"' + b"a" * (limit - 2) + b'"'), task)
    with pytest.raises(ValueTooLarge, match=str(limit + 1)):
        decode(make_record(value=b"\xff" * (limit + 1)), task)


def test_text_is_taken_as_it_is() -> None:
    """With `input_format: text` the value is the text, whatever it looks like."""
    assert decode(make_record(value="{ ü\x00".encode()), TEXT).value == "{ ü\x00"


@pytest.mark.parametrize(("value", "error"), [(b"", EmptyValue), (b"\xff", NotUtf8), (b"\xed\xa0\x80", NotUtf8)])
def test_text_that_is_none(value: bytes, error: type[PenstockError]) -> None:
    """A text is UTF-8 and not empty."""
    with pytest.raises(error):
        decode(make_record(value=value), TEXT)


@pytest.mark.parametrize("value", [b'{"secret": oops}', b'"secret\xff"', b"[" * 2_000 + b'"secret"'])
def test_errors_do_not_quote_the_value(value: bytes) -> None:
    """An error names a place, never the record's content."""
    with pytest.raises(PenstockError) as caught:
        decode(make_record(value=value), JSON)
    assert "secret" not in str(caught.value)

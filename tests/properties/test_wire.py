"""The wire contract for any input: bytes untouched, forged headers gone, caps kept."""

import json
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.wire import INPUT, PARTITIONS, make_record, make_reply, make_task, route_at_now
from topics import deadletters, enriched, requests
from topics.headers import MAX_BYTES, MAX_ENTRIES, PREFIX, Header, passed_on
from topics.shapes import Shape
from workers.errors import BadAnswer, BreakerOpen, Internal, MergeRefused, NotJson
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.records import Record

DLQ = f"{INPUT}.ticket_triage.dlq"

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no failure."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
BLANKS = st.text(" \t\r\n", max_size=3)
ENRICHMENTS = VALUES.map(lambda value: orjson.loads(json.dumps(value)))
"""What a checked answer can be: it came out of orjson."""


@st.composite
def json_bytes(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES) -> bytes:
    """Any JSON text: white space around and inside, escapes or plain UTF-8, integers of any size."""
    spacing = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()), separators=spacing)
    return (draw(BLANKS) + text + draw(BLANKS)).encode()


NAMES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["ce_id", "ce_\n", "traceparent", "a"]),
    st.builds(PREFIX.__add__, st.sampled_from(["source", "origin", "replay", "errors.stub", "errors.topic", "x"])),
)
HEADER_VALUES = st.none() | st.binary(max_size=6_000) | st.sampled_from([b"t/0/1", b"7", b"101", b"-1", b"t/00/1"])
HEADERS = st.lists(st.tuples(NAMES, HEADER_VALUES), max_size=100)
KEYS = st.none() | st.binary(max_size=20)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Enriched, ENRICHMENTS, st.just(make_reply())),
    st.builds(
        Fallback,
        st.sampled_from(["rules", "review", "skip", "default"]),
        ENRICHMENTS,
        st.text(max_size=20).map(lambda raw: BadAnswer("of no use", raw)),
        st.just(0),
    ),
    st.builds(Rejected, st.text().map(NotJson), st.booleans()),
    st.just(Erased()),
    st.builds(Deferred, st.just(BreakerOpen("open")), st.integers(1, 99)),
)


def ours(headers: list[Header]) -> list[Header]:
    """Return the headers under our prefix."""
    return [header for header in headers if header[0].startswith(PREFIX)]


@UNTIMED
@given(json_bytes(), ENRICHMENTS)
def test_wrap_embeds_the_input_byte_for_byte(value: bytes, enrichment: Any) -> None:
    """The input lies in the output as it came, and decoding gives it back with its enrichment."""
    [outgoing] = route_at_now(make_record(value=value), Enriched(enrichment, make_reply()), make_task())
    assert outgoing.value is not None
    assert outgoing.value.startswith(b'{"input":' + value + b',"enrichment":')
    json.loads(outgoing.value)
    decoded = enriched.decode(outgoing.value)
    assert decoded.input == value
    assert decoded.enrichment == enrichment


@UNTIMED
@given(st.text(st.characters(exclude_categories=["Cs"])), ENRICHMENTS)
def test_text_comes_back(text: str, enrichment: Any) -> None:
    """Text is embedded as a JSON string, and decoding gives its bytes back."""
    record = make_record(value=text.encode())
    [outgoing] = route_at_now(record, Enriched(enrichment, make_reply()), make_task(input_format="text"))
    assert outgoing.value is not None
    assert json.loads(outgoing.value)["input"] == text
    assert enriched.decode(outgoing.value, Shape(text=True)).input == text.encode()


@UNTIMED
@given(json_bytes(), ENRICHMENTS, st.sampled_from(["enrichment", "", 'a"b', "ä"]))
def test_merge_only_adds_one_member(value: bytes, enrichment: Any, name: str) -> None:
    """Merging keeps every byte of the input and adds one member, or refuses; never anything else."""
    task = make_task(shape="merge", merge_as=name or "x")
    shape = Shape(kind="merge", merge_as=name or "x")
    parsed = json.loads(value)
    try:
        [outgoing] = route_at_now(make_record(value=value), Enriched(enrichment, make_reply()), task)
    except MergeRefused:
        assert not isinstance(parsed, dict) or shape.merge_as in parsed
        return
    assert outgoing.value is not None
    before, brace, blanks = value.rpartition(b"}")
    assert outgoing.value.startswith(before)
    assert outgoing.value.endswith(brace + blanks)
    merged = json.loads(outgoing.value)
    assert orjson.loads(orjson.dumps(enrichment)) == enrichment
    assert list(merged) == [*parsed, shape.merge_as]
    decoded = enriched.decode(outgoing.value, shape)
    assert decoded.input == value
    assert decoded.enrichment == enrichment


@UNTIMED
@given(HEADERS)
def test_headers_that_travel_on_are_few_and_ours_are_not_forged(headers: list[Header]) -> None:
    """Outputs carry at most 64 passed headers of at most 16 KiB, and each header of ours at most once."""
    passing = passed_on(headers)
    assert len(passing) <= MAX_ENTRIES
    assert sum(len(name.encode()) + len(value or b"") for name, value in passing) <= MAX_BYTES
    assert all(name.startswith("ce_") or name == "traceparent" for name, _ in passing)
    record = make_record(headers=headers)
    [outgoing] = route_at_now(record, Enriched({}, make_reply()), make_task())
    own = ours(outgoing.headers)
    assert len(dict(own)) == len(own)
    lineage = requests.decode(headers)
    assert dict(own)["__penstock.source"] == (lineage.origin or record.source).encode()
    assert not any(name.startswith("__penstock.errors") or name.endswith(".x") for name, _ in own)


@UNTIMED
@given(KEYS, st.none() | st.binary(max_size=50), HEADERS, st.text(), st.integers(-1, 2**62))
def test_dead_letter_keeps_key_value_and_headers(
    key: bytes | None, value: bytes | None, headers: list[Header], said: str, timestamp_ms: int
) -> None:
    """A dead letter is the input, whatever that was, and decoding separates it from what we added."""
    record = make_record(key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)
    [outgoing] = route_at_now(record, Rejected(NotJson(said)), make_task())
    assert (outgoing.key, outgoing.value, outgoing.timestamp_ms) == (key, value, None)
    letter = deadletters.decode(outgoing.value, outgoing.headers)
    kept = [header for header in letter.headers if not header[0].startswith(PREFIX)]
    assert kept == [header for header in headers if not header[0].startswith(PREFIX)]
    assert requests.decode(letter.headers) == requests.decode(headers)
    assert letter.value == value
    assert letter.failure.timestamp_ms == timestamp_ms
    assert not any(
        unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in letter.failure.exception_message
    )
    assert len(letter.failure.exception_message) <= deadletters.MESSAGE_MAX_CHARS


RECORDS = st.builds(
    make_record,
    partition=st.integers(0, 40),
    timestamp_ms=st.integers(-(2**40), 2**62),
    key=KEYS,
    value=json_bytes(),
    headers=HEADERS,
)


@UNTIMED
@given(RECORDS, OUTCOMES, st.sampled_from([12, 17]))
def test_any_outcome_of_any_record_can_be_produced(record: Record, outcome: Outcome, inputs: int) -> None:
    """Routing never raises for a decoded record, never names a partition that is not there, never invents a key."""
    partitions = PARTITIONS | {INPUT: inputs}
    stub = isinstance(outcome, Rejected) and outcome.stub
    for outgoing in route_at_now(record, outcome, make_task(order="none", when_unavailable="defer"), partitions):
        assert outgoing.key == record.key
        assert outgoing.partition is None or 0 <= outgoing.partition < partitions[outgoing.topic]
        assert outgoing.timestamp_ms is None or outgoing.timestamp_ms > 0
        assert b"".join(name.encode() for name, _ in outgoing.headers)
        if outgoing.value is not None and (stub or outgoing.topic != DLQ):
            json.loads(outgoing.value)


@UNTIMED
@given(st.binary())
def test_reading_back_anything_raises_only_value_errors(value: bytes) -> None:
    """A consumer's decode survives a foreign record with a ValueError."""
    for shape in (Shape(), Shape(kind="merge"), Shape(kind="only"), Shape(text=True)):
        try:
            enriched.decode(value, shape)
        except ValueError:
            continue


@pytest.mark.parametrize("enrichment", [{1, 2}, "\ud800", object(), json.loads("[" * 255 + "]" * 255)])
@pytest.mark.parametrize("shape", ["wrap", "merge", "only"])
def test_an_enrichment_that_is_no_json_is_a_reject(enrichment: Any, shape: str) -> None:
    """What a rule's callable or a bug puts in costs this record a dead letter; nothing leaves as another exception."""
    for outcome in (Enriched(enrichment, make_reply()), Fallback("rules", enrichment, BadAnswer("of no use"), 0)):
        with pytest.raises(Internal):
            route_at_now(make_record(), outcome, make_task(shape=shape))

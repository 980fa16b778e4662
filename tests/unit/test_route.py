"""Where an outcome's records go: topics, order, partitions, timestamps, headers."""

import pytest

from tests.support.wire import INPUT, NOW_S, PARTITIONS, TRACEPARENT, make_record, make_reply, make_task, route_at_now
from topics import deadletters, enriched, fallbacks, requests, reviews
from topics.headers import Header, passed_on
from topics.provenance import rfc3339
from topics.shapes import Shape
from workers.errors import AnswerOffSchema, MergeRefused, NotJson, TimedOut, ValueTooLarge
from workers.outcome import Enriched, Erased, Fallback, Outcome, Rejected
from workers.records import Spent
from workers.stages import s5_route
from workers.stages.s5_route import route

ENRICHED = f"{INPUT}.ticket_triage.enriched"
FALLBACK = f"{INPUT}.ticket_triage.fallback"
REVIEW = f"{INPUT}.ticket_triage.review"
DLQ = f"{INPUT}.ticket_triage.dlq"
ANSWERED = Enriched({"category": "hardware"}, make_reply())
RULES = Fallback("rules", {"category": "other"}, TimedOut("late"), 0, Spent(3))
REFUSED = Rejected(NotJson("no JSON"))


@pytest.mark.parametrize(
    ("outcome", "topics"),
    [
        (ANSWERED, [ENRICHED]),
        (RULES, [FALLBACK]),
        (Fallback("review", None, TimedOut("late"), 0), [REVIEW, FALLBACK]),
        (REFUSED, [DLQ]),
        (Erased(), [ENRICHED, FALLBACK]),
    ],
)
def test_each_outcome_has_its_topics(outcome: Outcome, topics: list[str]) -> None:
    """An outcome goes where the contract says; the review copy precedes its fallback record."""
    assert [outgoing.topic for outgoing in route_at_now(make_record(), outcome, make_task())] == topics


def test_outputs_follow_their_input_topic() -> None:
    """A task with two inputs has two sets of outputs."""
    task = make_task(inputs=("a", "b"))
    [outgoing] = route_at_now(make_record(topic="b"), ANSWERED, task, {})
    assert outgoing.topic == "b.ticket_triage.enriched"


@pytest.mark.parametrize(
    ("counts", "key", "expected"),
    [
        ({INPUT: 12, ENRICHED: 12}, b"k", 9),
        ({INPUT: 12, ENRICHED: 12}, None, 9),
        ({INPUT: 12, ENRICHED: 4}, b"k", None),
        ({INPUT: 12, ENRICHED: 4}, None, 1),
        ({INPUT: 12, ENRICHED: 24}, b"", None),
        ({INPUT: 6, ENRICHED: 6}, b"k", None),  # the input has got partitions since
        ({INPUT: 6, ENRICHED: 6}, None, 3),
        ({ENRICHED: 12}, b"k", None),
        ({}, None, None),
    ],
)
def test_partition_of_an_output(counts: dict[str, int], key: bytes | None, expected: int | None) -> None:
    """Equal counts keep the partition; else the key decides, and without a key the input's partition, wrapped round."""
    [outgoing] = route_at_now(make_record(partition=9, key=key), ANSWERED, make_task(), counts)
    assert outgoing.partition == expected


@pytest.mark.parametrize(("counts", "expected"), [({DLQ: 12}, 9), ({DLQ: 4}, 1), ({DLQ: 9}, 0), ({}, None)])
def test_partition_of_a_dead_letter(counts: dict[str, int], expected: int | None) -> None:
    """A dead letter keeps its partition number as far as that exists, whatever its key."""
    [outgoing] = route_at_now(make_record(partition=9), REFUSED, make_task(), counts)
    assert outgoing.partition == expected


NOW_MS = int(NOW_S * 1000)


@pytest.mark.fault("D15")
@pytest.mark.parametrize(
    ("timestamp_ms", "expected"),
    [
        (NOW_MS - 5, NOW_MS - 5),
        (NOW_MS + 3_540_000, NOW_MS + 3_540_000),
        (NOW_MS + 3_540_001, None),
        (2**62, None),
        (946_684_800_000, 946_684_800_000),
        (946_684_799_999, None),
        (0, None),
        (-1, None),
    ],
)
@pytest.mark.parametrize("outcome", [ANSWERED, RULES, Erased()])
def test_timestamp_of_an_output(outcome: Outcome, timestamp_ms: int, expected: int | None) -> None:
    """The input's timestamp, or now when no broker would take it or retention would delete the output at once."""
    outgoings = route_at_now(make_record(timestamp_ms=timestamp_ms), outcome, make_task())
    assert {outgoing.timestamp_ms for outgoing in outgoings} == {expected}


def test_dead_letter_is_of_now() -> None:
    """A dead letter's retention starts with its failure."""
    assert [out.timestamp_ms for out in route_at_now(make_record(), REFUSED, make_task())] == [None]


@pytest.mark.parametrize("value", [b"[1]", b"null", b"1", b'"{}"', b'{"enrichment": 1}', b'{"enri\\u0063hment": 1}'])
@pytest.mark.parametrize("outcome", [ANSWERED, RULES])
def test_merge_is_refused(value: bytes, outcome: Outcome) -> None:
    """No object, or the name is taken, escaped or not: nothing is overwritten."""
    with pytest.raises(MergeRefused):
        route_at_now(make_record(value=value), outcome, make_task(shape="merge"))


def test_merge_refuses_text() -> None:
    """Text has no members, even when it happens to look like JSON."""
    with pytest.raises(MergeRefused):
        route_at_now(make_record(value=b"{}"), ANSWERED, make_task(shape="merge", input_format="text"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{}", b'{"enrichment":{"category":"hardware"}}'),
        (b" {\n} \n", b' {\n"enrichment":{"category":"hardware"}} \n'),
        (b'{"a":1,"a":2}', b'{"a":1,"a":2,"enrichment":{"category":"hardware"}}'),
    ],
)
def test_merge_into_unusual_objects(value: bytes, expected: bytes) -> None:
    """Empty objects get no comma, duplicate keys and white space stay."""
    [outgoing] = route_at_now(make_record(value=value), ANSWERED, make_task(shape="merge"))
    assert outgoing.value == expected
    assert enriched.decode(expected, Shape(kind="merge")).input == value


def test_review_copy_is_wrapped_whatever_the_shape() -> None:
    """A person sees input, reason and the useless answer, even where the fallback topic only has the enrichment."""
    error = AnswerOffSchema("no such category", raw='{"category": "\ud800fire"}')
    copy, fallback = route_at_now(make_record(), Fallback("review", None, error, 0, Spent(1)), make_task(shape="only"))
    assert fallback.value == b"null"
    assert copy.value is not None
    provenance = reviews.decode(copy.value).provenance
    assert provenance is not None
    assert (provenance.tier, provenance.reason, provenance.attempts) == ("review", "answer_off_schema", 1)
    assert provenance.raw_answer == '{"category": "?fire"}'
    assert copy.headers == fallback.headers


def test_raw_answer_only_when_there_was_one() -> None:
    """A timeout has no answer to keep, and an empty one is none."""
    for error in (TimedOut("late"), AnswerOffSchema("empty")):
        [outgoing] = route_at_now(make_record(), Fallback("skip", None, error, 0), make_task())
        assert outgoing.value is not None
        assert b"raw_answer" not in outgoing.value
        assert fallbacks.decode(outgoing.value).enrichment is None


def test_replayed_record_keeps_its_first_source() -> None:
    """Outputs of a replay are known by their first origin; the dead letter's coordinates are those of this pass."""
    headers = requests.encode(requests.Lineage(origin="first/1/2", replays=3))
    record = make_record(headers=headers)
    [answered] = route_at_now(record, ANSWERED, make_task())
    assert dict(answered.headers)["__penstock.source"] == b"first/1/2"
    assert dict(answered.headers)["__penstock.replay"] == b"3"
    [refused] = route_at_now(record, REFUSED, make_task())
    letter = deadletters.decode(refused.value, refused.headers)
    assert letter.source == "first/1/2"
    assert (letter.failure.topic, letter.failure.partition, letter.failure.offset) == (INPUT, 3, 4711)
    assert requests.decode(letter.headers) == requests.Lineage(origin="first/1/2", replays=3)


@pytest.mark.parametrize(
    "header",
    [
        ("__penstock.origin", b"t/1"),
        ("__penstock.origin", b"t/01/2"),
        ("__penstock.origin", b"a b/1/2"),
        ("__penstock.origin", b"t/1/2\n"),
        ("__penstock.origin", None),
        ("__penstock.replay", b"101"),
        ("__penstock.replay", b"-1"),
        ("__penstock.replay", "\N{ARABIC-INDIC DIGIT ONE}".encode()),
        ("__penstock.replay", b"1" * 5_000),
        ("__penstock.source", b"t/1/2"),
        ("__penstock.errors.stub", b"true"),
    ],
)
@pytest.mark.parametrize("outcome", [ANSWERED, RULES, REFUSED, Erased()])
def test_forged_headers_are_removed(header: Header, outcome: Outcome) -> None:
    """Whoever writes the input cannot speak in our name."""
    plain = route_at_now(make_record(headers=()), outcome, make_task())
    assert route_at_now(make_record(headers=(header,)), outcome, make_task()) == plain


def test_lineage_is_the_first_well_formed_one() -> None:
    """Duplicates cannot override a lineage."""
    headers = [("__penstock.origin", b"junk"), ("__penstock.origin", b"a/0/1"), ("__penstock.origin", b"b/0/1")]
    assert requests.decode(headers).origin == "a/0/1"


@pytest.mark.fault("D14")
@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        b"ff" + TRACEPARENT[2:],
        TRACEPARENT.upper(),
        TRACEPARENT + b"\n",
        b"00-" + b"0" * 32 + TRACEPARENT[35:],
        TRACEPARENT[:36] + b"0" * 16 + b"-01",
    ],
)
def test_malformed_traceparent_does_not_travel(value: bytes | None) -> None:
    """A forged or cut traceparent would break a consumer's trace; a good one goes through."""
    assert passed_on([("traceparent", value), ("traceparent", TRACEPARENT)]) == [("traceparent", TRACEPARENT)]


@pytest.mark.fault("D13")
def test_thousand_headers() -> None:
    """At most 64 travel on, and one too large does not take the others with it."""
    many: list[Header] = [("ce_big", b"x" * 16_400), *((f"ce_{number}", b"v") for number in range(1_000))]
    assert [name for name, _ in passed_on(many)] == [f"ce_{number}" for number in range(64)]


def test_sixteen_kibibytes_of_headers() -> None:
    """The cap counts all that travel on together, and a small one may follow one that no longer fits."""
    many: list[Header] = [(f"ce_{number}", b"x" * 6_000) for number in range(3)]
    assert [name for name, _ in passed_on([*many, ("ce_small", b"")])] == ["ce_0", "ce_1", "ce_small"]


def test_odd_header_names_and_null_values() -> None:
    """Null values stay null, duplicates stay double, and a name that was no UTF-8 becomes one that can be written."""
    odd: list[Header] = [("ce_a", None), ("ce_a", b""), ("ce_\udcff", b"1"), ("", b"2"), ("x\ny", None)]
    [answered] = route_at_now(make_record(headers=odd), ANSWERED, make_task())
    assert answered.headers[:3] == [("ce_a", None), ("ce_a", b""), ("ce_\\udcff", b"1")]
    [refused] = route_at_now(make_record(headers=odd), REFUSED, make_task())
    assert refused.headers[:5] == [*odd[:2], ("ce_\\udcff", b"1"), *odd[3:]]


@pytest.mark.fault("D4")
def test_stub_fits_whatever_the_record_was() -> None:
    """Key, headers and value of any size leave a dead letter of less than 64 KiB that still names the record."""
    headers: list[Header] = [("big", b"x" * 1_000_000), *(("h" * 300, b"v" * 100) for _ in range(1_000))]
    record = make_record(key=b"k" * 500_000, value=b"v" * 500_000, headers=headers)
    [outgoing] = route_at_now(record, Rejected(ValueTooLarge("too large"), stub=True), make_task())
    size = sum(len(name) + len(value or b"") for name, value in outgoing.headers)
    assert outgoing.key is None
    assert len(outgoing.value or b"") + size < 65_536
    stub = deadletters.decode(outgoing.value, outgoing.headers).stub
    assert stub is not None
    assert (stub.size_bytes, stub.source) == (500_000, "tickets.raw/3/4711")


def test_stub_keeps_a_key_of_usual_size() -> None:
    """The key is what a person looks for, so it stays when it can."""
    [outgoing] = route_at_now(make_record(), Rejected(ValueTooLarge("too large"), stub=True), make_task())
    assert outgoing.key == b"customer-42"


def test_exception_message_is_capped_and_scrubbed() -> None:
    """An error's text cannot forge a log line, command a terminal, or fill a header."""
    said = "a\nb\x1b[31m\u202e\ud800" + "x" * 1_000
    [outgoing] = route_at_now(make_record(), Rejected(NotJson(said)), make_task())
    message = dict(outgoing.headers)["__penstock.errors.exception.message"]
    assert message == b"a b [31m  " + b"x" * 490


def test_dead_letter_names_endpoint_and_attempts() -> None:
    """Where calls were made, the dead letter says how many and where."""
    error = TimedOut("late")
    error.endpoint = "http://vllm-0:8000"
    [outgoing] = route_at_now(make_record(), Rejected(error, attempts=3), make_task())
    failure = deadletters.decode(outgoing.value, outgoing.headers).failure
    assert (failure.attempts, failure.endpoint, failure.stage) == (3, "http://vllm-0:8000", "call")


@pytest.mark.parametrize("headers", [[], [("__penstock.source", b"t/0/1")], [("__penstock.errors.offset", b"x")]])
def test_decoding_a_foreign_record_says_so(headers: list[Header]) -> None:
    """A record that is no dead letter of ours is a ValueError, not a KeyError."""
    with pytest.raises(ValueError, match="dead letter"):
        deadletters.decode(b"{}", headers)


def test_model_name_of_the_server_is_cut() -> None:
    """A server that calls itself something endless does not fill our headers."""
    [outgoing] = route_at_now(make_record(), Enriched({}, make_reply(model="m" * 9_000)), make_task())
    assert dict(outgoing.headers)["__penstock.model"] == b"m" * s5_route.MODEL_MAX_CHARS


def test_keyless_tombstone_is_forwarded_as_it_is() -> None:
    """Nobody invents a key or a value for it; the sink knows how to write it."""
    outgoings = route_at_now(make_record(key=None, value=None), Erased(), make_task())
    assert [(out.key, out.value, out.partition) for out in outgoings] == [(None, None, 3)] * 2


def test_default_clock_is_the_wall_clock() -> None:
    """Without a clock of the test's, provenance is of now."""
    [outgoing] = route(make_record(), ANSWERED, make_task(), PARTITIONS)
    assert outgoing.value is not None
    provenance = enriched.decode(outgoing.value).provenance
    assert provenance is not None
    assert provenance.produced_at > rfc3339(NOW_S)[:4]


@pytest.mark.parametrize(
    ("wall_s", "expected"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (0.9999, "1970-01-01T00:00:00.999Z"), (NOW_S, "2026-01-01T00:00:00.250Z")],
)
def test_rfc3339(wall_s: float, expected: str) -> None:
    """UTC with milliseconds, never rounded up into the next second."""
    assert rfc3339(wall_s) == expected

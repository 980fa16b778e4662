"""Every kind of record through the whole worker: exactly one outcome each, as read back from the topics."""

from dataclasses import dataclass

import orjson
import pytest
from aiokafka.structs import ConsumerRecord

from tests.support.stand import TASK, Simulate, Stand
from tests.support.topics import New
from topics import deadletters
from workers.audit import named_source

MAX_INPUT_BYTES = 20_000
HEADERS = (
    ("ce_id", b"7"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-other", b"\xff\x00"),
    ("__penstock.source", b"forged/0/0"),
    ("__penstock.errors.stage", b"forged"),
    ("__penstock.origin", b"no origin"),
)


@dataclass(frozen=True)
class Kind:
    """A record, where it has to end, and as what: the tier, or the reason of its dead letter."""

    record: New
    ends_in: str
    said: str


DEEP = b"[" * 300 + b"]" * 300
KINDS = {
    "clean": Kind(New(key=b"a", value=b'{"text": "my invoice"}'), "enriched", "model"),
    "no key": Kind(New(value=b'{"text": "no key"}'), "enriched", "model"),
    "a number": Kind(New(key=b"b", value=b"12345678901234567890123"), "enriched", "model"),
    "with headers": Kind(New(key=b"c", value=b'{"text": "headers"}', headers=HEADERS), "enriched", "model"),
    "as large as allowed": Kind(New(key=b"d", value=b'"%b"' % (b"x" * (MAX_INPUT_BYTES - 2))), "enriched", "model"),
    "malformed": Kind(New(key=b"e", value=b'{"text": ', headers=HEADERS), "dlq", "not_json"),
    "malformed, no key": Kind(New(value=b"nope"), "dlq", "not_json"),
    "not UTF-8": Kind(New(key=b"\xff\xfe", value=b'"\xff"'), "dlq", "not_utf8"),
    "empty": Kind(New(key=b"f", value=b""), "dlq", "empty"),
    "too large": Kind(New(key=b"g", value=b'"%b"' % (b"x" * MAX_INPUT_BYTES)), "dlq", "too_large"),
    "too deep": Kind(New(key=b"h", value=DEEP), "dlq", "too_deep"),
    "tombstone": Kind(New(key=b"a", headers=HEADERS), "erased", ""),
    "tombstone, no key": Kind(New(), "erased", ""),
}


@pytest.mark.fault("D1", "D2", "D3", "D4", "D5", "D13")
async def test_every_kind_of_record_has_exactly_one_outcome(stand: Stand, simulate: Simulate) -> None:
    """Each record ends once, where its kind belongs; then everything is committed and the lag is 0."""
    topic = await stand.create(partitions=1)
    await stand.put(topic, [kind.record for kind in KINDS.values()])
    tasks = {TASK: {"input": topic, "max_input_bytes": MAX_INPUT_BYTES}}
    with stand.worker(tasks, simulate(latency="const:0.02").url) as worker:
        worker.wait_finished(len(KINDS))
        assert worker.terminate()[0] == 0
    assert await stand.committed(topic) == {0: len(KINDS)}
    outputs = {where: await stand.read(topic, where) for where in ("enriched", "fallback", "dlq", "review")}
    assert outputs["review"] == []
    for offset, (name, kind) in enumerate(KINDS.items()):
        found = {
            where: [record for record in records if named_source(record) == f"{topic}/0/{offset}"]
            for where, records in outputs.items()
        }
        expected = ("enriched", "fallback") if kind.ends_in == "erased" else (kind.ends_in,)
        assert {where: len(records) for where, records in found.items() if records} == dict.fromkeys(expected, 1), name
        for where in expected:
            [record] = found[where]
            assert record.key == kind.record.key, name
            check = {"enriched": check_enriched, "dlq": check_dead_letter, "erased": check_tombstone}[kind.ends_in]
            check(kind, record)


def check_enriched(kind: Kind, record: ConsumerRecord) -> None:
    """The input's bytes are embedded as they are; of its headers only the known ones travel on, none is forged."""
    assert record.value is not None
    assert record.value.startswith(b'{"input":%b,' % (kind.record.value or b""))
    body = orjson.loads(record.value)
    assert body["enrichment"]["category"] in ("billing", "other")
    headers = dict(record.headers)
    assert headers["__penstock.tier"] == b"model"
    assert {name for name in headers if not name.startswith("__penstock.")} <= {"ce_id", "traceparent"}
    assert "__penstock.errors.stage" not in headers
    if kind.record.headers:
        assert headers["ce_id"] == b"7"


def check_dead_letter(kind: Kind, record: ConsumerRecord) -> None:
    """Key, value and headers are the input's, forged ones excepted, and ours say why."""
    letter = deadletters.decode(record.value, record.headers)
    assert (letter.failure.stage, letter.failure.reason) == ("decode", kind.said)
    assert letter.stub is None
    assert record.value == kind.record.value
    assert list(letter.headers) == [header for header in kind.record.headers if not header[0].startswith("__penstock.")]


def check_tombstone(kind: Kind, record: ConsumerRecord) -> None:
    """A tombstone stays one."""
    del kind
    assert record.value is None
    assert dict(record.headers)["__penstock.outcome"] == b"erased"

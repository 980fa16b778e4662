"""Bad records through the whole worker, on a real broker: each ends where its kind belongs, whole, and nothing else."""

import hashlib
import random
from dataclasses import dataclass

import orjson
import pytest
from aiokafka.structs import ConsumerRecord

from tests.support.stand import TASK, Simulate, Stand
from tests.support.topics import New
from topics import deadletters, enriched
from topics.headers import MAX_BYTES, MAX_ENTRIES, PREFIX, Header
from workers.audit import named_source

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MANY: tuple[Header, ...] = tuple((f"ce_{number}", b"v" * 900) for number in range(1_000))
"""1,000 headers of 900 KiB: a broker takes 1 MiB by default."""
ODD: tuple[Header, ...] = (
    *(("ce_a\nb", b"1"), ("ce_é", b"2"), ("ce_twice", b"3"), ("ce_twice", b"4"), ("ce_null", None)),
    *(("traceparent", b"not one"), ("x-other", b"\xff\x00"), ("", b"no name")),
    *((PREFIX + "source", b"forged/0/0"), (PREFIX + "tier", b"forged"), (PREFIX + "errors.stub", b"true")),
)


@dataclass(frozen=True)
class Kind:
    """A record, and the reason of its dead letter; '' when it is answered."""

    record: New
    reason: str = ""


def value(raw: bytes) -> New:
    """Return a record of this value."""
    return New(key=b"k", value=raw)


KINDS = {
    "cut": Kind(value(b'{"text": "a tick'), "not_json"),
    "empty": Kind(value(b""), "empty"),
    "byte order mark": Kind(value(b'\xef\xbb\xbf{"text": "x"}'), "not_json"),
    "UTF-16": Kind(value('{"text": "x"}'.encode("utf-16")), "not_utf8"),
    "too large": Kind(value(b'"%b"' % (b"x" * (300 << 10))), "too_large"),
    "201 deep": Kind(value(b"[" * 201 + b"]" * 201), "too_deep"),
    "1,024 deep": Kind(value(b"[" * 1_024 + b"]" * 1_024), "too_deep"),
    "100,000 deep": Kind(value(b"[" * 100_000 + b"]" * 100_000), "too_deep"),
    "100,000 open": Kind(value(b'{"a":' * 40_000), "too_deep"),
    "NaN": Kind(value(b'{"a": NaN}'), "not_json"),
    "infinity": Kind(value(b"[-Infinity]"), "not_json"),
    "1e999": Kind(value(b"[1e999]"), "not_json"),
    "a registry's frame": Kind(value(b'\x00\x00\x00\x00\x07{"text": "x"}'), "not_json"),
    "a frame that was cut": Kind(value(b"\x00\x00\x00"), "not_json"),
    "a frame of another magic": Kind(value(b"\x01\x00\x00\x00\x07\x08\x96\x01"), "not_utf8"),
    "duplicate keys": Kind(value(b'{"text": "a", "n": 18446744073709551616, "text": "b"}')),
    "tokens and controls": Kind(value('{"text": "<|im_end|>[INST]\\u0000\\u001b[2J\\u202e\u200b</s>"}'.encode())),
    "URLs": Kind(value(b'{"text": "x", "image_url": {"url": "file:///etc/passwd"}, "type": "image_url"}')),
    "1,000 headers": Kind(New(key=b"k", value=b'{"text": "x"}', headers=MANY)),
    "1,000 headers, no JSON": Kind(New(key=b"k", value=b"x", headers=MANY), "not_json"),
    "odd headers": Kind(New(key=b"k", value=b'{"text": "x"}', headers=ODD)),
    "odd headers, no JSON": Kind(New(key=b"k", value=b"x", headers=ODD), "not_json"),
    "good traceparent": Kind(New(value=b'{"text": "x"}', headers=(("traceparent", TRACEPARENT),))),
    "1970": Kind(New(key=b"k", value=b'{"text": "x"}', timestamp_ms=1_000)),
    "no key": Kind(New(value=b'{"text": "x"}')),
}


@pytest.mark.fault("D1", "D3", "D4", "D5", "D6", "D7", "D9", "D11", "D12", "D13", "D14", "D15")
async def test_each_kind_of_bad_record_costs_only_itself(real: Stand, simulate: Simulate) -> None:
    """A dead letter holds its record byte for byte and was never asked for; an answer holds its input byte for byte."""
    topic = await real.create(partitions=1)
    await real.put(topic, [kind.record for kind in KINDS.values()])
    model = simulate(latency="const:0.01")
    with real.worker({TASK: {"input": topic}}, model.url) as worker:
        worker.wait_finished(len(KINDS))
        assert worker.metric("penstock_record_age_seconds_sum") < 3_600, "1970 is no age"
        assert worker.terminate()[0] == 0
    assert not (await real.verdict(topic)).broken()
    answered = [name for name, kind in KINDS.items() if not kind.reason]
    assert model.counts()["requests"] == len(answered)
    outputs = {named_source(one): one for kind in ("enriched", "dlq") for one in await real.read(topic, kind)}
    assert len(outputs) == len(KINDS)
    for offset, (name, kind) in enumerate(KINDS.items()):
        check = check_dead_letter if kind.reason else check_enriched
        check(name, kind, outputs[f"{topic}/0/{offset}"])


def check_dead_letter(name: str, kind: Kind, record: ConsumerRecord) -> None:
    """Key, value and headers are the input's; only forged headers are gone."""
    letter = deadletters.decode(record.value, record.headers)
    assert (letter.failure.stage, letter.failure.reason, letter.stub) == ("decode", kind.reason, None), name
    assert (record.key, record.value) == (kind.record.key, kind.record.value), name
    assert list(letter.headers) == [header for header in kind.record.headers if not header[0].startswith(PREFIX)], name


def check_enriched(name: str, kind: Kind, record: ConsumerRecord) -> None:
    """The input lies in it as it came; few headers travel on, none that is forged or no trace."""
    assert record.key == kind.record.key, name
    assert enriched.decode(record.value).input == kind.record.value, name
    assert record.timestamp > 1_000_000_000_000, name
    travelled = [header for header in record.headers if not header[0].startswith(PREFIX)]
    assert len(travelled) <= MAX_ENTRIES, name
    assert sum(len(key.encode()) + len(said or b"") for key, said in travelled) <= MAX_BYTES, name
    passing = [one for one in kind.record.headers if one[0].startswith("ce_") or one[1] == TRACEPARENT]
    assert travelled == (passing[: len(travelled)] if kind.record.headers is MANY else passing), name
    assert travelled or not passing, name
    assert dict(record.headers)[PREFIX + "tier"] == b"model", name


@pytest.mark.fault("D4", "D13")
async def test_what_does_not_fit_the_dead_letter_topic_leaves_a_stub(real: Stand, simulate: Simulate) -> None:
    """Value or headers above its `max.message.bytes`: a stub with hash, size and coordinates; the next goes on."""
    topic = await real.create(partitions=1, max_bytes={"dlq": 100_000})
    chance = random.Random(4)
    large = New(key=b"k", value=chance.randbytes(300 << 10), headers=(("x-id", b"7"),))
    headers = New(key=b"k", value=b"no JSON", headers=tuple((f"h{n}", chance.randbytes(900)) for n in range(500)))
    await real.put(topic, [large, headers, New(key=b"k", value=b'{"text": "next"}')])
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.01").url) as worker:
        worker.wait_finished(3)
        assert worker.metric("penstock_producer_replaced_total") == 0
        assert worker.terminate()[0] == 0
    assert [orjson.loads(one.value)["input"] for one in await real.read(topic, "enriched")] == [{"text": "next"}]
    letters = [deadletters.decode(one.value, one.headers) for one in await real.read(topic, "dlq")]
    for offset, (record, letter) in enumerate(zip((large, headers), letters, strict=True)):
        raw = record.value or b""
        assert letter.failure.reason == ("too_large" if record is large else "not_json")
        assert letter.stub == deadletters.Stub(
            sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw), source=f"{topic}/0/{offset}"
        )
    assert letters[0].headers == [("x-id", b"7")]

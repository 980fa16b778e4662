"""Records that ask the same: through a worker that shares calls and keeps answers, each has its own output."""

import orjson

from tests.support.stand import Simulate, Stand
from tests.support.topics import New

RECORDS, TEXTS = 200, 4


async def test_duplicates_are_answered_by_few_calls(quick: Stand, simulate: Simulate) -> None:
    """Nothing is lost, order and acks are each record's own, and most answers say that they were no call of theirs."""
    topic = await quick.create()
    await quick.put(topic, [New(key=b"k%d" % n, value=b'{"text": "invoice %d"}' % (n % TEXTS)) for n in range(RECORDS)])
    settings = {"input": topic, "share_calls": True, "cache": {"max_entries": 100}}
    model = simulate(latency="const:0.2")
    with quick.worker({"triage": settings}, model.url, model={"timeout_s": 20}) as worker:
        worker.wait_finished(RECORDS)
        assert worker.terminate()[0] == 0
    found = await quick.verdict(topic)
    assert not found.broken()
    assert found.by_kind == {"enriched": RECORDS}
    told = [orjson.loads(record.value)["provenance"] for record in await quick.read(topic, "enriched")]
    paid = [one for one in told if not one.get("shared") and not one.get("cached")]
    assert len(paid) == TEXTS
    assert all(one["attempts"] == 1 for one in paid)
    assert any(one.get("shared") for one in told)
    assert all(one["attempts"] == 0 and one["input_tokens"] == 0 for one in told if one not in paid)

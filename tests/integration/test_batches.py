"""Records in batches, through a worker and a broker: each has its own answer, one of them is refused alone."""

import asyncio
import json

import orjson

from tests.support import fault_server as http
from tests.support.completions import completion_of
from tests.support.fault_server import FaultServer
from tests.support.stand import Stand
from tests.support.topics import New

RECORDS, BAD = 200, 77
BATCHED = {"dialect": "completions", "max_in_flight": 4, "timeout_s": 20, "batch": {"max_records": 8, "linger_s": 0.1}}


def tickets_step(server: FaultServer) -> http.Step:
    """Answer each ticket with its number as the summary; 400 for a request that holds the bad one."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = json.loads(server.requests[-1].body)["prompt"]
        numbers = [json.loads(text.split("\n\n", 1)[1])["n"] for text in ([asked] if isinstance(asked, str) else asked)]
        if BAD in numbers:
            return await http.status(400, {"error": {"message": "no", "code": 400}})(reader, writer)
        await asyncio.sleep(0.05)
        answers = [{"category": "other", "urgency": "low", "summary": f"ticket {number}"} for number in numbers]
        body = completion_of([json.dumps(answer) for answer in answers])
        body["choices"].reverse()
        return await http.status(200, body)(reader, writer)

    return step


async def test_tickets_in_batches(quick: Stand) -> None:
    """Nothing is lost, no answer is another's, few calls are made, and attempts are the calls that there were."""
    topic = await quick.create()
    await quick.put(topic, [New(key=b"k%d" % n, value=b'{"n": %d}' % n) for n in range(RECORDS)])
    async with FaultServer() as server:
        server.default = tickets_step(server)
        task = {"input": topic, "max_in_flight": 64, "ladder": [{"review": {}}]}
        with quick.worker({"triage": task}, server.url, model=BATCHED) as worker:
            await asyncio.to_thread(worker.wait_finished, RECORDS)
            code, _ = await asyncio.to_thread(worker.terminate)
        assert code == 0
        calls = len(server.requests)
    found = await quick.verdict(topic)
    assert not found.broken()
    assert found.by_kind["enriched"] == RECORDS - 1
    values = [orjson.loads(record.value) for record in await quick.read(topic, "enriched")]
    assert all(value["enrichment"]["summary"] == f"ticket {value['input']['n']}" for value in values)
    told = [value["provenance"] for value in values]
    [refused] = [orjson.loads(record.value)["provenance"] for record in await quick.read(topic, "fallback")]
    assert refused["reason"] == "request_refused"
    assert sum(one["attempts"] for one in [*told, refused]) == calls
    assert calls < RECORDS / 2
    assert any(one.get("batch", 0) > 1 for one in told)

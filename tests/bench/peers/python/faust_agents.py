"""What a Faust user writes: an agent with N copies. At least once; no order within a key."""

import aiohttp
import faust
import uvloop
from chat import BOOTSTRAP, GROUP, SLOTS, TOPIC_IN, TOPIC_OUT, enriched, session

uvloop.install()

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=1.0,
    stream_wait_empty=False,
    stream_buffer_maxsize=4 * SLOTS,
    producer_linger=0.005,
    producer_acks=-1,
)
raw = {"value_type": bytes, "value_serializer": "raw", "key_type": bytes}
source = app.topic(TOPIC_IN, **raw)
target = app.topic(TOPIC_OUT, **raw)
clients: list[aiohttp.ClientSession] = []


@app.agent(source, concurrency=SLOTS)
async def enrich(stream: faust.StreamT[bytes]) -> None:
    """Ask for one record after the other; N of these run."""
    if not clients:
        clients.append(session())
    async for one in stream.events():
        await (await target.send(key=one.key, value=await enriched(clients[0], one.value)))


if __name__ == "__main__":
    app.main()

"""One record in, one chat completion, one record out, with FastStream and its middleware for concurrent work.

The middleware commits a record whose handler raised, and has no redelivery (its README, "Limitations"): so the handler
tries again until it has an answer. It keeps no order within a key.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import uvloop
from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.middlewares import AckPolicy
from faststream_concurrent_aiokafka import (
    KafkaConcurrentProcessingMiddleware,
    initialize_concurrent_processing,
    stop_concurrent_processing,
)

ENV = os.environ
SLOTS = int(ENV["SLOTS"])
CALL_TIMEOUT_S = 5.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 5.0

broker = KafkaBroker(
    ENV["BOOTSTRAP"], client_id=ENV["INSTANCE"], acks="all", enable_idempotence=True, linger_ms=5, logger=None
)
broker.add_middleware(KafkaConcurrentProcessingMiddleware)
sessions: list[aiohttp.ClientSession] = []


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Open what the handler needs, for as long as the program runs."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=SLOTS), timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    )
    sessions.append(session)
    await initialize_concurrent_processing(
        broker.context, concurrency_limit=SLOTS, commit_batch_size=1_000, commit_batch_timeout_sec=0.2
    )
    try:
        yield
    finally:
        await stop_concurrent_processing(broker.context)
        await session.close()


@broker.subscriber(
    ENV["INPUT"],
    group_id=ENV["GROUP"],
    group_instance_id=ENV["INSTANCE"] if ENV["STATIC"] == "1" else None,
    session_timeout_ms=int(ENV["SESSION_TIMEOUT_MS"]),
    heartbeat_interval_ms=int(ENV["HEARTBEAT_MS"]),
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.MANUAL,
)
async def enrich(record: dict[str, Any], received: KafkaMessage) -> None:
    """Ask, and write the answer with the record's key; returns when the broker has confirmed it."""
    answer = await ask(orjson.dumps(record).decode())
    raw = received.raw_message
    await broker.publish(
        orjson.dumps({"answer": answer}),
        ENV["OUTPUT"],
        key=raw.key,
        headers={"__penstock.source": f"{raw.topic}/{raw.partition}/{raw.offset}"},
    )


async def ask(text: str) -> str:
    """Return the model's answer, however long it takes."""
    body = {"model": "simulated", "messages": [{"role": "user", "content": text}]}
    delay_s = FIRST_DELAY_S
    while True:
        try:
            async with sessions[0].post(ENV["URL"], json=body) as response:
                if response.status == 200:
                    return str((await response.json())["choices"][0]["message"]["content"])
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(delay_s * random.uniform(0.5, 1))
        delay_s = min(LONGEST_DELAY_S, 2 * delay_s)


if __name__ == "__main__":
    uvloop.run(FastStream(broker, lifespan=lifespan, logger=None).run())

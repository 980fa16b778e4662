"""FastStream with its middleware for concurrent work: at least once, no order within a key.

The middleware commits a record whose handler raised: hence a handler that repeats the call until it has an answer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvloop
from chat import BOOTSTRAP, GROUP, INSTANCE, SLOTS, TOPIC_IN, TOPIC_OUT, enriched, session
from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.middlewares import AckPolicy
from faststream_concurrent_aiokafka import (
    KafkaConcurrentProcessingMiddleware,
    initialize_concurrent_processing,
    stop_concurrent_processing,
)

broker = KafkaBroker(BOOTSTRAP, acks="all", enable_idempotence=True, linger_ms=5, logger=None)
broker.add_middleware(KafkaConcurrentProcessingMiddleware)
clients: list[aiohttp.ClientSession] = []


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Open what the handler needs, for as long as the program runs."""
    clients.append(session())
    await initialize_concurrent_processing(
        broker.context, concurrency_limit=SLOTS, commit_batch_size=1_000, commit_batch_timeout_sec=1.0
    )
    try:
        yield
    finally:
        await stop_concurrent_processing(broker.context)
        await clients[0].close()


@broker.subscriber(
    TOPIC_IN,
    group_id=GROUP,
    group_instance_id=INSTANCE,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.MANUAL,
    decoder=lambda received: received.body,
)
async def enrich(value: bytes, received: KafkaMessage) -> None:
    """Ask, and write the answer with the record's key; returns when the broker has confirmed it."""
    await broker.publish(await enriched(clients[0], value), TOPIC_OUT, key=received.raw_message.key)


if __name__ == "__main__":
    uvloop.run(FastStream(broker, lifespan=lifespan, logger=None).run())

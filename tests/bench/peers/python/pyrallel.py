"""pyrallel-consumer, a Python port of the idea of Parallel Consumer; needs Python 3.12. At least once, unordered."""

import asyncio
from typing import Any

import orjson
import uvloop
from chat import BOOTSTRAP, GROUP, SLOTS, TOPIC_IN, TOPIC_OUT, enriched, session
from confluent_kafka import Producer
from pyrallel_consumer.config import KafkaConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.dto import ExecutionMode, WorkItem

POLL_S = 0.002


def configured() -> KafkaConfig:
    """Return the library's settings."""
    config = KafkaConfig()
    config.BOOTSTRAP_SERVERS = [BOOTSTRAP]
    config.CONSUMER_GROUP = GROUP
    config.AUTO_OFFSET_RESET = "earliest"
    config.dlq_enabled = False
    config.parallel_consumer.ordering_mode = "unordered"
    config.parallel_consumer.execution.mode = ExecutionMode.ASYNC
    config.parallel_consumer.execution.max_in_flight = SLOTS
    return config


async def main() -> None:
    """Work for ever."""
    loop = asyncio.get_running_loop()
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 5, "acks": "all"})

    async def confirmations() -> None:
        while True:
            producer.poll(0)
            await asyncio.sleep(POLL_S)

    async with session() as client:

        async def work(given: WorkItem) -> None:
            value = given.payload if isinstance(given.payload, bytes) else orjson.dumps(given.payload)
            confirmed = loop.create_future()

            def settle(error: Any, _: Any) -> None:
                if error:
                    confirmed.set_exception(RuntimeError(str(error)))
                else:
                    confirmed.set_result(None)

            producer.produce(TOPIC_OUT, await enriched(client, value), on_delivery=settle)
            await confirmed

        polling = asyncio.create_task(confirmations())
        await PyrallelConsumer(config=configured(), worker=work, topic=TOPIC_IN).start()
        await polling


if __name__ == "__main__":
    uvloop.run(main())

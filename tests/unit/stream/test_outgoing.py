"""The way out, over producers that answer as they are told to. What the accumulator promises: test_accumulator."""

import asyncio
import gc
import re
from collections import deque
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import DefaultPartitioner

from tests.support.memory import BOUND_S, until
from tests.support.producer import NEVER, Batch, Producer
from workers.errors import OutputRefused, OutputTooLarge
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream.accumulator import LINGER_S
from workers.stream.outgoing import Outgoings, size_bytes

KAFKA = Kafka(bootstrap_servers="nowhere:1", group_id="g", send_timeout_s=0.2)


class Scripted(Outgoings):
    """Opens the producers it was given, one after the other, and then good ones."""

    def __init__(self, *producers: Producer | Exception, alone: Producer | None = None, **limits: int) -> None:
        super().__init__(KAFKA, dict.fromkeys(limits or ["out"], 4), limits)
        self.coming = deque(producers)
        self.coming_alone = alone
        self.opened: list[Producer] = []

    async def _opened(self, *, idempotent: bool = True) -> Any:
        await asyncio.sleep(0)
        if not idempotent:
            self.alone = self.coming_alone or Producer(idempotent=False)
            return self.alone
        coming = self.coming.popleft() if self.coming else Producer()
        if isinstance(coming, Exception):
            raise coming
        self.opened.append(coming)
        return coming


def outgoing(
    value: bytes | None = b"v", key: bytes | None = b"k", topic: str = "out", partition: int | None = 0
) -> Outgoing:
    """A record to be produced."""
    return Outgoing(topic, partition, key, value, [], None)


async def started(*producers: Producer | Exception, **scripted: Any) -> Scripted:
    """Return an open way out."""
    out = Scripted(*producers, **scripted)
    await out.start()
    return out


async def send(out: Scripted, *records: Outgoing) -> None:
    """Send side by side, in bounded time."""
    await asyncio.wait_for(asyncio.gather(*(out.send(one) for one in records)), BOUND_S)


async def test_a_send_returns_when_it_is_confirmed() -> None:
    """Not before: the ack depends on it."""
    out = await started(Producer(NEVER))
    sending = asyncio.create_task(out.send(outgoing()))
    await until(lambda: out.pending == 1)
    await asyncio.sleep(0.01)
    assert not sending.done()
    assert out.pending_s() > 0
    sending.cancel()
    await until(lambda: out.pending == 0)
    assert out.pending_s() == 0.0
    assert not out.oldest()


async def test_what_cannot_fit_is_not_sent() -> None:
    """The topic's limit is known: a record over it would spoil the producer."""
    producer = Producer()
    out = await started(producer, out=1_000)
    with pytest.raises(OutputTooLarge):
        await out.send(outgoing(b"v" * 1_000))
    length_bytes = 1  # more than an empty value's
    await send(out, outgoing(b"v" * (1_000 - size_bytes(outgoing(b"", b"k")) - length_bytes)))
    assert len(producer.got) == 1


async def test_what_was_not_enqueued_is_tried_again() -> None:
    """An error from `send` itself means that nothing was enqueued; the producer is as good as before."""
    producer = Producer(enqueue=(KafkaTimeoutError(), AssertionError("Unrecognized partition")))
    out = await started(producer)
    await send(out, outgoing(b"1"))
    assert producer.got == [b"1"]
    assert len(out.opened) == 1


async def test_a_spent_producer_is_replaced_once() -> None:
    """Many sends fail at the same time: one successor, and each of them is sent again by it."""
    spent = Producer(*(OutOfOrderSequenceNumber() for _ in range(4)))
    out = await started(spent)
    await send(out, *(outgoing(b"%d" % number, partition=number % 4) for number in range(20)))
    assert len(out.opened) == 2
    assert spent.stopped
    assert sorted(out.opened[1].got, key=int) == [b"%d" % number for number in range(20)]


@pytest.mark.fault("O2")
async def test_a_send_that_a_spent_producer_never_took_goes_to_its_successor() -> None:
    """O2: it waited for its topic's metadata, and a closed client waits for that for ever."""

    class Waiting(Producer):
        """Takes what is for partition 0 only."""

        async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[object]":
            if partition:
                await asyncio.Event().wait()
            return await super().send_batch(batch, topic, partition=partition)

    out = await started(Waiting(KafkaError()))
    waiting = [asyncio.create_task(out.send(outgoing(value, partition=1))) for value in (b"waits", b"leaves")]
    await until(lambda: out.pending == 2)
    await asyncio.sleep(2 * LINGER_S)
    waiting[1].cancel()
    await send(out, outgoing(b"refused"))
    await asyncio.wait_for(waiting[0], BOUND_S)
    assert sorted(out.opened[1].got) == [b"refused", b"waits"]
    await asyncio.wait({waiting[1]})
    assert waiting[1].cancelled()


@pytest.mark.fault("O2")
async def test_a_cancellation_that_meets_the_producers_end_is_not_lost() -> None:
    """Its partition is revoked in the same moment: it is not sent by the successor."""
    out = await started(Producer())
    first: Any = out.opened[0]
    take = first.send_batch

    async def send_never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    first.send_batch = send_never
    sending = asyncio.create_task(out.send(outgoing(b"revoked")))
    await until(lambda: out.pending == 1)
    await asyncio.sleep(2 * LINGER_S)
    first.send_batch = take
    out._accumulator.send_away(first)
    sending.cancel()
    await asyncio.wait({sending}, timeout=BOUND_S)
    assert sending.cancelled()
    assert out.pending == 0
    await send(out, outgoing(b"next"))
    assert first.got == [b"next"]


async def test_the_next_producer_may_be_spent_as_well() -> None:
    """Errors go on until they end; nothing is lost and nothing gives up."""
    out = await started(Producer(KafkaError()), Producer(KafkaError()), Producer())
    await send(out, outgoing(b"1"))
    assert [producer.got for producer in out.opened] == [[], [], [b"1"]]


async def test_a_producer_that_cannot_be_opened_is_tried_again() -> None:
    """The broker may be away just then; sends wait."""
    out = await started(Producer(KafkaError()), KafkaConnectionError(), OSError())
    await send(out, outgoing(b"1"))
    assert out.opened[-1].got == [b"1"]


async def test_what_a_spent_producer_still_owes_is_sent_again() -> None:
    """Its other sends get their time; what is unknown then is repeated: a duplicate rather than a loss."""

    class Hanging(Producer):
        """Fails what it owes when it is stopped, as aiokafka does when it is ended."""

        async def stop(self) -> None:
            for future in self.futures:
                if not future.done():
                    future.set_exception(KafkaError("ended"))

    out = await started(Hanging(NEVER, KafkaError()))
    await send(out, outgoing(b"hangs"), outgoing(b"fails", partition=1))
    assert sorted(out.opened[-1].got) == [b"fails", b"hangs"]


async def test_a_spent_producers_other_batches_get_their_time() -> None:
    """It is not closed over a batch that may still be confirmed: that one would be a duplicate."""
    spent = Producer(NEVER, KafkaError())
    out = await started(spent)
    out._kafka = KAFKA.model_copy(update={"send_timeout_s": 60.0})
    sending = asyncio.create_task(send(out, outgoing(b"slow"), outgoing(b"fails", partition=1)))
    await until(lambda: not out._usable.is_set())
    await asyncio.sleep(0.02)
    assert not spent.stopped
    spent.futures[0].set_result(None)
    await sending
    assert out.opened[1].got == [b"fails"]


@pytest.mark.fault("O1")
async def test_a_refused_batch_is_sent_record_by_record() -> None:
    """O1: one of them was too large; its neighbours arrive, and only it is refused."""
    refused = MessageSizeTooLargeError()
    alone = Producer(MessageSizeTooLargeError(), None, None, idempotent=False)
    out = await started(Producer(refused), alone=alone)
    results = await asyncio.wait_for(
        asyncio.gather(*(out.send(outgoing(b"%d" % number)) for number in range(3)), return_exceptions=True), BOUND_S
    )
    assert [type(result) for result in results] == [OutputRefused, type(None), type(None)]
    assert alone.got == [b"1", b"2"]
    assert len(out.opened) == 2


async def test_a_record_alone_is_tried_again() -> None:
    """Its producer may be away just then; only the broker's refusal is the last word."""
    alone = Producer(KafkaConnectionError(), enqueue=(AssertionError("Unrecognized partition"),), idempotent=False)
    out = await started(Producer(MessageSizeTooLargeError()), alone=alone)
    await send(out, outgoing(b"1"))
    assert alone.got == [b"1"]


async def test_a_keyless_tombstone_is_sent() -> None:
    """The client's `send` would refuse it; a batch has no such rule."""
    out = await started(Producer())
    await send(out, outgoing(None, None))
    assert out.opened[0].got == [b""]


async def test_a_record_without_a_partition_goes_where_any_producer_would_put_it() -> None:
    """By its key, over as many partitions as the topic has by now: as many as at the start while nobody knows."""
    keys = [b"key-%d" % number for number in range(50)]
    out = await started()
    for count in (4, 7):
        every = list(range(count))
        await send(out, *(outgoing(key, key, partition=None) for key in keys))
        taken = out.opened[0].taken
        assert {value: at for _, at, values in taken for value in values} == {
            key: DefaultPartitioner()(key, every, every) for key in keys
        }
        taken.clear()
        out.opened[0].client.cluster.found["out"] = set(range(7))


@pytest.mark.fault("O2")
async def test_a_send_to_one_topic_that_hangs_is_seen_beside_others_that_work() -> None:
    """O2: `/readyz` looks at the oldest send, whatever it waits for: other topics' confirmations hide nothing."""

    class OfOthers(Producer):
        """Has no right to the topic `out`."""

        async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[object]":
            if topic == "out":
                raise TopicAuthorizationFailedError
            return await super().send_batch(batch, topic, partition=partition)

    out = await started(OfOthers())
    stuck = asyncio.create_task(out.send(outgoing(b"stuck")))
    await until(lambda: "TopicAuthorizationFailedError" in out.oldest())
    stuck_s = out.pending_s()
    assert re.match(r"the oldest send, to out, has waited \d+ s", out.oldest())
    await send(out, outgoing(b"works", topic="other"))
    assert out.pending_s() > stuck_s > 0
    stuck.cancel()


@pytest.mark.fault("O3")
async def test_a_right_that_is_missing_does_not_spin() -> None:
    """O3: each producer is refused at once: they are replaced with pauses, not as fast as the broker can refuse."""
    out = await started(*(Producer(TopicAuthorizationFailedError()) for _ in range(50)))
    sending = asyncio.create_task(out.send(outgoing()))
    await asyncio.sleep(0.5)
    assert len(out.opened) <= 3
    sending.cancel()


async def test_an_error_that_nobody_waits_for_is_looked_at() -> None:
    """The sender was cancelled (its partition left), and then the send failed: that is no unhandled error."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    producer = Producer(NEVER)
    out = await started(producer)
    sending = asyncio.create_task(out.send(outgoing()))
    await until(lambda: producer.futures)
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    del sending
    producer.futures.pop().set_exception(KafkaError("late"))
    await asyncio.sleep(0)
    gc.collect()
    assert not seen
    assert out.pending == 0


async def test_close_ends_the_replacement() -> None:
    """P1: a worker that stops while its producer is being replaced stops."""
    out = await started(Producer(KafkaError()), *(KafkaConnectionError() for _ in range(100)))
    sending = asyncio.create_task(out.send(outgoing()))
    await until(lambda: not out._usable.is_set())
    await asyncio.wait_for(out.close(), BOUND_S)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert out.opened[0].stopped

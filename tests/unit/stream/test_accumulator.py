"""What waits to be produced, over a producer that answers as it is told to."""

import asyncio
from collections import deque
from typing import Any

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError

from tests.support.memory import BOUND_S, until
from tests.support.producer import NEVER, Producer
from workers.records import Outgoing
from workers.stream import accumulator
from workers.stream.accumulator import LINGER_S, Accumulator
from workers.stream.queue import Sending

LONG_S = 60.0
"""Longer than any test."""
LARGE = b"v" * 10_000
"""More than half of a batch."""


def sending(value: bytes = b"v", topic: str = "out", headers: list[Any] | None = None) -> Sending:
    """A record to be produced."""
    return Sending(Outgoing(topic, None, b"k", value, headers or [], None), len(value), 0.0)


class Out(Accumulator):
    """Over one producer; `errors` is what it is told of."""

    def __init__(self, producer: Producer) -> None:
        super().__init__(self._the_producer, lambda _, error: self.errors.append(error))
        self.batch_bytes = producer.batch_bytes
        self.producer = producer
        self.errors: list[KafkaError] = []

    async def _the_producer(self) -> Any:
        return self.producer

    def send(self, *values: bytes, partition: int = 0, topic: str = "out") -> "list[asyncio.Future[Any]]":
        """Add records; return their answers."""
        return [self.add(sending(value, topic), partition) for value in values]

    def lingers_no_more(self) -> None:
        """End the linger that runs now."""
        assert self._linger is not None
        self._linger.cancel()
        self._lingered()

    def taken(self) -> list[list[bytes]]:
        """Return the values of each batch."""
        return [values for _, _, values in self.producer.taken]


async def answered(answers: "list[asyncio.Future[Any]]") -> list[Any]:
    """Wait, in bounded time."""
    return await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), BOUND_S)


async def turns() -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linger until the test ends it."""
    monkeypatch.setattr(accumulator, "LINGER_S", LONG_S)


@pytest.mark.usefixtures("patient")
async def test_what_comes_during_a_linger_is_one_batch_of_its_partition() -> None:
    """In the order in which it came, each record with its answer."""
    out = Out(Producer())
    records = out.send(b"1", b"2")
    await turns()
    assert out.taken() == []
    records += out.send(b"3")
    out.lingers_no_more()
    assert await answered(records) == [None, None, None]
    assert out.taken() == [[b"1", b"2", b"3"]]


@pytest.mark.usefixtures("patient")
async def test_all_partitions_linger_together() -> None:
    """From the first record of any: one request has the batches of all, also of those that began later."""
    out = Out(Producer(*[NEVER] * 3))
    out.send(b"1")
    timer = out._linger
    await turns()
    out.send(b"2", partition=1)
    out.send(b"3", topic="other")
    assert out._linger is timer
    out.lingers_no_more()
    await until(lambda: out.taken() != [])
    assert out.producer.taken == [("out", 0, [b"1"]), ("out", 1, [b"2"]), ("other", 0, [b"3"])]
    assert not out._gathered
    out.close()


async def test_the_next_batch_waits_for_the_answer() -> None:
    """One in flight for each partition, and what came meanwhile is the next, whole; other partitions go on."""
    out = Out(Producer(NEVER))
    first = out.send(b"1")
    await until(lambda: out.taken() == [[b"1"]])
    then = out.send(b"2")
    await asyncio.sleep(2 * LINGER_S)
    then += out.send(b"3")
    await asyncio.sleep(2 * LINGER_S)
    assert await answered(out.send(b"other", partition=1)) == [None]
    assert out.taken() == [[b"1"], [b"other"]]
    out.producer.futures[0].set_result(None)
    assert await answered([*first, *then]) == [None, None, None]
    assert out.taken() == [[b"1"], [b"other"], [b"2", b"3"]]


@pytest.mark.usefixtures("patient")
async def test_what_comes_while_a_batch_flies_lingers_as_well() -> None:
    """The answer to a batch does not send the next one before its time."""
    out = Out(Producer(NEVER))
    first = out.send(b"1")
    out.lingers_no_more()
    await until(lambda: out.taken() == [[b"1"]])
    then = out.send(b"2")
    out.producer.futures[0].set_result(None)
    await answered(first)
    await turns()
    assert out.taken() == [[b"1"]]
    then += out.send(b"3")
    out.lingers_no_more()
    assert await answered(then) == [None, None]
    assert out.taken() == [[b"1"], [b"2", b"3"]]


async def test_a_batch_that_is_full_does_not_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent at once, and what did not go in right after its answer."""
    monkeypatch.setattr(accumulator, "LINGER_S", LONG_S)
    out = Out(Producer())
    assert await answered(out.send(LARGE + b"1", LARGE + b"2", LARGE + b"3")) == [None, None, None]
    assert out.taken() == [[LARGE + b"1"], [LARGE + b"2"], [LARGE + b"3"]]
    one = out.send(b"4")
    await asyncio.sleep(LINGER_S)
    assert len(out.taken()) == 3
    assert await answered([*one, *out.send(LARGE, LARGE)]) == [None, None, None]


async def test_who_leaves_before_the_batch_is_made_is_not_sent() -> None:
    """Its partition was revoked: an output now would be a sure duplicate. Later it may arrive, and nobody minds."""
    out = Out(Producer(NEVER))
    leaves, stays = out.send(b"leaves", b"stays")
    leaves.cancel()
    await until(lambda: out.taken() == [[b"stays"]])
    stays.cancel()
    out.producer.futures[0].set_result(None)
    only = out.send(b"leaves, too")
    only[0].cancel()
    await asyncio.sleep(2 * LINGER_S)
    assert await answered(out.send(b"last")) == [None]
    assert out.taken() == [[b"stays"], [b"last"]]


async def test_an_error_is_told_to_all_in_the_batch_and_to_nobody_else() -> None:
    """They decide what to do; the producer's owner is told once."""
    out = Out(Producer(None, KafkaError()))
    others = out.send(b"3", partition=1)
    answers = await answered(out.send(b"1", b"2"))
    assert answers == [out.errors[0]] * 2
    assert len(out.errors) == 1
    assert await answered(others) == [None]


async def test_what_is_not_taken_is_tried_again_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what came meanwhile behind it; the error can be read until then."""
    monkeypatch.setattr(accumulator, "RETRY_S", 0.01)
    out = Out(Producer(enqueue=tuple(KafkaTimeoutError() for _ in range(1_000))))
    first, second = sending(b"1"), sending(b"2")
    answers = [out.add(first, 0), out.add(second, 0)]
    await until(lambda: bool(second.error))
    assert first.error == "KafkaTimeoutError"
    out.producer.enqueue = deque([AssertionError("Unrecognized partition")])
    assert await answered([*answers, *out.send(b"3")]) == [None, None, None]
    assert out.taken() == [[b"1", b"2", b"3"]]
    assert first.error == "AssertionError"
    assert not out.errors


async def test_a_record_that_is_none_costs_nobody_else() -> None:
    """A bug of ours: the record fails as it would in `send()`, and its neighbours are sent."""
    out = Out(Producer())
    odd = out.add(sending(headers=[("\udcff", b"")]), 0), out.add(sending(headers=[("name", "text")]), 0)
    answers = await answered([*out.send(b"1"), *odd, *out.send(b"2")])
    assert [type(answer) for answer in answers] == [type(None), UnicodeEncodeError, TypeError, type(None)]
    assert out.taken() == [[b"1", b"2"]]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seam", ["create_batch", "send_batch"])
async def test_a_bug_is_told_to_those_who_wait(monkeypatch: pytest.MonkeyPatch, seam: str) -> None:
    """They would wait for ever; who comes later is not touched by it."""
    out = Out(Producer())

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(out.producer, seam, broken)
        answers = await answered(out.send(LARGE, LARGE))
        assert [type(answer) for answer in answers] == [RuntimeError] * 2
    later = out.send(b"3")
    await turns()
    assert out.taken() == []
    out.lingers_no_more()
    assert await answered(later) == [None]
    assert out.taken() == [[b"3"]]


async def test_what_is_sent_away_flies_again_with_what_is_known_of_it() -> None:
    """Its last error stays to be read: that a producer was closed says nothing about the record."""
    out = Out(Producer())
    take: Any = out.producer.send_batch
    producer: Any = out.producer

    async def send_never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    producer.send_batch = send_never
    one = sending(b"1")
    one.error = "KafkaTimeoutError"
    answer = out.add(one, 0)
    await asyncio.sleep(4 * LINGER_S)
    producer.send_batch = take
    out.send_away(Producer())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert out.taken() == []
    out.send_away(producer)
    assert await answered([answer]) == [None]
    assert one.error == "KafkaTimeoutError"


@pytest.mark.parametrize("away", [False, True])
async def test_a_close_that_meets_the_producers_end_is_not_lost(*, away: bool) -> None:
    """What a producer has not taken must not fly when nothing shall, whether it was sent away or not."""
    out = Out(Producer())
    hung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send_never(*_: object, **__: object) -> None:
        await hung

    take: Any = out.producer.send_batch
    producer: Any = out.producer
    producer.send_batch = send_never
    out.send(b"1")
    await asyncio.sleep(2 * LINGER_S)
    producer.send_batch = take
    if away:
        out.send_away(producer)
    out.close()
    await asyncio.sleep(4 * LINGER_S)
    assert out.taken() == []


async def test_close_ends_a_linger() -> None:
    """Nothing is left that wakes up later."""
    out = Out(Producer())
    out.send(b"1")
    out.close()
    await asyncio.sleep(4 * LINGER_S)
    assert out.taken() == []

"""Records on their way out: whatever comes, leaves, is refused or fails, each is told the truth, once."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.producer import NEVER, Producer
from workers.records import Outgoing
from workers.stream import accumulator
from workers.stream.accumulator import Accumulator
from workers.stream.queue import Sending

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("add", "large", "leave", "linger", "confirm", "fail", "refuse", "away")), st.integers(0, 7)
    ),
    max_size=60,
)
PARTITIONS = 3
TURNS = 6
"""Of the loop, until everything that can go on has."""


class Rig(Accumulator):
    """One whose linger ends when the test says so, and whose producer is replaced at once."""

    def __init__(self) -> None:
        super().__init__(self._the_producer, lambda *_: None)
        self.batch_bytes = 2_000
        self.answers: dict[bytes, asyncio.Future[Any]] = {}
        self.left: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.producer: Any = None
        self.renew()

    def renew(self) -> None:
        """Have a producer that takes everything, and answers when it is told to."""
        self.producer = Producer(*[NEVER] * 1_000, batch_bytes=self.batch_bytes)

    async def _the_producer(self) -> Any:
        return self.producer

    def step(self, what: str, number: int) -> None:
        """Do one thing; `number` says to whom."""
        waiting = [value for value, answer in self.answers.items() if not answer.done()]
        flying = [queue for queue in self._queues.values() if queue.owed is not None]
        if what in {"add", "large"}:
            value = b"%d" % len(self.answers) + b"x" * (1_500 if what == "large" else 0)
            one = Sending(Outgoing("out", None, b"k", value, [], None), len(value), 0.0)
            self.answers[value] = self.add(one, number % PARTITIONS)
        elif what == "leave" and waiting:
            self.left.add(waiting[number % len(waiting)])
            self.answers[waiting[number % len(waiting)]].cancel()
        elif what == "linger":
            self._lingered()
        elif what in {"confirm", "fail"} and flying:
            self._answer(flying[number % len(flying)], what)
        elif what == "refuse":
            self.producer.enqueue.append(KafkaTimeoutError())
        elif what == "away":
            self.send_away(self.producer)

    def _answer(self, queue: Any, what: str) -> None:
        values = {each.outgoing.value for each in queue.aboard}
        batch = next(n for n, (_, _, taken) in enumerate(self.producer.taken) if values & set(taken) and self._open(n))
        (self.confirmed if what == "confirm" else self.failed).update(self.producer.taken[batch][2])
        future = self.producer.futures[batch]
        future.set_result(None) if what == "confirm" else future.set_exception(KafkaError())

    def _open(self, batch: int) -> bool:
        return not self.producer.futures[batch].done()

    def check(self) -> None:
        """Hold it against what happened."""
        for at in range(PARTITIONS):
            flying = [n for n, (_, where, _) in enumerate(self.producer.taken) if where == at and self._open(n)]
            assert len(flying) <= 1
        for value, answer in self.answers.items():
            if answer.done() and not answer.cancelled():
                assert value in (self.confirmed if answer.result() is None else self.failed)
        values = [value for _, _, taken in self.producer.taken for value in taken]
        assert len(values) == len(set(values))


@given(STEPS)
def test_everyone_who_stays_is_told_what_became_of_the_batch(steps: list[tuple[str, int]]) -> None:
    """Nobody is told something else, is sent twice, or is forgotten; a partition has one batch in flight."""

    async def run() -> None:
        rig = Rig()
        for what, number in steps:
            rig.step(what, number)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            rig.check()
        rig.producer.enqueue.clear()
        for _ in range(2 * len(steps) + 2):
            rig.step("linger", 0)
            await asyncio.sleep(0.001)
            rig.step("confirm", 0)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        rig.check()
        assert {value for value, answer in rig.answers.items() if answer.cancelled()} == rig.left
        assert all(answer.done() for answer in rig.answers.values())
        rig.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulator, "RETRY_S", 0.0)
        asyncio.run(run())

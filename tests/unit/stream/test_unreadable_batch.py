"""A batch that cannot be read: what is before it is done, what is behind it is not touched, and the worker ends."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, GroupAuthorizationFailedError

from tests.support.memory import BOUND_S, TOPIC, Fetched, LogConsumer, Rig, until
from workers.errors import EX_CONFIG, EX_SOFTWARE, Exit

TP = TopicPartition(TOPIC, 0)
BAD_FROM = 7


class Corrupt(LogConsumer):
    """Fails as aiokafka does: a fetch that comes to the batch gives nothing of what came before it either."""

    async def getmany(
        self, *tps: TopicPartition, timeout_ms: int = 0, max_records: int = 1
    ) -> dict[TopicPartition, list[Fetched]]:
        """Give what is there, up to the batch."""
        position = self.positions.get(TP, -1)
        if TP in tps and position <= BAD_FROM < position + max_records:
            self.positions[TP] = BAD_FROM  # it forgets the others: only a seek brings them back
            raise CorruptRecordException(f"Invalid CRC - {TP}")
        return await super().getmany(*tps, timeout_ms=timeout_ms, max_records=max_records)


@pytest.mark.fault("B10")
async def test_everything_up_to_the_batch_is_read_and_nothing_behind_it() -> None:
    """B10: the sentence names the place, so that a person can move the group's offset behind it."""
    async with Rig() as rig:
        rig.consumer.__class__ = Corrupt
        rig.write(0, range(20))
        rig.write(1, range(5))
        await rig.assign(0, 1)
        with pytest.raises(Exit, match=rf"{TOPIC}/0 at offset {BAD_FROM} .*nothing was skipped") as caught:
            await asyncio.wait_for(asyncio.shield(rig.pump), BOUND_S)
        assert caught.value.code == EX_SOFTWARE
        await until(lambda: len(rig.offsets_done()) == BAD_FROM)
        assert rig.offsets_done() == list(range(BAD_FROM))
        assert rig.offsets_done(1) == list(range(5))


async def test_a_group_that_may_not_be_read_ends_the_worker() -> None:
    """B8: heartbeats are refused, and the client gives that to whoever fetches; trying again is of no use."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.errors.append(GroupAuthorizationFailedError("g"))
        with pytest.raises(Exit, match="grant READ") as caught:
            await asyncio.wait_for(asyncio.shield(rig.pump), BOUND_S)
        assert caught.value.code == EX_CONFIG

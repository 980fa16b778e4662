"""Commits against a consumer that answers as it is told to."""

import asyncio
from collections import deque
from random import Random

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetMetadataTooLargeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from workers.errors import EX_CONFIG, Exit
from workers.stream.commit_metadata import decode
from workers.stream.commits import EVICTIONS_MAX, Commits
from workers.stream.ledger import Ledger

TP = TopicPartition("in", 0)
Offsets = dict[TopicPartition, tuple[int, str]]


class Group:
    """The one method of a consumer that commits need. An answer is an error, or an event to wait for."""

    def __init__(self, *answers: KafkaError | asyncio.Event, metadata_max_chars: int = 4_096) -> None:
        self.answers = deque(answers)
        self.metadata_max_chars = metadata_max_chars
        self.asked: list[Offsets] = []
        self.stored: list[Offsets] = []

    async def commit(self, offsets: Offsets) -> None:
        """Store the offsets, unless the script says otherwise."""
        self.asked.append(offsets)
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        elif answer is not None:
            raise answer
        if any(len(metadata) > self.metadata_max_chars for _, metadata in offsets.values()):
            raise OffsetMetadataTooLargeError
        self.stored.append(offsets)


def evicted() -> CommitFailedError:
    """What aiokafka raises when the group does not know this member any more."""
    error = CommitFailedError()
    error.__cause__ = UnknownMemberIdError()
    return error


def half_done() -> Ledger:
    """A ledger with offsets 0 to 4 delivered and 1 and 3 finished."""
    ledger = Ledger("in", 0, 0)
    for offset in range(5):
        ledger.take(offset, 0)
    ledger.finish(1)
    ledger.finish(3)
    return ledger


async def test_a_commit_holds_position_and_bitmap() -> None:
    """The offset never passes an unfinished record, the metadata names what is finished past it."""
    group = Group()
    commits = Commits(group, "cluster")
    await commits.commit([half_done()])
    [(offset, metadata)] = [stored[TP] for stored in group.stored]
    assert offset == 0
    assert decode(0, metadata, commits.fingerprint(TP)) == {1, 3}
    assert commits.committed == {TP: 0}


async def test_only_what_changed_is_committed() -> None:
    """An idle partition costs no request; a finish, a delivery and a passed gap each cost one."""
    group, ledger = Group(), half_done()
    commits = Commits(group, "cluster")
    for _ in range(3):
        await commits.commit([ledger])
    assert len(group.asked) == 1
    ledger.finish(0)
    await commits.commit([ledger])
    ledger.take(5, 0)
    await commits.commit([ledger])
    for offset in (2, 4, 5):
        ledger.finish(offset)
    ledger.pass_gap(9)
    await commits.commit([ledger])
    assert [stored[TP][0] for stored in group.stored] == [0, 2, 2, 9]


async def test_a_closed_ledger_is_not_committed() -> None:
    """Its partition left: what its last owner knows must not be written over what the next one commits."""
    group, ledger = Group(), half_done()
    ledger.closed = True
    await Commits(group, "cluster").commit([ledger])
    assert not group.asked


async def test_what_was_not_taken_is_committed_again() -> None:
    """A failed request changes nothing: the next one holds the same partitions."""
    group, ledger = Group(KafkaError("any")), half_done()
    commits = Commits(group, "cluster")
    await commits.commit([ledger])
    assert commits.committed == {}
    await commits.commit([ledger])
    assert group.asked[0] == group.asked[1]
    assert commits.committed == {TP: 0}


@pytest.mark.fault("B8")
async def test_metadata_that_the_cluster_refuses_shrinks_until_it_fits() -> None:
    """B8: a lower `offset.metadata.max.bytes` costs bitmaps, never commits."""
    ledger, random = Ledger("in", 0, 0), Random(7)
    for offset in range(4_000):
        ledger.take(offset, 0)
    for offset in random.sample(range(1, 4_000), 2_000):
        ledger.finish(offset)
    group = Group(metadata_max_chars=200)
    commits = Commits(group, "cluster")
    while not group.stored:
        await commits.commit([ledger])
    ledger.finish(0)
    await commits.commit([ledger])
    assert len(group.stored) == 2, "once it is known what fits, nothing is refused any more"
    assert len(group.asked) < 8
    assert all(0 < len(stored[TP][1]) <= 200 for stored in group.stored)


@pytest.mark.fault("B8")
async def test_a_right_that_is_missing_ends_the_worker() -> None:
    """B8: without READ on the group nothing can ever be committed; a person has to grant it."""
    with pytest.raises(Exit) as caught:
        await Commits(Group(GroupAuthorizationFailedError("g")), "cluster").commit([half_done()])
    assert caught.value.code == EX_CONFIG


@pytest.mark.fault("B7")
async def test_one_eviction_may_refuse_many_commits() -> None:
    """B7, R6: while a member that was thrown out finishes what is busy, each of its commits is refused; it rejoins."""
    group, ledger = Group(*(evicted() for _ in range(50))), half_done()
    commits = Commits(group, "cluster")
    for _ in range(50):
        await commits.commit([ledger])
    commits.forget()
    await commits.commit([half_done()])
    assert len(group.stored) == 1


async def test_a_rebalance_is_no_eviction() -> None:
    """A commit that comes while the group is being assigned is refused, however often, and that is all."""
    refused = CommitFailedError()
    refused.__cause__ = RebalanceInProgressError()
    group = Group(*[refused] * 30)
    commits = Commits(group, "cluster")
    for _ in range(30):
        await commits.commit([half_done()])
        commits.forget()
    assert len(group.asked) == 30


async def test_a_member_that_is_thrown_out_again_and_again_ends() -> None:
    """Two processes with one `group_instance_id` evict each other for ever: one that says why is better."""
    commits = Commits(Group(*(evicted() for _ in range(EVICTIONS_MAX))), "cluster")
    for _ in range(EVICTIONS_MAX - 1):
        await commits.commit([half_done()])
        commits.forget()
    with pytest.raises(Exit, match="group_instance_id"):
        await commits.commit([half_done()])


async def test_a_request_that_hangs_ends_with_its_generation() -> None:
    """The client repeats a commit until it is answered: one of a topic that is gone would hold up all others."""
    group, ledger = Group(asyncio.Event()), half_done()
    commits = Commits(group, "cluster")
    hanging = asyncio.create_task(commits.commit([ledger]))
    await asyncio.sleep(0.01)
    ledger.closed = True
    commits.forget()
    await asyncio.wait_for(hanging, 5)
    assert not group.stored
    await asyncio.wait_for(commits.commit([half_done()]), 5)
    assert len(group.stored) == 1


async def test_an_answer_that_comes_after_the_generation_is_not_believed() -> None:
    """What was committed for a ledger that is closed says nothing about the partition's next ledger."""
    answer = asyncio.Event()
    group, ledger = Group(answer), half_done()
    commits = Commits(group, "cluster")
    asking = asyncio.create_task(commits.commit([ledger]))
    await asyncio.sleep(0.01)
    answer.set()
    await asyncio.sleep(0)  # the request ends, `commit` has not run yet
    ledger.closed = True
    commits.forget()
    await asyncio.wait_for(asking, 5)
    assert commits.committed == {}


async def test_a_commit_that_is_cancelled_lets_the_next_one_through() -> None:
    """A revoke waits for its last commit a bounded time; what it leaves behind holds no lock and no request."""
    group = Group(asyncio.Event())
    commits = Commits(group, "cluster")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(commits.commit([half_done()]), 0.01)
    await asyncio.wait_for(commits.commit([half_done()]), 5)
    assert len(group.stored) == 1

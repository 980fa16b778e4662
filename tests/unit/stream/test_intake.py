"""The intake and its rebalances, each interleaving on its own, over logs in memory."""

import asyncio
from collections import Counter
from random import Random

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    RecordTooLargeError,
)

from tests.support.memory import BOUND_S, TOPIC, Fetched, Rig, until
from workers.errors import EX_CONFIG, EX_SOFTWARE, Exit
from workers.stream.assignment import Assignment
from workers.stream.commit_metadata import decode, encode
from workers.stream.intake import FAILURES_MAX, Intake

TP = TopicPartition(TOPIC, 0)


async def test_records_are_answered_and_committed() -> None:
    """The whole way: each record ends once, and the commit stands at the end of the log."""
    async with Rig() as rig:
        rig.write(0, range(250))
        rig.write(1, range(100, 130))
        await rig.assign(0, 1)
        await until(lambda: len(rig.sink.sent) == 280)
        await until(lambda: rig.window.count == 0)
        await rig.commit()
        assert sorted(rig.offsets_done(0)) == list(range(250))
        assert (rig.position(0), rig.position(1)) == (250, 130)


async def test_a_gap_at_the_end_is_passed() -> None:
    """Markers of transactions and removed records at a log's end are no lag: the commit follows the position."""
    async with Rig() as rig:
        rig.write(0, [0, 1, 7])
        rig.consumer.end[TP] = 21
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 21)
        assert rig.offsets_done() == [0, 1, 7]


async def test_a_fetch_that_a_rebalance_overtook_loses_nothing() -> None:
    """A fetch that began in one generation may bring records of the next: they are read again under its ledger."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, range(10))
        await rig.revoke()
        await rig.assign(0)
        rig.consumer.fetch_gate.set()
        await until(lambda: len(rig.sink.sent) == 10)
        assert rig.offsets_done() == list(range(10))


async def test_a_fetch_of_two_partitions_that_a_rebalance_splits_loses_nothing() -> None:
    """While the first partition's batch waits for the channel the generation may end: the second's is read again."""
    async with Rig(channel_max_batches=1) as rig:
        rig.consumer.held_from = 2
        await rig.assign(0, 1)
        rig.channel_gate.clear()
        rig.write(0, [0])
        await until(lambda: rig.window.count == 1 and rig.channel.empty())  # the agent holds the first
        rig.write(0, [1])
        await until(rig.channel.full)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, [2])
        rig.write(1, range(5))
        rig.consumer.fetch_gate.set()
        await until(lambda: rig.window.count == 3)  # and waits for the channel
        await rig.revoke()
        await rig.assign(0, 1)
        rig.channel_gate.set()
        await until(lambda: rig.ledger(0).position == 3 and rig.ledger(1).position == 5)
        assert rig.offsets_done(1) == list(range(5))


async def test_a_fetch_that_comes_before_the_ledgers_loses_nothing() -> None:
    """The client delivers before `on_partitions_assigned` has ended: what comes before the ledgers is read again."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, range(10))
        await rig.revoke()
        rig.assignment.load_gate.clear()
        await rig.assign(0, settle=False)
        rig.consumer.fetch_gate.set()
        await until(lambda: rig.consumer.positions[TP] == 10)
        assert not rig.sink.sent
        rig.assignment.load_gate.set()
        await until(lambda: len(rig.sink.sent) == 10)


async def test_ledgers_that_come_after_the_revoke_are_not_used() -> None:
    """A load that a revoke overtook neither opens the gate nor moves the consumer."""
    async with Rig() as rig:
        rig.consumer.stored[TP] = (3, "")
        rig.write(0, range(10))
        rig.assignment.load_gate.clear()
        await rig.assign(0, settle=False)
        await asyncio.sleep(0)
        await rig.revoke()
        rig.assignment.load_gate.set()
        rig.consumer.positions = {TP: 9}
        for _ in range(20):
            await asyncio.sleep(0)
        assert rig.assignment.ledgers == {}
        assert not rig.assignment.settled
        assert rig.consumer.positions == {TP: 9}


async def test_a_batch_on_the_channel_at_a_revoke_is_done_by_the_next_owner() -> None:
    """What the agent has not taken yet leaves the window unacked, chains and all, and is delivered again."""
    async with Rig(task={"max_in_flight": 256}) as rig:
        rig.channel_gate.clear()
        rig.write(0, range(40), key=b"k")
        await rig.assign(0)
        await until(lambda: rig.window.count == 40)
        await rig.revoke()
        rig.channel_gate.set()
        await until(lambda: rig.window.count == 0)
        assert not rig.sink.sent
        await rig.assign(0)
        await until(lambda: len(rig.sink.sent) == 40)
        assert rig.offsets_done() == list(range(40))
        await until(lambda: rig.window.count == rig.window.bytes == 0)


async def test_finished_offsets_survive_a_rebalance() -> None:
    """What was finished past the commit point is not done again by the next generation."""
    async with Rig() as rig:
        rig.write(0, range(6))
        bits = (0b101100).to_bytes(1, "little")
        rig.consumer.stored[TP] = (0, encode(0, bits, rig.commits.fingerprint(TP)))
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 6)
        assert sorted(rig.offsets_done()) == [0, 1, 4]


async def test_a_call_that_runs_over_a_rebalance_is_made_once() -> None:
    """A running call is taken over by the new generation, which acks it and goes on with its key."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(3), key=b"k")
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 1)
        await rig.revoke()
        await rig.assign(0)
        await until(lambda: rig.window.count == 3)
        assert len(rig.model.calls) == 1
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 3)
        assert rig.offsets_done() == [0, 1, 2]
        assert len(rig.model.calls) == 3
        assert rig.window.count == 0


async def test_a_call_may_be_taken_over_more_than_once() -> None:
    """Its ledger may close again before it ends: it is no one's, and then the third generation's."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 1)
        for _ in range(3):
            await rig.revoke()
            await rig.assign(0)
            await until(lambda: rig.ledger(0).unfinished)
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 1)
        assert len(rig.model.calls) == 1
        assert rig.offsets_done() == [0]


@pytest.mark.fault("R3")
async def test_a_call_that_ends_between_generations_sends_nothing() -> None:
    """Between revoke and assignment nobody owns the partition: a reply that comes then is thrown away."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 1)
        await rig.revoke()
        rig.model.gate.set()
        await until(lambda: rig.window.count == 0)
        assert not rig.sink.sent
        await rig.assign(0)
        await until(lambda: rig.offsets_done() == [0])
        assert len(rig.model.calls) == 2


async def test_a_call_of_a_partition_that_went_elsewhere_is_cancelled() -> None:
    """It must not hold the window of the partitions that stay."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(20))
        await rig.assign(0, 1)
        await until(lambda: len(rig.model.calls) == 20)
        await rig.revoke()
        assert rig.window.count == 20
        await rig.assign(1)
        await until(lambda: rig.window.count == 0)
        assert not rig.sink.sent


async def test_a_running_call_never_overtakes_its_redelivered_predecessor() -> None:
    """When an earlier record of the key is done again (its commit was lost), so is the later one, behind it."""
    async with Rig() as rig:
        rig.write(0, [0], key=b"k")
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 1)
        rig.model.gate.clear()
        rig.write(0, [1], key=b"k")
        await until(lambda: len(rig.model.calls) == 2)
        await rig.revoke()
        rig.consumer.stored[TP] = (0, "")
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 3)
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 2)
        assert rig.offsets_done() == [0, 0, 1]
        assert rig.window.count == 0


@pytest.mark.fault("R3")
async def test_a_send_that_runs_over_a_rebalance_is_acked_once() -> None:
    """A record in the producer's hands at a revoke is confirmed under the next generation, and not sent twice."""
    async with Rig() as rig:
        rig.sink.gate.clear()
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.lane.started_of({rig.ledger(0)}))
        await until(lambda: rig.lane.started_of({rig.ledger(0)})[0].passage.busy)
        await rig.revoke()
        await rig.assign(0)
        await until(lambda: rig.ledger(0).unfinished)
        rig.sink.gate.set()
        await until(lambda: rig.ledger(0).position == 1)
        assert rig.offsets_done() == [0]


async def test_records_that_only_wait_are_dropped_at_once() -> None:
    """A record whose task is held does not delay a rebalance: it is unacked, and the next owner's."""
    async with Rig(worker={"revoke_wait_s": 60.0}) as rig:
        rig.lane_task.guard.tripped_by = "prompt: template"
        rig.write(0, range(5))
        await rig.assign(0)
        await until(lambda: len(rig.lane.started_of({rig.ledger(0)})) == 5)
        await asyncio.wait_for(rig.revoke(), BOUND_S)
        assert rig.window.count == 0
        assert rig.position(0) == 0


async def test_a_revoke_that_fails_ends_the_worker_and_lets_go() -> None:
    """The client swallows what a listener raises: the ledgers are closed all the same, and the process learns of it."""

    class Broken(Exception):
        """Any bug of ours."""

    async def broken(timeout_s: float) -> int:  # noqa: ARG001
        raise Broken

    async with Rig() as rig:
        rig.write(0, range(5))
        await rig.assign(0)
        ledger = rig.ledger(0)
        rig.assignment.settle = broken  # type: ignore[method-assign]
        await rig.revoke()
        assert ledger.closed
        assert rig.assignment.ledgers == {}
        assert isinstance(rig.assignment.failure.exception(), Broken)


async def test_a_commit_that_hangs_does_not_hold_the_rebalance(monkeypatch: pytest.MonkeyPatch) -> None:
    """B1: with the broker away the partitions go all the same, and the request is not left behind."""
    monkeypatch.setattr("workers.stream.assignment.REVOKE_COMMIT_S", 0.05)
    async with Rig() as rig:
        rig.write(0, range(5))
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 5)
        rig.consumer.commit = asyncio.Event().wait  # type: ignore[assignment, method-assign]
        await asyncio.wait_for(rig.revoke(), BOUND_S)
        assert rig.assignment.ledgers == {}


async def test_offsets_that_retention_removed_are_reported() -> None:
    """B9: `on_offset_reset: fail` names the lost range and ends; nothing is skipped in silence."""
    async with Rig() as rig:
        rig.write(0, range(50, 60))
        rig.consumer.stored[TP] = (7, "")
        await rig.assign(0, settle=False)
        await until(rig.assignment.failure.done)
        error = rig.assignment.failure.exception()
        assert isinstance(error, Exit)
        assert error.code == EX_CONFIG
        assert "offsets 7 to 49 are gone" in str(error)


@pytest.mark.parametrize("running", [True, False])
async def test_retention_may_pass_us_by_policy(*, running: bool) -> None:
    """B9: `on_offset_reset: earliest` goes on at the log's beginning, at start as well as while running."""
    async with Rig(kafka={"on_offset_reset": "earliest"}) as rig:
        if running:
            rig.write(0, range(3))
            await rig.assign(0)
            await until(lambda: rig.ledger(0).position == 3)
        rig.consumer.logs[TP], rig.consumer.first[TP], rig.consumer.end[TP] = [], 50, 50
        rig.write(0, range(50, 60))
        if not running:
            rig.consumer.stored[TP] = (7, "")
            await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 60)
        assert rig.offsets_done()[-10:] == list(range(50, 60))


async def test_a_log_that_was_cut_is_read_from_its_beginning_by_policy() -> None:
    """A topic made anew, or a log cut by an election: the old offsets name other records now; none may be skipped."""
    async with Rig(kafka={"on_offset_reset": "earliest"}) as rig:
        rig.write(0, range(100, 105))
        rig.consumer.stored[TP] = (1_000, "")
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 105)
        assert rig.offsets_done() == list(range(100, 105))
        await rig.commit()
        assert rig.position(0) == 105


async def test_a_log_that_was_cut_stops_the_worker_by_default() -> None:
    """The same, where a person has to decide."""
    async with Rig() as rig:
        rig.write(0, range(5))
        rig.consumer.stored[TP] = (1_000, "")
        await rig.assign(0)
        with pytest.raises(Exit, match="offset 1000 is past the end"):
            await asyncio.wait_for(asyncio.shield(rig.pump), BOUND_S)


@pytest.mark.parametrize("error", [RecordTooLargeError("x"), CorruptRecordException("x")])
async def test_a_batch_that_cannot_be_read_ends_the_worker(error: KafkaError) -> None:
    """B10: fail loud: aiokafka would go on behind the record."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.errors.append(error)
        with pytest.raises(Exit) as caught:
            await asyncio.wait_for(asyncio.shield(rig.pump), BOUND_S)
        assert caught.value.code == EX_SOFTWARE


async def test_a_consumer_that_is_dead_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """When aiokafka's coordinator has died, each fetch says so, and only a new process joins again."""
    monkeypatch.setattr("workers.stream.intake.FAILURE_PAUSE_S", 0.001)
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.errors.extend(KafkaError("Unexpected error during coordination") for _ in range(FAILURES_MAX))
        with pytest.raises(Exit) as caught:
            await asyncio.wait_for(asyncio.shield(rig.pump), BOUND_S)
        assert caught.value.code == EX_SOFTWARE


async def test_errors_that_pass_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """B2: a fetch may fail, and a partition may be revoked under it: the next round goes on."""
    monkeypatch.setattr("workers.stream.intake.FAILURE_PAUSE_S", 0.001)
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.errors.extend([KafkaConnectionError("x"), IllegalStateError("x")] * FAILURES_MAX)
        rig.write(0, range(3))
        await until(lambda: rig.ledger(0).position == 3)


async def test_an_idle_worker_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: with no partition, and with every partition full, the pump sleeps between its looks."""
    rounds = 0
    one_round = Intake._round

    async def counted(intake: Intake) -> bool:
        nonlocal rounds
        rounds += 1
        return await one_round(intake)

    monkeypatch.setattr(Intake, "_round", counted)
    async with Rig(task={"max_in_flight": 8}) as rig:
        await rig.assign()
        before = rounds
        await asyncio.sleep(0.3)
        assert rounds - before <= 10
        rig.model.gate.clear()
        rig.write(0, range(100))
        await rig.revoke()
        await rig.assign(0)
        await until(lambda: rig.window.count == 8)
        fetches, before = rig.consumer.fetches, rounds
        await asyncio.sleep(0.3)
        assert rig.consumer.fetches - fetches <= 1
        assert 0 < rounds - before <= 40


async def test_all_partitions_share_the_slots_from_the_first_moment() -> None:
    """W9: with the window at four times the slots, the records that take the first slots come from every partition.

    Fetched in larger pieces, the last partition would be silent after a rebalance until all others have been served.
    """
    async with Rig(task={"max_in_flight": 128}) as rig:
        await _filled_from_four(rig, 128)
        assert Counter(_partitions_called(rig)[:32]) == dict.fromkeys(range(4), 8)


async def test_partitions_take_turns_when_little_room_comes_free() -> None:
    """W9: the next piece is that of the partition that has waited longest, however many looks found no room."""
    async with Rig(task={"max_in_flight": 16}) as rig:
        await _filled_from_four(rig, 16)
        for piece in range(9):
            await asyncio.sleep(0.011 * (piece % 3))  # so that a number of rounds lies in between that does not matter
            called = len(rig.model.calls)
            for delivery in list(rig.window.started)[:2]:
                assert delivery.worker is not None
                delivery.worker.cancel()
            await until(lambda called=called: len(rig.model.calls) == called + 2)  # type: ignore[misc]
        turns = _partitions_called(rig)[::2]
        assert turns[:13] == turns[4:]


async def _filled_from_four(rig: Rig, max_in_flight: int) -> None:
    """Wait until records of four partitions fill the window, all of them with the model."""
    rig.model.gate.clear()
    for partition in range(4):
        rig.write(partition, range(partition * 1_000, partition * 1_000 + 100))
    await rig.assign(*range(4))
    await until(lambda: rig.window.count == len(rig.model.calls) == max_in_flight)


def _partitions_called(rig: Rig) -> list[int]:
    """Return the partition of each call, by the record's offset."""
    return [int(orjson.loads(call.body)) // 1_000 for call in rig.model.calls]


async def test_a_full_partition_leaves_room_to_the_others() -> None:
    """D16: one hot key stops its own partition; the others go on."""
    async with Rig(task={"max_in_flight": 64, "order": "key"}) as rig:
        rig.model.gate.clear()
        rig.write(0, range(500), key=b"hot")
        await rig.assign(0, 1)
        await until(lambda: rig.intake.room(TP) == 0)
        waiting = rig.window.count
        assert waiting <= 32
        rig.write(1, range(5))
        await until(lambda: rig.window.count == waiting + 5)


async def test_stop_ends_the_pump_also_at_a_shut_gate() -> None:
    """A worker that is told to stop while it waits for its assignment stops."""
    async with Rig() as rig:
        await asyncio.sleep(0)
        rig.assignment.stop()
        await asyncio.wait_for(rig.pump, BOUND_S)


async def test_a_drain_during_a_rebalance_ends() -> None:
    """P1: the drain and the revoke wait for the same call; both end in their own time, and nothing is acked twice."""
    async with Rig(worker={"revoke_wait_s": 0.1}) as rig:
        rig.model.gate.clear()
        rig.write(0, range(4))
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 4)
        rig.assignment.stop()
        drain = asyncio.create_task(rig.assignment.settle(0.3))
        await asyncio.wait_for(rig.revoke(), BOUND_S)
        await rig.assign(0)
        await asyncio.wait_for(drain, BOUND_S)
        await asyncio.wait_for(rig.assignment.last_commit(), BOUND_S)
        rig.model.gate.set()
        await until(lambda: rig.window.count == 0)
        assert not rig.sink.sent
        assert rig.position(0) == 0


async def test_stop_while_the_ledgers_are_read_ends() -> None:
    """P1: a load that gets no answer holds nothing up; the last commit has nothing to write."""
    async with Rig() as rig:
        rig.assignment.load_gate.clear()
        await rig.assign(0, settle=False)
        rig.assignment.stop()
        await asyncio.wait_for(rig.assignment.settle(1.0), BOUND_S)
        await asyncio.wait_for(rig.assignment.last_commit(), BOUND_S)
        await rig.assignment.leave()
        assert rig.consumer.stopped
        assert rig.consumer.stored == {}


async def test_stop_between_two_generations_leaves_the_group_at_once() -> None:
    """P1: whoever stops while a later join is under way says so as well, and does not wait for the other members."""
    async with Rig() as rig:
        await rig.assign(0)
        await rig.revoke()
        rig.assignment.stop()
        await asyncio.wait_for(rig.assignment.settle(1.0), BOUND_S)
        assert not rig.assignment.settled


@pytest.mark.fault("R2")
@pytest.mark.parametrize("seed", range(8))
async def test_any_storm_of_rebalances_loses_nothing(seed: int) -> None:
    """R2, I1, I3, I5: partitions come and go at random moments, some commits are lost; all is done, in order."""
    random = Random(seed)
    async with Rig(task={"max_in_flight": 24}, worker={"revoke_wait_s": 0.005}) as rig:
        wanted = write_at_random(rig, random)
        gates = [rig.model.gate, rig.sink.gate, rig.channel_gate, rig.assignment.load_gate]
        for _ in range(40):
            rig.consumer.refuses = random.random() < 0.3
            if settle := random.random() < 0.8:
                rig.assignment.load_gate.set()
            await rig.assign(*random.sample(range(3), random.randint(1, 3)), settle=settle)
            for _ in range(random.randint(0, 6)):
                gate = random.choice(gates)
                gate.clear() if random.random() < 0.7 else gate.set()
                for _ in range(random.randint(0, 30)):
                    await asyncio.sleep(0)
                await rig.commit()
                assert_safe(rig, wanted)
            await rig.revoke()
            assert_safe(rig, wanted)
        rig.consumer.refuses = False
        for gate in gates:
            gate.set()
        await rig.assign(0, 1, 2)
        await until(lambda: all(rig.ledger(n).position == rig.consumer.end[TopicPartition(TOPIC, n)] for n in range(3)))
        assert {(n, offset) for n in range(3) for offset in rig.offsets_done(n)} == set(wanted)
        await until(lambda: rig.window.count == rig.window.bytes == rig.window.waiting() == 0)
        assert not rig.assignment.failure.done()
        for partition in range(3):
            assert_in_order(rig.offsets_done(partition), partition, wanted)


def write_at_random(rig: Rig, random: Random) -> dict[tuple[int, int], bytes | None]:
    """Fill three logs that have gaps; return the key of each record by partition and offset."""
    wanted: dict[tuple[int, int], bytes | None] = {}
    for partition in range(3):
        offset = 0
        for _ in range(300):
            offset += 1 if random.random() < 0.9 else random.randint(2, 9)
            wanted[partition, offset] = key = random.choice([None, b"a", b"b", b"c", b"d"])
            rig.consumer.write(TopicPartition(TOPIC, partition), Fetched(offset, key))
    return wanted


def assert_safe(rig: Rig, wanted: dict[tuple[int, int], bytes | None]) -> None:
    """I3: nothing that is committed as done, by position or by bitmap, is without a confirmed output."""
    for tp, (position, metadata) in rig.consumer.stored.items():
        done = set(rig.offsets_done(tp.partition))
        past = decode(position, metadata, rig.commits.fingerprint(tp))
        for partition, offset in wanted:
            if partition == tp.partition and (offset < position or offset in past):
                assert offset in done, f"{tp} {offset} was committed and never written"


def assert_in_order(done: list[int], partition: int, wanted: dict[tuple[int, int], bytes | None]) -> None:
    """I5: the first outputs of a key come in the order of its records, and its last output is its last record."""
    for key in {key for (number, _), key in wanted.items() if number == partition and key is not None}:
        mine = [offset for offset in done if wanted[partition, offset] == key]
        firsts = list(dict.fromkeys(mine))
        assert firsts == sorted(firsts)
        assert mine[-1] == max(mine)


def test_the_listener_is_what_aiokafka_calls() -> None:
    """Both callbacks are coroutines: aiokafka awaits the revoke before it joins anew."""
    assert asyncio.iscoroutinefunction(Assignment.on_partitions_revoked)
    assert asyncio.iscoroutinefunction(Assignment.on_partitions_assigned)

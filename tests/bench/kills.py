"""Five kill -9 under load, on a real broker: `python -m tests.bench.kills [--static] [--without-metadata] [--seed N]`.

Two workers, 12 partitions, 20,000 records over 1,000 keys; 10 % of the calls take 2 s, the others 50 ms; a worker that
was killed is started again at once. `--without-metadata`: workers whose commits carry no bitmap. Prints one JSON line:
`silence_s` is that of the killed worker's partitions, until each had output again; the others' is their longest.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol

from tests.bench.matrix.machine import machine
from tests.support.commit_sampler import CommitSampler, sampling
from tests.support.deployment import WorkerProcess
from tests.support.flow import Flow, flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage

RECORDS, PARTITIONS, KEYS, KILLS, SLOTS = 20_000, 12, 1_000, 5, 64
LATENCY = "heavy:0.05:2:0.1"
FIRST, LAST = 0.08, 0.7
"""The kills fall between these shares of the records, one at a random place in each fifth of the way."""

RESUME_S, QUIET_S = 60.0, 1.0
WRAPPER = Path(__file__).with_name("without_metadata.py")


async def owned(stage: Stage) -> dict[str, set[int]]:
    """The partitions of each member, by its client id, as the group's coordinator says."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.broker.bootstrap_servers)
    await admin.start()
    try:
        (response,) = await admin.describe_consumer_groups([stage.group])
    finally:
        await admin.close()
    found: dict[str, set[int]] = {}
    for _, client_id, _, _, assignment in response.groups[0][5]:
        if assignment:
            topics = ConsumerProtocol.ASSIGNMENT.decode(assignment).assignment
            found[client_id] = {number for _, numbers in topics for number in numbers}
    return found


async def kill(
    stage: Stage, workers: dict[str, WorkerProcess], name: str, flow: Flow, sampler: CommitSampler | None = None
) -> dict[str, Any]:
    """Kill a worker, start it again, and wait until each of its partitions has output again."""
    mine = (await owned(stage)).get(name, set())
    others = set(range(PARTITIONS)) - mine
    killed_at_s = time.monotonic()
    workers[name].kill()
    if sampler is not None:
        await sampler.now(f"kill {name}")
    workers[name] = stage.worker(name)
    await flow.until(lambda: flow.resumed_s(killed_at_s, mine) is not None, RESUME_S)
    await asyncio.sleep(QUIET_S)
    until_s = time.monotonic()
    return {
        "partitions": len(mine),
        "silence_s": round(flow.resumed_s(killed_at_s, mine) or 0.0, 2),
        "silence_others_s": round(flow.silence_s(killed_at_s, until_s, others), 2) if others else None,
        "silence_all_s": round(flow.silence_s(killed_at_s, until_s, range(PARTITIONS)), 2),
    }


async def measure(folder: Path, broker: KafkaBroker, *, static: bool, with_metadata: bool, seed: int) -> dict[str, Any]:
    """One run; its figures."""
    chance = random.Random(seed)
    width = (LAST - FIRST) / KILLS
    shares = [FIRST + width * (fifth + chance.random()) for fifth in range(KILLS)]
    program = None if with_metadata else (sys.executable, WRAPPER)
    async with Stage(
        folder,
        broker,
        partitions=PARTITIONS,
        latency=LATENCY,
        static=static,
        program=program,
        model={"max_in_flight": SLOTS},
    ) as stage:
        await stage.produce(RECORDS, keys=KEYS)
        workers = {name: stage.worker(name) for name in ("a", "b")}
        for worker in workers.values():
            worker.wait_ready()
        began_s, kills = time.monotonic(), []
        async with (
            flow_of(broker.bootstrap_servers, f"{stage.topic}.{TASK}.enriched", PARTITIONS) as flow,
            sampling(broker.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
        ):
            for share in shares:
                await flow.until_total(share * RECORDS, 120)
                kills.append(await kill(stage, workers, chance.choice("ab"), flow, sampler))
            await stage.wait_committed(RECORDS, 180)
            took_s = time.monotonic() - began_s
        asked = stage.model.counts()["requests"]
        codes = [worker.terminate()[0] for worker in workers.values()]
        verdict = await stage.verdict(samples=sampler.samples)
    return {
        "membership": "static" if static else "dynamic",
        "metadata": with_metadata,
        "seed": seed,
        "lost": len(verdict.lost),
        "done_twice": verdict.repeats,
        "calls_repeated": asked - RECORDS,
        "order_violations": len(verdict.out_of_order),
        "early_commits": len(verdict.early),
        "broken": verdict.broken(crashed=True),
        "kills": kills,
        "wall_s": round(took_s, 1),
        "exit_codes": codes,
        "machine": machine() | {"slots_per_worker": SLOTS},
    }


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--without-metadata", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder) / "kafka") as broker:
        figures = asyncio.run(
            measure(
                Path(folder),
                broker,
                static=options.static,
                with_metadata=not options.without_metadata,
                seed=options.seed,
            )
        )
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()

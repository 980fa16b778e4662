"""`python -m tests.bench.stages` (`make bench-stages`): where the microseconds of a record go. Under a minute.

Each step is measured alone, on core 0, in turn and several times; then the whole worker on W3 of the matrix, so that
what no step explains is seen. Appends to results/stages.jsonl and writes workers/README.md anew, unless `--dry`.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.matrix.__main__ import seeded
from tests.bench.matrix.cell import measured
from tests.bench.matrix.contenders import CONTENDERS
from tests.bench.matrix.endpoint import endpoint, stub_program
from tests.bench.matrix.machine import machine
from tests.bench.matrix.running import OTHER_CORE, WORKER_CORE
from tests.bench.matrix.workloads import scaled
from tests.bench.stages.bed import CASE, MODEL, Bed, made
from tests.bench.stages.kafka_steps import KAFKA_STEPS, seed
from tests.bench.stages.steps import STEPS, Measure, intake, other_client, path
from tests.bench.stages.table import block, safety, table
from tests.support.kafka import KafkaBroker, ensure_jars
from tests.support.page import with_block
from workers.garbage import spare_what_is_there

BENCH = Path(__file__).parents[1]
RESULTS = BENCH / "results" / "stages.jsonl"
PAGE = BENCH.parents[1] / "workers" / "README.md"
MARKERS = "<!-- stages:begin -->", "<!-- stages:end -->"
KEYED: Mapping[str, Measure] = {"intake_key": intake, "path_key": path}


def pin(core: int) -> None:
    """Go to a core, as far as the machine has two; what is started from now on is there as well."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


async def rounds_of(steps: Mapping[str, tuple[Measure, Bed]], rounds: int) -> dict[str, list[float]]:
    """Return us per record for each step, all steps once and then all again; a first time that does not count."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, (measure, bed) in steps.items():
            us = await measure(bed) / len(bed.fetched) * 1e6
            if number:
                found[name].append(round(us, 2))
    return found


async def stages(folder: Path, broker: KafkaBroker, *, rounds: int, records: int) -> dict[str, Any]:
    """Measure every step."""
    with endpoint(CASE.latency) as stub:
        pin(WORKER_CORE)
        how: dict[str, Any] = {"count": records, "bootstrap_servers": broker.bootstrap_servers}
        bed, keyed = made(folder, stub, **how), made(folder, stub, **how, order="key")
        await broker.create_topics(bed.partitions)
        await seed(bed)
        await bed.client.start()
        spare_what_is_there()
        try:
            every = {name: (measure, bed) for name, measure in (STEPS | KAFKA_STEPS).items()}
            every |= {name: (measure, keyed) for name, measure in KEYED.items()}
            found = await rounds_of(every, rounds)
        finally:
            await bed.client.close()
            pin(OTHER_CORE)
    client = bed.settings.models[MODEL].http_client
    return {"steps": found, "http_client": client, "other_client": other_client(client)}


async def whole(folder: Path, broker: KafkaBroker, share: float) -> dict[str, Any]:
    """Measure the whole worker on W3."""
    case = scaled(CASE, share)
    topic = await seeded(case, broker)
    worker = CONTENDERS["penstock"]
    return await measured(case, worker, name="penstock", broker=broker, topic_in=topic, folder=folder)


async def bench(folder: Path, *, rounds: int, records: int, share: float) -> dict[str, Any]:
    """Return one line of results."""
    load = round(os.getloadavg()[0], 2)
    pin(OTHER_CORE)
    with KafkaBroker(folder / "kafka", heap="1g") as broker:
        measured_alone = await stages(folder, broker, rounds=rounds, records=records)
        worker = await whole(folder, broker, share)
    return {
        "run": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rounds": rounds,
        "records": records,
        "load": load,
        **measured_alone,
        "worker_us_per_record": worker.get("cpu_us_per_record"),
        "worker": {name: worker.get(name) for name in ("records_per_s", "others_cores", "lost", "failed")},
        "versions": {"penstock": version("penstock")},
        "machine": machine(),
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=2_000, help="of each step and round")
    parser.add_argument("--scale", type=float, default=0.5, help="so much of W3 for the whole worker")
    parser.add_argument("--dry", action="store_true", help="print; record nothing")
    asked = parser.parse_args()
    ensure_jars()
    stub_program()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic just made has leaders a moment later: retried
    with tempfile.TemporaryDirectory(prefix="penstock-stages-") as folder:
        how = {"rounds": asked.rounds, "records": asked.records, "share": asked.scale}
        line = uvloop.run(bench(Path(folder), **how))
    print(table(line), safety(line), sep="\n\n")
    if not asked.dry:
        with RESULTS.open("a") as results:
            results.write(json.dumps(line) + "\n")
        PAGE.write_text(with_block(PAGE.read_text("utf-8"), block(line), MARKERS), "utf-8")


if __name__ == "__main__":
    main()

"""The arithmetic of docs/scale.md: `python -m tests.support.scale` writes its tables anew.

Everything there follows from the inputs here: what was measured comes from tests/bench/results, the rest are round
assumptions that a reader replaces.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.matrix.lines import latest, read
from tests.support.page import with_block

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"
RESULTS = ROOT / "tests" / "bench" / "results"
MARKERS = "<!-- scale:begin -->", "<!-- scale:end -->"

RECORDS_PER_H = 1_000_000
HOUR_S = 3_600
TOKENS_IN, TOKENS_OUT = 250, 30
GPU_USD_PER_H, CORE_USD_PER_H = 2.50, 0.05
BUSY = 0.8
"""The share of a GPU, or of a core, that is planned for: queues grow without bound towards 1."""
CALLS_PER_GPU = 128
BYTES_IN, BYTES_OUT, COPIES = 800, 1_300, 3
BROKER_BYTES_PER_S = 100e6
FRONT_END_PER_S = 400
SLOTS, PARTITIONS, WAIT_S = 64, 12, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model on one GPU of the H100 class, assumed: tokens/s if it did nothing else, and a call's time under load."""

    name: str
    prompt_tokens_per_s: float
    answer_tokens_per_s: float
    latency_s: float


MODELS = (
    Served(name="8 B", prompt_tokens_per_s=25_000, answer_tokens_per_s=10_000, latency_s=0.8),
    Served(name="1 B", prompt_tokens_per_s=100_000, answer_tokens_per_s=40_000, latency_s=0.3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What was measured of one worker process, and where."""

    cpu_us_per_record: float
    source: str


def measured(results: Path = RESULTS) -> Worker:
    """Return the last figures with calls that take 150 ms and 256 slots: the matrix', else those before it."""
    lines = [
        line
        for line in latest(read(results / "matrix.jsonl"))
        if (line["workload"], line["case"], line["worker"]) == ("W1", "256", "penstock") and "failed" not in line
    ]
    if lines:
        source = "`make bench`, W1 with 256 slots"
    else:
        told = map(json.loads, (results / "throughput.jsonl").read_text().splitlines())
        lines = [line for line in told if line["case"] == "latency"]
        source = "`python -m tests.bench.throughput`, 150 ms and 256 slots"
    return Worker(cpu_us_per_record=statistics.median(line["cpu_us_per_record"] for line in lines), source=source)


def rate_per_s() -> float:
    """Return the records per second that the page is about."""
    return RECORDS_PER_H / HOUR_S


def gpu_s(model: Served) -> float:
    """Return the GPU time of a record."""
    return TOKENS_IN / model.prompt_tokens_per_s + TOKENS_OUT / model.answer_tokens_per_s


def gpus(model: Served) -> float:
    """Return the GPUs that the rate keeps busy as planned, not rounded."""
    return rate_per_s() * gpu_s(model) / BUSY


def cores(worker: Worker) -> float:
    """Return the cores that the rate keeps busy as planned, not rounded."""
    return rate_per_s() * worker.cpu_us_per_record / 1e6 / BUSY


def costs(model: Served, worker: Worker) -> list[tuple[str, str]]:
    """Return the rows of the cost table for one model: what it is, and the figure."""
    whole_gpus, whole_cores = math.ceil(gpus(model)), math.ceil(cores(worker))
    usd = whole_gpus * GPU_USD_PER_H + whole_cores * CORE_USD_PER_H
    return [
        ("GPU time of a record, ms", f"{1e3 * gpu_s(model):.2f}"),
        ("GPUs busy", f"{gpus(model):.2f}"),
        ("GPUs", f"{whole_gpus}"),
        ("worker cores busy", f"{cores(worker):.2f}"),
        ("worker cores", f"{whole_cores}"),
        ("calls at once (rate x latency)", f"{rate_per_s() * model.latency_s:.0f}"),
        ("USD per million records", f"{usd:.2f}"),
        ("of it the worker", f"{100 * whole_cores * CORE_USD_PER_H / usd:.1f} %"),
    ]


def limits_per_s(model: Served, worker: Worker) -> dict[str, float]:
    """Return at how many records per second each part is full, one of each."""
    return {
        "one key, in order: 1 / latency": 1 / model.latency_s,
        f"one replica of {SLOTS} slots: slots / latency": SLOTS / model.latency_s,
        "one GPU: busy / GPU time of a record": BUSY / gpu_s(model),
        "one server process that takes the requests": FRONT_END_PER_S,
        "one worker process, one core: busy / CPU of a record": BUSY * 1e6 / worker.cpu_us_per_record,
        "one broker: bytes/s / (bytes in and out x copies)": BROKER_BYTES_PER_S / ((BYTES_IN + BYTES_OUT) * COPIES),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Keda:
    """What an autoscaler is told."""

    max_replicas: int
    lag_threshold: int


def keda(model: Served) -> Keda:
    """Return the numbers for a model.

    More replicas than the server has calls for, or than there are partitions, do nothing. The lag that one replica is
    there for is what it works off in `WAIT_S`; twice its window at least, which lies past the commit while it works.
    """
    calls = math.ceil(gpus(model)) * CALLS_PER_GPU
    window = 4 * SLOTS
    return Keda(
        max_replicas=max(1, min(PARTITIONS, calls // SLOTS)),
        lag_threshold=max(2 * window, round(SLOTS / model.latency_s * WAIT_S)),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def inputs(worker: Worker) -> str:
    """Return the table of what goes in."""
    both = [
        ("records per hour", f"{RECORDS_PER_H:,}", "the question"),
        ("CPU of the worker per record, us", f"{worker.cpu_us_per_record:.0f}", f"measured: {worker.source}"),
        ("tokens of a record's prompt, answer", f"{TOKENS_IN}, {TOKENS_OUT}", "assumed: 0.8 KB of text, a small JSON"),
        ("GPU, USD per hour", f"{GPU_USD_PER_H:.2f}", "assumed: one of the H100 class, rented"),
        ("core, USD per hour", f"{CORE_USD_PER_H:.2f}", "assumed"),
        ("busy share that is planned for", f"{BUSY}", "assumed"),
        ("calls at once that a GPU's server works on well", f"{CALLS_PER_GPU}", "assumed"),
        ("requests/s of one server process", f"{FRONT_END_PER_S}", "assumed: HTTP, tokenizer, JSON on one core"),
        ("bytes of a record in, out; copies", f"{BYTES_IN}, {BYTES_OUT:,}; {COPIES}", "assumed: `shape: wrap`"),
        ("bytes/s of one broker", f"{BROKER_BYTES_PER_S:,.0f}", "assumed: a tenth of what disks and networks do"),
        ("slots of a replica, partitions", f"{SLOTS}, {PARTITIONS}", "chosen"),
        ("seconds a record may wait before a replica is added", f"{WAIT_S}", "chosen"),
    ]
    models = [
        (
            f"{model.name}: prompt tokens/s, answer tokens/s of a GPU; latency under load, s",
            f"{model.prompt_tokens_per_s:,.0f}, {model.answer_tokens_per_s:,.0f}; {model.latency_s}",
            "assumed: `vllm bench serve` tells yours",
        )
        for model in MODELS
    ]
    return _table(["Input", "Value", "Where from"], [*both, *models])


def block(worker: Worker) -> str:
    """Return what stands between the markers."""
    names = [model.name for model in MODELS]
    by_model = [costs(model, worker) for model in MODELS]
    cost = [[rows[0][0], *(figure for _, figure in rows)] for rows in zip(*by_model, strict=True)]
    full = [limits_per_s(model, worker) for model in MODELS]
    limits = [
        [part, *(f"{each[part]:,.1f}" if each[part] < 10 else f"{each[part]:,.0f}" for each in full)]
        for part in full[0]
    ]
    scaler = [
        ["`maxReplicaCount`", *(str(keda(model).max_replicas) for model in MODELS)],
        ["`lagThreshold`", *(f"{keda(model).lag_threshold}" for model in MODELS)],
    ]
    return "\n\n".join(
        [
            inputs(worker),
            f"**A million records an hour** ({rate_per_s():.0f} a second):",
            _table(["", *names], cost),
            "**Where each part is full**, records per second of one:",
            _table(["Part", *names], limits),
            "**What KEDA is told:**",
            _table(["", *names], scaler),
        ]
    )


def write() -> None:
    """Write the page's tables anew."""
    PAGE.write_text(with_block(PAGE.read_text("utf-8"), block(measured()), MARKERS), "utf-8")


if __name__ == "__main__":
    write()

"""The whole worker in memory under strange records and a babbling model: each record ends once, and says how."""

import asyncio
import contextlib
import gc
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson
import structlog
from aiokafka import TopicPartition

from tests.fuzz.shipped import MODEL, shipped_task
from tests.fuzz.strange_records import Strange
from tests.support.memory import TOPIC, Fetched, MemorySink, Rig
from tests.support.scripted_model import ScriptedModel
from topics import deadletters, enriched, reviews
from topics.headers import MAX_BYTES, MAX_ENTRIES, PREFIX
from topics.shapes import Shape
from workers.errors import PenstockError
from workers.guard import BUDGET
from workers.records import Outgoing, Passage, Prompt, Reply
from workers.task import Task

CHUNK = 1_000
CHUNK_BOUND_S = 90.0
PAGE_BYTES = resource.getpagesize()
UNGUARDED = 1 << 40
ENDS = ("enriched", "fallback", "dlq")


@dataclass(frozen=True, slots=True)
class Course:
    """A way to run the shipped task: settings that differ, and at which stages a record may be rejected."""

    name: str
    settings: dict[str, Any]
    shape: Shape
    stages: frozenset[str]


COURSES = (
    Course("as shipped", {}, Shape(), frozenset({"decode"})),
    Course("text", {"input_format": "text"}, Shape(text=True), frozenset({"decode"})),
    Course(
        "merge",
        {"shape": "merge", "merge_as": "said"},
        Shape(kind="merge", merge_as="said"),
        frozenset({"decode", "route"}),
    ),
)


@dataclass
class Figures:
    """What a run showed. `longest_block_s` is CPU time between two turns of the loop."""

    records: int = 0
    duration_s: float = 0.0
    longest_block_s: float = 0.0
    rss_bytes: list[int] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def growth_bytes(self) -> int:
        """Return how much the process grew in the second half."""
        return self.rss_bytes[-1] - self.rss_bytes[len(self.rss_bytes) // 2]

    def __str__(self) -> str:
        ends = ", ".join(f"{name} {count}" for name, count in self.ends.most_common())
        return (
            f"{self.records} records in {self.duration_s:.1f} s ({self.records / self.duration_s:.0f} /s), "
            f"longest block {1000 * self.longest_block_s:.0f} ms of CPU, RSS {self.rss_bytes[-1] >> 20} MiB, "
            f"{self.growth_bytes() / 1024:+.0f} KiB in the second half; {ends}"
        )


class Babbler(ScriptedModel):
    """Says anything, and looks at what it is asked: two parts, the system's text as it is, the user's as one string."""

    def __init__(self, strange: Strange, task: Task) -> None:
        super().__init__()
        self._strange, self._task = strange, task

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return or raise anything that a client may."""
        del wait_s
        passage.attempts += 1
        assert prompt.body.startswith(self._task.frame.head)
        assert prompt.body.endswith(self._task.frame.tail)
        system, user = orjson.loads(prompt.body)["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert isinstance(user["content"], str)
        await asyncio.sleep(0)
        step = self._strange.answer()
        if isinstance(step, PenstockError):
            raise step
        return Reply(step, MODEL, "http://nowhere", "stop", 1, 1, 0.01, passage.attempts)


class Judge(MemorySink):
    """Takes outputs, judges each, and keeps only counts."""

    def __init__(self, course: Course, figures: Figures) -> None:
        super().__init__()
        self.inputs: dict[int, Fetched] = {}
        self.ended: Counter[int] = Counter()
        self.complaints: list[str] = []
        self._course, self._figures = course, figures
        self._last_of_key: dict[bytes, int] = {}

    async def send(self, outgoing: Outgoing) -> None:
        """Confirm."""
        await asyncio.sleep(0)
        try:
            self._judge(outgoing)
        except Exception as exc:  # noqa: BLE001 - it must reach the test, not the record boundary
            self.complaints.append(f"{exc!r} for {outgoing!r}"[:3_000])

    def _judge(self, outgoing: Outgoing) -> None:
        ours = dict(header for header in outgoing.headers if header[0].startswith(PREFIX))
        offset = int((ours["__penstock.source"] or b"").rpartition(b"/")[2])
        record, kind = self.inputs[offset], outgoing.topic.rpartition(".")[2]
        assert outgoing.topic == f"{TOPIC}.ticket_triage.{kind}"
        assert outgoing.key == record.key
        _writable(outgoing)
        if kind == "dlq":
            self._dead(outgoing, record)
        elif record.value is None:
            assert outgoing.value is None
        else:
            self._answered(outgoing, record, kind)
        if kind in ENDS and not (record.value is None and kind == "fallback"):
            self.ended[offset] += 1
            self._figures.ends[kind] += 1
            self._in_order(record)

    def _dead(self, outgoing: Outgoing, record: Fetched) -> None:
        letter = deadletters.decode(outgoing.value, outgoing.headers)
        assert outgoing.value == record.value
        assert letter.failure.stage in self._course.stages, letter.failure
        kept = [value for name, value in letter.headers if not name.startswith(PREFIX)]
        assert kept == [value for name, value in record.headers if not name.startswith(PREFIX)]

    def _answered(self, outgoing: Outgoing, record: Fetched, kind: str) -> None:
        assert outgoing.value is not None
        if kind == "review":
            found = reviews.decode(outgoing.value, text=self._course.shape.text)
        else:
            found = enriched.decode(outgoing.value, self._course.shape)
        assert found.input == record.value
        assert kind != "enriched" or set(found.enrichment) == {"category", "urgency", "summary"}
        others = [header for header in outgoing.headers if not header[0].startswith(PREFIX)]
        assert len(others) <= MAX_ENTRIES
        assert sum(len(name.encode()) + len(value or b"") for name, value in others) <= MAX_BYTES
        assert all(name.startswith("ce_") or name == "traceparent" for name, _ in others)

    def _in_order(self, record: Fetched) -> None:
        if record.key is not None:
            assert record.offset > self._last_of_key.get(record.key, -1), "overtook its predecessor"
            self._last_of_key[record.key] = record.offset


def _writable(outgoing: Outgoing) -> None:
    """What aiokafka asserts of a record, late and for a whole batch."""
    assert outgoing.timestamp_ms is None or outgoing.timestamp_ms > 0
    for name, value in outgoing.headers:
        assert name.encode() is not None
        assert value is None or isinstance(value, bytes)


async def run(course: Course, figures: Figures, more: Callable[[], bool], seed: int) -> None:
    """Run chunks of strange records through the worker while there are to be `more`.

    Raises:
        AssertionError: a record ended never or twice, or badly, or something left the record boundary.
    """
    strange, task = Strange(seed), shipped_task(**course.settings)
    judge = Judge(course, figures)
    compiled = {one.name: getattr(task, one.name) for one in fields(task) if one.name != "model"}
    compiled["model"] = Babbler(strange, task)
    began_s, first = time.monotonic(), 0
    with _without_warnings():
        async with Rig(sink=judge, compiled=compiled) as rig:
            watch = asyncio.create_task(_watched(figures))
            rig.consumer.write(TopicPartition(TOPIC, 0))
            await rig.assign(0)
            _nothing_of_ours_failed(task, course)
            while more():
                await _chunk(rig, judge, [strange.record(offset) for offset in range(first, first + CHUNK)])
                first += CHUNK
                figures.records += CHUNK
                figures.rss_bytes.append(_rss_bytes())
                _nothing_of_ours_failed(task, course)
            watch.cancel()
    figures.duration_s += time.monotonic() - began_s


def _nothing_of_ours_failed(task: Task, course: Course) -> None:
    """Inputs that cannot be merged into are refused by design, and draw on the guard like a fault of the deployment."""
    assert "route" in course.stages or task.guard.budget == BUDGET, task.guard.tripped_by
    task.guard.budget = BUDGET if course.stages == {"decode"} else UNGUARDED


async def _chunk(rig: Rig, judge: Judge, records: list[Fetched]) -> None:
    at = TopicPartition(TOPIC, 0)
    end = records[-1].offset + 1
    judge.inputs = {record.offset: record for record in records}
    judge.ended.clear()
    rig.consumer.logs[at] = []
    rig.consumer.write(at, *records)
    async with asyncio.timeout(CHUNK_BOUND_S):
        while rig.ledger(0).position < end and not (judge.complaints or rig.failures or rig.pump.done()):  # noqa: ASYNC110 - three things that have no event
            await asyncio.sleep(0.001)
    assert not judge.complaints, judge.complaints[0]
    assert not rig.failures
    assert not rig.pump.done()
    assert (rig.window.count, rig.window.bytes) == (0, 0)
    assert judge.ended == dict.fromkeys(judge.inputs, 1), "a record ended never or twice"
    await rig.commit()
    assert rig.position(0) == end


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """A line per dead letter would be most of the work; errors are still printed."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _watched(figures: Figures) -> None:
    """Measure turns of the loop in CPU time: what a loaded machine takes away does not count."""
    while True:
        before_s = time.thread_time()
        await asyncio.sleep(0)
        figures.longest_block_s = max(figures.longest_block_s, time.thread_time() - before_s)


def _rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES

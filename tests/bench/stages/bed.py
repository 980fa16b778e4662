"""What the steps work on: the configuration of the matrix, compiled as the worker does it, and records for it."""

import gc
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

from aiokafka.structs import ConsumerRecord

from tests.bench.matrix.contenders import Job, penstock
from tests.bench.matrix.endpoint import Endpoint
from tests.bench.matrix.workloads import PARTITIONS, Case, records
from workers.llm import Client
from workers.llm.dialects import dialect_of
from workers.outcome import Enriched
from workers.ports import Ask, Frame
from workers.records import Outgoing, Passage, Prompt, Record, Reply
from workers.settings.model import Settings
from workers.settings.source import read
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s4_parse import parse
from workers.stream.lane import Lane
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery, Window
from workers.task import Task, compile_task

CASE = Case(workload="W3", name="256", latency="zero", slots=256, records=30_000)
"""The work of the matrix that shows the CPU floor."""
MODEL = "small"


@dataclass(slots=True)
class Took:
    """CPU seconds of this process, user and system."""

    cpu_s: float = 0.0


@contextmanager
def clock() -> Iterator[Took]:
    """Measure the CPU of the block, with the garbage of what came before gone."""
    gc.collect()
    took, began_s = Took(), time.process_time()
    yield took
    took.cpu_s = time.process_time() - began_s


@dataclass(slots=True)
class ReadyModel:
    """A `Model` that has its answer ready: what the path costs without a call."""

    client: Client
    reply: Reply
    name: str = MODEL

    def frame(self, ask: Ask) -> Frame:
        """Return the real body."""
        return self.client.frame(ask)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:  # noqa: ARG002 - the seam
        """Return a reply of its own, as the client makes one."""
        return replied(self.reply)

    def answered_since(self, at_s: float) -> bool:  # noqa: ARG002 - the seam
        """Say yes."""
        return True

    def held_reason(self) -> str | None:
        """Hold nobody."""

    def pace_per_s(self) -> float:
        """Return a rate."""
        return 1.0


@dataclass(slots=True)
class ReadySink:
    """A `Sink` that has confirmed everything already."""

    partitions: dict[str, int]

    async def send(self, outgoing: Outgoing) -> None:
        """Return."""


def replied(reply: Reply) -> Reply:
    """Return a new reply with the same content."""
    return Reply(
        reply.text,
        reply.model,
        reply.endpoint,
        reply.finish_reason,
        reply.input_tokens,
        reply.output_tokens,
        reply.latency_s,
        reply.attempts,
    )


@dataclass(slots=True)
class Bed:
    """Everything that is made before a clock runs. `answer` is the body of the stub's answer."""

    settings: Settings
    client: Client
    answer: bytes
    fetched: Sequence[ConsumerRecord]
    slots: int
    task: Task = field(init=False)
    reply: Reply = field(init=False)
    partitions: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.task = self._task(self.client)
        said = dialect_of(self.settings.models[MODEL]).read(self.answer)
        tokens = said.input_tokens, said.output_tokens
        label = self.client.first_endpoint
        self.reply = Reply(said.text, said.model, label, said.finish_reason, *tokens, 0.15, 1)
        topics = [topic for of in self.task.outputs.values() for topic in of.names()]
        self.partitions = dict.fromkeys([*self.task.settings.input, *topics], PARTITIONS)

    def _task(self, model: "Client | ReadyModel") -> Task:
        return compile_task("bench", self.settings.tasks["bench"], model, self.settings.models[MODEL])

    @property
    def records(self) -> list[Record]:
        """The records as the intake makes them."""
        return [recorded(each) for each in self.fetched]

    @property
    def prompts(self) -> list[Prompt]:
        """Their requests."""
        return [build(decode(record, self.task), self.task) for record in self.records]

    @property
    def outcomes(self) -> list[Enriched]:
        """What becomes of them."""
        return [Enriched(parse(reply, self.task), reply) for reply in self.replies]

    @property
    def replies(self) -> list[Reply]:
        """An answer for each."""
        return [replied(self.reply) for _ in self.fetched]

    def lane(self, *, ready: bool = False) -> Lane:
        """Return a lane with an empty window; `ready`: on a model and a sink that need no time."""
        task = self._task(ReadyModel(self.client, self.reply)) if ready else self.task
        window = Window(max_in_flight=4 * self.slots, max_bytes=1 << 30, max_span=1 << 30)
        return Lane(task, window, ReadySink(self.partitions), failed)

    def ledgers(self) -> list[Ledger]:
        """Return a ledger for each partition."""
        return [Ledger(self.fetched[0].topic, number, 0) for number in range(PARTITIONS)]

    def entered(self, lane: Lane, count: int | None = None) -> list[Delivery]:
        """Return the records, or the first of them, as the intake enters them."""
        ledgers = self.ledgers()
        deliveries = []
        for one in self.fetched[:count]:
            ledgers[one.partition].take(one.offset, one.timestamp)
            delivery = lane.delivery(recorded(one), ledgers[one.partition])
            if lane.window.may_start(delivery):
                deliveries.append(delivery)
        return deliveries


def failed(error: Exception) -> None:
    """End the bench: a bug in the path is no figure."""
    raise error


def recorded(one: ConsumerRecord) -> Record:
    """Return the record as the intake makes it."""
    return Record(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, one.headers)


def fetched(topic: str, count: int) -> list[ConsumerRecord]:
    """Return the input of the matrix, W3's, as aiokafka gives it; each partition's offsets rise."""
    now_ms = int(time.time() * 1000)
    found = []
    for number, one in enumerate(islice(cycle(records(CASE)), count)):
        value, key = one.value or b"", one.key or b""
        at = number % PARTITIONS, number // PARTITIONS
        found.append(ConsumerRecord(topic, *at, now_ms, 0, key, value, None, len(key), len(value), ()))
    return found


def answer_of(stub: Endpoint) -> bytes:
    """Return the body of the stub's answer."""
    with urllib.request.urlopen(f"{stub.url}/v1/chat/completions", b"{}", 10) as answer:  # noqa: S310 - ours
        body: bytes = answer.read()
    return body


def made(
    folder: Path, stub: Endpoint, *, count: int, bootstrap_servers: str, order: str = "none", slots: int = CASE.slots
) -> Bed:
    """Write the configuration that the matrix gives Penstock, read and compile it."""
    topic = "stages-in"
    job = Job(
        case=replace(CASE, slots=slots),
        bootstrap_servers=bootstrap_servers,
        endpoint=stub,
        group=f"stages-{order}",
        topic_in=topic,
        topic_out="stages-out",
        folder=folder,
    )
    *_, path = penstock(job, order=order)
    loaded, problems = read(Path(path))
    if loaded is None or problems:
        raise ValueError(f"{path}: {problems}")
    client = Client(MODEL, loaded.settings.models[MODEL])
    return Bed(loaded.settings, client, answer_of(stub), fetched(topic, count), slots)

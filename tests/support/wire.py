"""A task and a record to route, and the golden examples of the wire contract as text.

After an intended change of the contract, write the golden files anew, read the difference, and copy it to
topics/README.md:  python -c "from tests.support.wire import write_golden; write_golden()"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from topics.spec import KINDS_WITH_RETRY, output_names
from workers.errors import AnswerOffSchema, NotJson, TimedOut, ValueTooLarge
from workers.guard import Guard
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.pace import Pace
from workers.ports import Frame, Model
from workers.records import Outgoing, Record, Reply, Spent
from workers.settings.model import TaskSettings
from workers.stages.s5_route import route
from workers.task import Task, outputs_of

GOLDEN = Path(__file__).parent.parent / "contract" / "golden"
INPUT = "tickets.raw"
NOW_S = 1_767_225_600.25
"""2026-01-01T00:00:00.250Z"""
SENT_MS = 1_767_225_599_000
VALUE = b'{"id": 17, "text": "Printer on fire", "big": 12345678901234567890123}'
PARTITIONS = {INPUT: 12, **dict.fromkeys(output_names(INPUT, "ticket_triage", kinds=KINDS_WITH_RETRY).values(), 12)}
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS: tuple[tuple[str, bytes | None], ...] = (
    ("ce_id", b"a1"),
    ("traceparent", TRACEPARENT),
    ("shop", b"berlin"),
    ("__penstock.outcome", b"forged"),
)
REPLAYED = (*HEADERS, ("__penstock.origin", b"tickets.raw/3/4711"), ("__penstock.replay", b"1"))


def make_task(*, inputs: tuple[str, ...] = (INPUT,), **settings: Any) -> Task:
    """Return a compiled task that nobody calls a model for."""
    task_settings = TaskSettings.model_validate(
        {
            "input": list(inputs),
            "model": "small",
            "prompt": {"system": Path("s.txt"), "user": Path("u.j2")},
            "answer": {"text": {}},
            **settings,
        }
    )
    return Task(
        name="ticket_triage",
        settings=task_settings,
        model=cast("Model", None),
        frame=Frame(b"", b""),
        render=str,
        check=None,
        ladder=(),
        outputs=outputs_of("ticket_triage", task_settings),
        prompt_version="p-3f9a1c2e",
        schema_version="s-77b0d410",
        guard=Guard(),
        pace=Pace(unlimited=True),
    )


def make_record(**changes: Any) -> Record:
    """Return a record of the input topic."""
    fields: dict[str, Any] = {
        "topic": INPUT,
        "partition": 3,
        "offset": 4711,
        "timestamp_ms": SENT_MS,
        "key": b"customer-42",
        "value": VALUE,
        "headers": HEADERS,
    }
    return Record(**(fields | changes))


def make_reply(**changes: Any) -> Reply:
    """Return a model's reply."""
    fields: dict[str, Any] = {
        "text": '{"category": "hardware"}',
        "model": "Qwen/Qwen2.5-3B-Instruct",
        "endpoint": "http://vllm-0:8000",
        "finish_reason": "stop",
        "input_tokens": 212,
        "output_tokens": 19,
        "latency_s": 0.1834,
        "attempts": 1,
    }
    return Reply(**(fields | changes))


def route_at_now(
    record: Record, outcome: Outcome, task: Task, partitions: Mapping[str, int] = PARTITIONS
) -> list[Outgoing]:
    """Route at `NOW_S`."""
    return route(record, outcome, task, partitions, wall_s=lambda: NOW_S)


def rendered(outgoing: Outgoing) -> str:
    """Return an outgoing record as text: where to, headers, an empty line, the value on one line."""
    lines = [
        f"topic: {outgoing.topic}",
        f"partition: {outgoing.partition}",
        f"timestamp_ms: {'now' if outgoing.timestamp_ms is None else outgoing.timestamp_ms}",
        f"key: {_text(outgoing.key)}",
        *(f"header: {name} = {_text(value)}" for name, value in outgoing.headers),
        "",
        _text(outgoing.value),
    ]
    return "\n".join(lines) + "\n"


def _text(value: bytes | None) -> str:
    return "(null)" if value is None else value.decode()


def examples() -> dict[str, str]:
    """Return every golden example by name, as the code writes it now."""
    answer = {"category": "hardware", "urgency": "high"}
    timeout = TimedOut("no answer within 1 s")
    timeout.endpoint = "http://vllm-0:8000"
    off_schema = AnswerOffSchema('"fire" is not one of 4 values', raw='{"category": "fire"}')
    enriched = Enriched(answer, make_reply())
    rules = Fallback("rules", answer, timeout, 0, Spent(3))
    review = Fallback("review", None, off_schema, 1, Spent(1, 212, 19))
    text = make_record(value=b'Printer on fire,\n"again"')
    not_json = make_record(value=b'{"id": 17,', headers=(*HEADERS, ("note", None)))
    large = Rejected(ValueTooLarge("300000 bytes, max_input_bytes is 262144"), stub=True)
    wrap = make_task()
    defers = make_task(order="none", when_unavailable="defer")
    merge = make_task(shape="merge")
    only = make_task(shape="only")
    cases: dict[str, tuple[Record, Outcome, Task, int]] = {
        "enriched-wrap": (make_record(), enriched, wrap, 0),
        "enriched-wrap-text": (text, enriched, make_task(input_format="text"), 0),
        "enriched-merge": (make_record(), enriched, merge, 0),
        "enriched-only": (make_record(), enriched, only, 0),
        "enriched-replayed": (make_record(offset=9000, headers=REPLAYED), enriched, only, 0),
        "enriched-tombstone": (make_record(value=None), Erased(), wrap, 0),
        "fallback-tombstone": (make_record(value=None), Erased(), wrap, 1),
        "fallback-wrap-rules": (make_record(), rules, wrap, 0),
        "fallback-wrap-review": (make_record(), review, wrap, 1),
        "fallback-merge-rules": (make_record(), rules, merge, 0),
        "fallback-only-skip": (make_record(), Fallback("skip", None, timeout, 2, Spent(3)), only, 0),
        "review": (make_record(), review, only, 0),
        "retry": (make_record(), Deferred(timeout, 1, Spent(3)), defers, 0),
        "dlq": (not_json, Rejected(NotJson("unexpected end of data: line 1 column 11")), wrap, 0),
        "dlq-stub": (make_record(value=b"x" * 300_000), large, wrap, 0),
    }
    return {
        name: rendered(route_at_now(record, outcome, task)[place])
        for name, (record, outcome, task, place) in cases.items()
    }


def write_golden() -> None:
    """Write every golden file anew."""
    for name, text in examples().items():
        (GOLDEN / f"{name}.txt").write_text(text)

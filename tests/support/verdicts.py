"""The oracle's verdict over the topics of a test, and the rules that a test's configuration gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.deployment import FILES
from topics.shapes import Shape
from topics.spec import KINDS_WITH_RETRY, output_names
from workers.answers import compile_schema
from workers.audit import Rules, Sample, Verdict
from workers.audit.reading import Place, audit
from workers.settings.model import Kafka
from workers.stream.survey import partition_counts


@cache
def _rules() -> Rules:
    """Answers to the test configuration's own schema are checked, all others only parsed."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "schema.json"
        path.write_text(FILES["schema.json"])
        schema = compile_schema(path)
    return Rules(shape=Shape(), check=schema.check, schema_version=schema.version)


async def verdict_of(
    kafka: Kafka,
    topic: str,
    task: str,
    *,
    samples: Sequence[Sample] = (),
    settled: bool = False,
    since: Mapping[int, int] | None = None,
    defers: bool = False,
    rules: Rules | None = None,
    **changes: object,
) -> Verdict:
    """Read an input topic and its outputs to their ends and judge.

    `defers`: the task has a retry topic. `settled`: the group's commit must be at the end of every partition. `since`:
    where the group began. `changes` are made to the rules of a test: `order="none"`, `shape=Shape(kind="merge")`.
    """
    outputs = output_names(topic, task)
    retry = output_names(topic, task, kinds=KINDS_WITH_RETRY)["retry"] if defers else None
    found = await partition_counts(kafka, [topic, *outputs.values(), *([retry] if retry else [])])
    place = Place(topic=topic, outputs=outputs, partitions=found, retry=retry, since=since or {})
    verdict = await audit(kafka, place, replace(rules or _rules(), **changes), samples=samples)
    if not settled:
        verdict.uncommitted.clear()
    return verdict

"""What the dry run says of real records: how many of the newest decode and render. Nothing of them is shown."""

from collections import Counter
from collections.abc import Iterable, Sequence

from workers.cli.findings import Finding
from workers.errors import PromptFailed, Reject
from workers.records import Record
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.task import Task

SAMPLE_RECORDS = 20


def record_finding(topic: str, task: Task, sample: Iterable[Record]) -> Finding:
    """Return how the newest records of a topic fare in the first two stages.

    A template that fails is ours to mend. Records that cannot be decoded are the producer's, and each becomes a dead
    letter: that alone fails the check only when no record can be decoded.
    """
    about = f"records of {topic} for {task.name}"
    records = [record for record in sample if record.value is not None]
    if not records:
        what = "none there (or tombstones only): the template was tried on no real record"
        return Finding(about=about, state="unknown", what=what)
    errors = [error for record in records if (error := _try(record, task)) is not None]
    fine = f"{len(records) - len(errors)} of the {len(records)} newest decode and render"
    what = "; ".join([fine, *_counted(errors)])
    if any(isinstance(error, PromptFailed) for error in errors):
        return Finding(about=about, state="failed", what=what, todo=f"mend {task.settings.prompt.user}")
    if len(errors) == len(records):
        todo = f"is this the right topic, and tasks.{task.name}.input_format right?"
        return Finding(about=about, state="failed", what=what, todo=todo)
    return Finding(about=about, state="ok", what=what)


def _try(record: Record, task: Task) -> Reject | None:
    try:
        build(decode(record, task), task)
    except Reject as error:
        return error
    return None


def _counted(errors: Sequence[Reject]) -> list[str]:
    """Count by reason; texts of templates name the template's own places, those of decoding are left out."""
    reasons = Counter(
        f"template ({error})" if isinstance(error, PromptFailed) else f"{error.reason}, a dead letter each"
        for error in errors
    )
    return [f"{count} x {reason}" for reason, count in reasons.most_common()]

"""What the dry run says of sampled records, and what it never says."""

from pathlib import Path

import pytest

from tests.support.settings_files import write_sound
from tests.support.wire import make_record
from workers.cli.dry_run import compiled
from workers.cli.dry_run_records import record_finding
from workers.settings.source import load
from workers.task import Task

PRIVATE = "kim@example.org"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task whose template needs `record.text`."""
    return compiled(load(write_sound(tmp_path)).settings, "triage")


def of(task: Task, *values: bytes | None) -> tuple[str, str]:
    """Return state and text of the finding about records with these values; they never hold a record's content."""
    finding = record_finding("raw", task, [make_record(value=value) for value in values])
    assert PRIVATE not in str(finding)
    return finding.state, finding.what


def test_records_that_fit(task: Task) -> None:
    """All decode and render; tombstones are not counted, as no template sees them."""
    assert of(task, b'{"text": "a"}', None, b'{"text": "b"}') == ("ok", "2 of the 2 newest decode and render")


def test_a_template_that_does_not_fit_the_records(task: Task) -> None:
    """One record is enough to fail: the template is ours. The place is named, the record's content is not."""
    state, what = of(task, b'{"text": "a"}', b'{"mail": "%s"}' % PRIVATE.encode())
    assert (state, what.partition(";")[0]) == ("failed", "1 of the 2 newest decode and render")
    assert "1 x template (line 1: UndefinedError: 'dict object' has no attribute 'text')" in what


def test_a_few_bad_records_are_told_and_fail_nothing(task: Task) -> None:
    """A producer's bad record costs a dead letter, which is no reason not to start."""
    state, what = of(task, b'{"text": "a"}', PRIVATE.encode(), b"")
    assert state == "ok"
    assert (
        what == "1 of the 3 newest decode and render; 1 x not_json, a dead letter each; 1 x empty, a dead letter each"
    )


def test_nothing_but_bad_records_fails(task: Task) -> None:
    """When none decodes it is the wrong topic or the wrong format."""
    assert of(task, b"<xml/>", b"<xml/>")[0] == "failed"


def test_no_record_is_unknown(task: Task) -> None:
    """An empty topic tells nothing about the template."""
    assert of(task)[0] == "unknown"
    assert of(task, None)[0] == "unknown"

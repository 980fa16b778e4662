"""The wire contract, byte for byte: consumers rely on it, so a change must show up in a golden file first."""

import re
from pathlib import Path

import pytest

from tests.support.wire import GOLDEN, SENT_MS, VALUE, examples
from topics import deadletters, enriched, fallbacks, reviews
from topics.headers import Header
from topics.shapes import Shape

README = Path(__file__).parent.parent.parent / "topics" / "README.md"


def golden_headers(text: str) -> list[Header]:
    """Return the headers that a golden text shows."""
    found = re.findall(r"^header: (\S*) = (.*)$", text.partition("\n\n")[0], re.MULTILINE)
    return [(name, None if value == "(null)" else value.encode()) for name, value in found]


def golden_value(name: str) -> bytes:
    """Return the value that a golden file shows."""
    return (GOLDEN / f"{name}.txt").read_text().partition("\n\n")[2].removesuffix("\n").encode()


@pytest.mark.parametrize("name", sorted(examples()))
def test_bytes_are_those_of_the_golden_file(name: str) -> None:
    """What is produced for a known record never changes unnoticed."""
    assert examples()[name] == (GOLDEN / f"{name}.txt").read_text()


def test_every_golden_file_is_checked() -> None:
    """A golden file without a case would be a promise that nobody keeps."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(examples())


def test_readme_shows_the_golden_files() -> None:
    """Every example in topics/README.md is a golden file, word for word, and every topic has one there."""
    shown = dict(re.findall(r"^```text ([a-z-]+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL))
    assert {"enriched-wrap", "fallback-wrap-rules", "review", "dlq", "dlq-stub", "retry"} <= set(shown)
    for name, text in shown.items():
        assert text == (GOLDEN / f"{name}.txt").read_text(), name


def test_enriched_values_read_back() -> None:
    """A consumer gets input, enrichment and provenance out of a wrapped value, and the input out of a merged one."""
    wrapped = enriched.decode(golden_value("enriched-wrap"))
    assert wrapped.input == VALUE
    assert wrapped.enrichment == {"category": "hardware", "urgency": "high"}
    assert wrapped.provenance is not None
    assert wrapped.provenance.source == "tickets.raw/3/4711"
    assert wrapped.provenance.produced_at == "2026-01-01T00:00:00.250Z"
    assert wrapped.provenance.cost_usd is None
    assert enriched.decode(golden_value("enriched-merge"), Shape(kind="merge")).input == VALUE
    text = enriched.decode(golden_value("enriched-wrap-text"), Shape(text=True))
    assert text.input == b'Printer on fire,\n"again"'
    assert enriched.decode(golden_value("enriched-only"), Shape(kind="only")).enrichment == wrapped.enrichment


def test_fallback_and_review_values_read_back() -> None:
    """The review copy says what its fallback record says: input, reason and the model's useless answer."""
    fallback = fallbacks.decode(golden_value("fallback-wrap-review"))
    assert reviews.decode(golden_value("review")) == fallback
    assert fallback.provenance is not None
    assert fallback.provenance.reason == "answer_off_schema"
    assert fallback.provenance.raw_answer == '{"category": "fire"}'


def test_dead_letter_reads_back() -> None:
    """A dead letter gives the input back, and says where it came from and what was wrong."""
    text = (GOLDEN / "dlq.txt").read_text()
    letter = deadletters.decode(golden_value("dlq"), golden_headers(text))
    assert letter.value == b'{"id": 17,'
    assert [name for name, _ in letter.headers] == ["ce_id", "traceparent", "shop", "note"]
    assert letter.headers[-1] == ("note", None)
    assert (letter.failure.stage, letter.failure.reason) == ("decode", "not_json")
    assert letter.failure.timestamp_ms == SENT_MS
    assert letter.stub is None


def test_stub_reads_back() -> None:
    """A stub says how large the record was, and where it still lies."""
    text = (GOLDEN / "dlq-stub.txt").read_text()
    letter = deadletters.decode(golden_value("dlq-stub"), golden_headers(text))
    assert letter.value is None
    assert letter.stub is not None
    assert (letter.stub.size_bytes, letter.stub.source) == (300_000, "tickets.raw/3/4711")

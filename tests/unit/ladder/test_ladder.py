"""The ladder: which rung answers, how often a person is asked, and that no Python rule loses a record."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from tests.support.wire import make_record
from workers import metrics
from workers.answers import compile_schema
from workers.errors import TimedOut
from workers.ladder import PythonRuleInvalid, RulesInvalid, build_ladder, descend
from workers.outcome import Fallback, Rejected
from workers.ports import Rung
from workers.records import Request, Spent
from workers.settings.rungs import RungSettings

CHECK = compile_schema(Path(__file__).parents[3] / "config" / "schemas" / "triage.v1.json").check
RULES = "tests.support.python_rules"
LATE = TimedOut("late")
DEFAULT = {"category": "other", "urgency": "normal", "summary": ""}


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def ladder(*rungs: Any, folder: Path = Path(), check: Any = CHECK, clock: Any = None) -> tuple[Rung, ...]:
    """Build a ladder from what a configuration would say."""
    settings = [TypeAdapter(RungSettings).validate_python(_absolute(rung, folder)) for rung in rungs]
    return build_ladder(settings, check, clock or Clock(), "ladder_test")


def _absolute(rung: Any, folder: Path) -> Any:
    if isinstance(rung, dict) and isinstance(path := rung.get("rules"), str):
        return {"rules": str(folder / path)}
    return rung


def request(text: str = "hello") -> Request:
    """Return a request with one text."""
    return Request(make_record(), {"text": text})


def tier(rungs: tuple[Rung, ...], **kwargs: Any) -> str:
    """Return who answers."""
    outcome = descend(rungs, request(**kwargs), LATE)
    return outcome.tier if isinstance(outcome, Fallback) else "nobody"


def failed(cause: str) -> float:
    """Return how often a Python rule of the test's task failed so."""
    return float(metrics.RULES_FAILED.labels("ladder_test", cause)._value.get())


def test_the_first_rung_that_has_an_answer_gives_it(tmp_path: Path) -> None:
    """Rungs are asked in their order; a rung that declines passes the record on."""
    (tmp_path / "r.yaml").write_text("rules: [{when: {field: text, equals: known}, then: {category: bug}}]")
    rungs = ladder({"rules": "r.yaml"}, {"review": {"max_per_hour": 1}}, {"default": DEFAULT}, folder=tmp_path)
    asked = Spent(3, 33, 21, 0.5)
    assert descend(rungs, request("known"), LATE, spent=asked) == Fallback("rules", {"category": "bug"}, LATE, 0, asked)
    assert descend(rungs, request(), LATE) == Fallback("review", None, LATE, 1)
    assert descend(rungs, request(), LATE) == Fallback("default", DEFAULT, LATE, 2)


def test_skip_answers_with_nothing() -> None:
    """No enrichment is an answer, and not the same as declining."""
    assert descend(ladder("skip", {"default": DEFAULT}), request(), LATE) == Fallback("skip", None, LATE, 0)


def test_a_ladder_without_an_answer_rejects() -> None:
    """Past the last rung, or without any, the record becomes a dead letter that tells the model's error."""
    assert descend((), request(), LATE, spent=Spent(2)) == Rejected(LATE, attempts=2)
    assert descend(ladder({"rules": {"python": f"{RULES}:by_length"}}), request("no"), LATE) == Rejected(LATE)


def test_the_descent_goes_on_below_a_rung() -> None:
    """When a review copy cannot be written, the next rung answers."""
    rungs = ladder("review", {"default": "a text"}, check=None)
    assert descend(rungs, request(), LATE, start=1) == Fallback("default", "a text", LATE, 1)
    assert descend(rungs, request(), LATE, start=2) == Rejected(LATE)


def test_persons_are_asked_no_more_than_so_often_in_any_hour() -> None:
    """The limit holds for every hour, not only for those that start full; what it holds back is counted."""
    clock = Clock()
    rungs = ladder({"review": {"max_per_hour": 2}}, {"default": DEFAULT}, clock=clock)
    suppressed = metrics.REVIEW_SUPPRESSED.labels("ladder_test")._value
    before = suppressed.get()
    seen = []
    for after_s in (0, 1_800, 1, 1_798.9, 0.1, 0, 1_800, 0):
        clock.now_s += after_s
        seen.append(tier(rungs))
    assert seen == ["review", "review", "default", "default", "review", "default", "review", "default"]
    assert suppressed.get() == before + 4


def test_a_python_rule_answers_or_declines() -> None:
    """A function's mapping is the enrichment, None passes the record on."""
    rungs = ladder({"rules": {"python": f"{RULES}:by_length"}}, {"default": DEFAULT})
    assert tier(rungs, text="hello") == "rules"
    assert tier(rungs, text="no") == "default"


def test_a_python_rule_answers_texts() -> None:
    """For a text answer the function returns a text, and nothing else counts."""
    assert descend(
        ladder({"rules": {"python": f"{RULES}:upper"}}, check=None), Request(make_record(), "a"), LATE
    ) == Fallback("rules", "A", LATE, 0)
    assert tier(ladder({"rules": {"python": f"{RULES}:by_length"}}, "skip", check=None)) == "skip"


@pytest.mark.parametrize(
    ("function", "cause", "words"),
    [
        ("raises", "raised", "KeyError in raises, line "),
        ("off_schema", "off_schema", "is a required property"),
        ("no_json", "not_json", "a dict that is not JSON"),
    ],
)
def test_a_python_rule_that_fails_passes_the_record_on(function: str, cause: str, words: str) -> None:
    """The next rung answers; each failure is counted, one a minute is logged, and no record content with it."""
    clock = Clock()
    rungs = ladder({"rules": {"python": f"{RULES}:{function}"}}, {"default": DEFAULT}, clock=clock)
    before = failed(cause)
    with capture_logs() as lines:
        for after_s in (0, 1, 58.9, 0.1, 1):
            clock.now_s += after_s
            assert tier(rungs, text="secret") == "default"
    assert failed(cause) == before + 5
    assert [line["event"] for line in lines] == ["python rule failed"] * 2
    assert words in lines[0]["what"]
    assert "secret" not in str(lines)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tests.support.nosuch:f", "ModuleNotFoundError"),
        (f"{RULES}:nosuch", "AttributeError"),
        (f"{RULES}:NUMBER", "is no function"),
        (f"{RULES}:waits", "is async"),
    ],
)
def test_a_python_rule_that_cannot_be_called_is_found_at_start(path: str, words: str) -> None:
    """A wrong import path is an error of the configuration."""
    with pytest.raises(PythonRuleInvalid, match=words):
        ladder({"rules": {"python": path}})


def test_rules_that_cannot_be_read_are_found_at_start(tmp_path: Path) -> None:
    """A ladder with a broken file of rules is not built."""
    with pytest.raises(RulesInvalid):
        ladder({"rules": "none.yaml"}, folder=tmp_path)

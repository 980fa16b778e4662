"""E11-E13: what the parse stage makes of every broken answer in `answers/`: the value that is there, or none."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.answers.corpus import Row, rows
from tests.fuzz.shipped import shipped_task
from tests.support.wire import make_reply, make_task
from workers.errors import AnswerCut, BadAnswer
from workers.records import Reply
from workers.stages.s4_parse import parse

ROWS = rows()
TASK = shipped_task()
NUMBER = replace(make_task(), check=lambda value: None if isinstance(value, float | int) else "no number")


def said(text: str, finish_reason: str = "stop") -> Reply:
    """Return a reply that says `text`."""
    return replace(make_reply(), text=text, finish_reason=finish_reason)


def taken(row: Row) -> Any:
    """Return the enrichment, None when there is none."""
    try:
        return parse(said(row.said, row.finish_reason), TASK)
    except BadAnswer as error:
        assert isinstance(error, AnswerCut) == (row.finish_reason == "length")  # noqa: PT017 - all rows are of interest
        return None


def test_the_corpus_is_not_lost() -> None:
    """Hundreds of rows, none twice in its class; what is expected passes the schema, and a person reads it."""
    assert len({(row.kind, row.said, row.finish_reason) for row in ROWS}) == len(ROWS) >= 900
    assert len({row.kind for row in ROWS}) >= 20
    assert sum(row.expect is not None for row in ROWS) >= 200
    assert TASK.check is not None
    for row in ROWS:
        assert row.expect is None or (TASK.check(row.expect) is None and row.reads == row.expect), row


@pytest.mark.fault("E11", "E12", "E13")
@pytest.mark.parametrize("kind", sorted(Counter(row.kind for row in ROWS)))
def test_no_value_is_made_up_and_what_can_be_rescued_is(kind: str) -> None:
    """Each row gives exactly what it expects: that value, or a BadAnswer."""
    wrong = [(row, got) for row in ROWS if row.kind == kind and (got := taken(row)) != row.expect]
    assert wrong == []


@pytest.mark.fault("E13")
@pytest.mark.parametrize("text", ["12", "-1.5", "1e3"])
def test_a_number_at_the_last_token_may_have_had_more_digits(text: str) -> None:
    """All other JSON has an end of its own; a number that was cut is another number."""
    assert parse(said(text), NUMBER) == float(text)
    with pytest.raises(AnswerCut, match="digits"):
        parse(said(text, "length"), NUMBER)

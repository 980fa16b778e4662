"""Every fault of the catalogue has a test that proves what the worker does, or says why it has none."""

import pytest

from tests.support.catalogue import FAMILIES, proofs, rows

ROWS = {name: row for family in FAMILIES for name, row in rows(family).items()}
PROOFS = proofs()


@pytest.mark.parametrize(("family", "count"), FAMILIES.items())
def test_no_row_is_lost(family: str, count: int) -> None:
    """A family has its rows, numbered without a gap under its letter."""
    names = list(rows(family))
    assert names == [f"{names[0][0]}{number}" for number in range(1, count + 1)]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_proved_or_says_why_not(name: str) -> None:
    """A row has a test, or waits for something, or cannot be tested; it is not listed as untestable and tested."""
    row, tests = ROWS[name], [proof for proof in PROOFS if proof.row == name]
    assert tests or row.listed or row.arrives_with, "no test carries it and no reason is given"
    assert not (tests and row.listed), f"listed as not testable, and tested by {tests}"


def test_marks_name_rows() -> None:
    """A mark that names no row is a typing error."""
    assert {proof.row for proof in PROOFS} <= set(ROWS)


def test_marks_stand_on_tests() -> None:
    """A mark on something that pytest does not run proves nothing."""
    files = {proof.file for proof in PROOFS if not proof.file.rsplit("/", 1)[-1].startswith("test_")}
    functions = {proof.function for proof in PROOFS if proof.function and not proof.function.startswith("test_")}
    assert not files
    assert not functions

"""The catalogue of faults, and the tests that prove its rows: read from the files, so that nothing has to run."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
FOLDER = TESTS / "faults" / "catalogue"
FAMILIES = {"broker": 13, "rebalance": 9, "endpoint": 28, "input": 20, "process": 13, "output": 11}
"""Rows per family: one that is lost from a file is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault.

    `listed` says why no test can show it, `arrives_with` what is to be built first (a part may be tested already),
    `argued` why the worker does something else than expected.
    """

    fault: str
    expected: str
    listed: str = ""
    arrives_with: str = ""
    argued: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """A place that carries `pytest.mark.fault(row)`: the file, and the function that it stands on."""

    row: str
    file: str
    function: str


def rows(family: str) -> dict[str, Row]:
    """Return the rows of a family by their ids.

    Raises:
        TypeError: a row has a key that is none of Row's.
    """
    table = tomllib.loads((FOLDER / f"{family}.toml").read_text())
    return {name: Row(**row) for name, row in table.items()}


def proofs() -> list[Proof]:
    """Return every mark in the tests."""
    files = [path for path in sorted(TESTS.rglob("*.py")) if "mark.fault(" in path.read_text()]
    return [proof for path in files for proof in _in_file(path)]


def _in_file(path: Path) -> Iterator[Proof]:
    file = str(path.relative_to(TESTS))
    for statement in ast.parse(path.read_text()).body:
        name = getattr(statement, "name", "")
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                for row in node.args:
                    assert isinstance(row, ast.Constant), f"{file}:{node.lineno}: ids are written out"
                    yield Proof(str(row.value), file, name)

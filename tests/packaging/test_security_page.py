"""SECURITY.md claims nothing that no test holds."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")][2:]


def test_every_claim_names_tests_that_exist() -> None:
    """Each row of the table ends with test files, and each of them is there and has tests."""
    assert len(ROWS) > 10
    for row in ROWS:
        named = re.findall(r"`(tests/[^`]+\.py)`", row.rsplit("|", 2)[1])
        assert named, row
        assert all("def test_" in (ROOT / file).read_text() for file in named), row


def test_the_page_is_one_page() -> None:
    """What is longer is not read."""
    assert len(PAGE.split()) < 900

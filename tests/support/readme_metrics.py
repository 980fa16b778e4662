"""Writes the table of metrics into README.md: `python -m tests.support.readme_metrics`."""

import sys
from pathlib import Path

from workers.metrics import table

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN = "<!-- metrics:begin -->"
END = "<!-- metrics:end -->"


def section(text: str) -> str:
    """Return what stands between the markers.

    Raises:
        ValueError: a marker is missing, stands twice or in the wrong order.
    """
    before, between, _ = _parts(text)
    del before
    return between


def with_section(text: str, between: str) -> str:
    """Return the text with another section between its markers."""
    before, _, after = _parts(text)
    return f"{before}{BEGIN}\n{between}\n{END}{after}"


def _parts(text: str) -> tuple[str, str, str]:
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md needs {BEGIN} and {END} once each")
    before, _, rest = text.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md has {END} before {BEGIN}")
    return before, between.strip("\n"), after


if __name__ == "__main__":
    try:
        README.write_text(with_section(README.read_text("utf-8"), table()), "utf-8")
    except ValueError as exc:
        sys.exit(str(exc))

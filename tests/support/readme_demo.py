"""`python -m tests.support.readme_demo`: run `make demo` and put what it prints into the README."""

import re
import subprocess
from pathlib import Path

from tests.support.page import with_block

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"


def run() -> str:
    """Return what `make demo` prints when it is piped, without trailing blanks."""
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def shown(readme: str) -> str:
    """Return the README's block."""
    found = re.search(rf"{BEGIN}\n```text\n(.*?)\n```\n{END}", readme, re.DOTALL)
    return found[1] if found else ""


def shape(output: str) -> list[str]:
    """Return the lines that do not move, without what differs from run to run: figures, samples, progress."""
    still = [line for line in output.splitlines() if not re.match(r" *\d+\.\d s |   +(in|out) ", line)]
    return [re.sub(r"[\d.]+|customer-\S*|─+| +|: [a-z_]+$", " ", line).strip() for line in still]


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_block(page.read_text(), f"```text\n{run()}\n```", (BEGIN, END)))

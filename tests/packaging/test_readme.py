"""What README and docs say is what there is: their configurations lint, their commands, files and metrics exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import readme_demo
from tests.support.readme_demo import shape, shown
from workers import metrics
from workers.cli import VERBS

ROOT = Path(__file__).parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
PAGES = tuple(ROOT / page for page in ("README.md", "workers/README.md", "topics/README.md", "docs/models.md"))
README = PAGES[0].read_text()


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def task_samples() -> list[str]:
    """Return the minimal configuration, alone and with what each later sample says laid over it."""
    minimal, *more = [*blocks(README, "yaml"), *blocks((ROOT / "docs" / "models.md").read_text(), "yaml")]
    return [minimal, *(yaml.safe_dump(laid_over(yaml.safe_load(minimal), yaml.safe_load(sample))) for sample in more)]


def laid_over(below: Any, above: Any) -> Any:
    """Return two configurations as one: mappings are joined, of anything else the upper one counts."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {name: laid_over(below.get(name), value) for name, value in above.items()}


@pytest.mark.parametrize("sample", task_samples())
def test_a_sample_configuration_has_no_problem(tmp_path: Path, sample: str) -> None:
    """What a newcomer copies lints clean beside the files that it names; what is shown of a task fits into it."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "penstock.yaml").write_text(sample)
    done = subprocess.run(
        [PENSTOCK, "lint", "--strict", "penstock.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "1 file fine" in done.stdout


def test_every_verb_is_described_and_exists() -> None:
    """The table of commands names each verb once, and no other."""
    named = set(re.findall(r"^\| `penstock ([a-z-]+)", README, re.MULTILINE))
    assert named == set(VERBS)


def test_every_verb_has_a_help_text_with_an_example() -> None:
    """`--help` of each verb says what it does and shows a call."""
    for verb in VERBS:
        done = subprocess.run([PENSTOCK, verb, "--help"], capture_output=True, text=True, check=True)
        assert "penstock" in done.stdout.split("Usage", 1)[1]
        assert "Example" in done.stdout, verb


def test_the_make_commands_exist() -> None:
    """Each `make` line can be planned by make as it stands, variables included."""
    lines = re.findall(r"^\$ (make .*)$|`(make [^`]+)`", README, re.MULTILINE)
    commands = {first or second for first, second in lines}
    assert {"make demo", "make test"} <= commands
    for command in commands:
        subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A linked file exists, and has the heading that the link names."""
    for target, heading in re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", page.read_text()):
        linked = page.parent / target
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert heading in {one.lower().replace(" ", "-") for one in headings}, f"{target}#{heading}"


def test_the_map_names_every_room() -> None:
    """workers/README.md's file map names every module and package of workers/, and none that is gone."""
    text = PAGES[1].read_text()
    table = text[text.index("## File map") : text.index("Imports point down")]
    there = {path.name for path in (ROOT / "workers").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    modules = {path.name for path in (ROOT / "workers").glob("*.py")} - {"__init__.py", "clock.py"}
    assert set(re.findall(r"`([a-z_]+)/`", table)) - {"dialects", "checks"} == there
    assert set(re.findall(r"`([a-z_]+\.py)`", table)) == modules


def test_every_series_in_prose_exists() -> None:
    """A metric that a page mentions is one that the code exports."""
    names = {line.split()[2] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE")}
    for page in PAGES:
        for mentioned in re.findall(r"`(penstock_[a-z_]+)", page.read_text()):
            assert mentioned in names, mentioned


def test_make_demo_prints_what_the_readme_shows() -> None:
    """The demo's output in the README has the lines of a real run; figures, samples and progress differ."""
    told = shape(shown(README))
    ran = shape(readme_demo.run())
    assert len(told) > 30
    assert [line for line in told if line not in ran] == []

"""The wheel: what is in it, and that it is what gets installed."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.support.deploy_tools import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network from the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("*.whl")
    return file


def _text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [member for member in archive.namelist() if member.endswith(f".dist-info/{name}")]
        return archive.read(found).decode("utf-8")


def test_it_owns_both_names_and_nothing_else(wheel: Path) -> None:
    """Other distributions own a `workers` too: ours brings `workers` and `topics` whole and typed, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"workers", "topics"}
    assert {"workers/py.typed", "topics/py.typed"} <= names
    tree = {
        str(file.relative_to(ROOT))
        for package in ("workers", "topics")
        for file in (ROOT / package).rglob("*.py")
        if "__pycache__" not in file.parts
    }
    assert {name for name in names if name.endswith(".py")} == tree


def test_it_brings_what_the_demo_runs_on(wheel: Path) -> None:
    """Pipelines, prompts, rules, schemas and tickets travel inside the package, each the same file as in config/."""
    carried = "workers/demo/data/"
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.removeprefix(carried): archive.read(name) for name in archive.namelist() if carried in name}
    tree = {
        str(file.relative_to(ROOT / "config")): file.read_bytes()
        for folder in ("demo", "pipelines", "prompts", "rules", "schemas")
        for file in (ROOT / "config" / folder).rglob("*")
        if file.is_file()
    }
    assert inside == tree


def test_its_metadata_keep_it_private_and_say_what_it_is(wheel: Path) -> None:
    """`Private :: Do Not Upload` makes an index refuse it; name, licence and Python are as declared."""
    metadata = Parser().parsestr(_text(wheel, "METADATA"))
    assert metadata["Name"] == "penstock"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = metadata.get_all("Classifier") or []
    assert {"Private :: Do Not Upload", "Typing :: Typed"} <= set(classifiers)
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in _text(wheel, "licenses/LICENSE")
    assert "penstock = workers.cli:main" in _text(wheel, "entry_points.txt")


def test_its_console_script_imports_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Installed on its own, with our dependencies beside it, the entry point imports; the working tree is not used."""
    target = tmp_path / "site"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    program = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import topics, workers, workers.cli\n"
        "assert callable(workers.cli.main)\n"
        "print(topics.__file__, workers.__file__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert all(path.startswith(str(target)) for path in ran.stdout.split())
    assert (target / "bin" / "penstock").exists()

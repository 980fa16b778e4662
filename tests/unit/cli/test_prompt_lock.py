"""A released prompt is succeeded, not edited: what lint and `penstock release` make of the lock files."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import typer

from tests.support.settings_files import FILES, SOUND, write_sound
from workers.cli.configuration import examine
from workers.cli.release import release
from workers.settings.prompt_lock import LockInvalid, lock_text, next_version, read_lock

VERSIONED = (
    SOUND.replace("system.txt", "s.v1.txt").replace("user.j2", "u.v1.j2").replace("schema: answer", "schema: a.v1")
)


def written(folder: Path) -> Path:
    """Write a configuration whose prompts and schema have versions in their names."""
    return write_sound(
        folder,
        VERSIONED,
        s__v1__txt=FILES["system.txt"],
        u__v1__j2=FILES["user.j2"],
        a__v1__json=FILES["answer.json"],
    )


def problems(config: Path) -> list[tuple[str, int, str, str]]:
    """Return file, line, severity and text of each problem."""
    return [(one.file.name, one.line, one.severity, one.what) for one in examine(config, environ={})[1]]


def test_without_a_lock_nothing_is_said(tmp_path: Path) -> None:
    """Who does not release prompts is not told about it, whatever is edited."""
    config = written(tmp_path)
    (tmp_path / "u.v1.j2").write_text("edited {{ record.text }}")
    assert problems(config) == []


def test_release_locks_prompts_and_schema_in_the_format_of_sha256sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each file, sorted; sha256sum agrees; releasing again changes nothing."""
    config = written(tmp_path)
    release([config])
    assert capsys.readouterr().out.count(" released\n") == 3
    digest = hashlib.sha256((tmp_path / "s.v1.txt").read_bytes()).hexdigest()
    lines = (tmp_path / "prompts.lock").read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["s.v1.txt", "u.v1.j2"]
    assert lines[0].startswith(digest)
    for lock in ("prompts.lock", "schemas.lock"):
        subprocess.run(["sha256sum", "--check", "--strict", lock], cwd=tmp_path, capture_output=True, check=True)
    before = (tmp_path / "prompts.lock").read_text()
    release([config])
    assert capsys.readouterr().out == "nothing new to release\n"
    assert (tmp_path / "prompts.lock").read_text() == before
    assert problems(config) == []
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("file", "kind", "successor"),
    [("s.v1.txt", "prompt", "s.v2.txt"), ("u.v1.j2", "prompt", "u.v2.j2"), ("a.v1.json", "answer schema", "a.v2.json")],
)
def test_an_edited_release_is_an_error_that_names_the_next_version(
    file: str, kind: str, successor: str, tmp_path: Path
) -> None:
    """One more blank line is an edit; the text says under which name the change belongs."""
    config = written(tmp_path)
    release([config])
    with (tmp_path / file).open("a") as released:
        released.write("\n")
    what = f"released {kind} was edited: restore it, and write the change as the next version, `{successor}`"
    assert problems(config) == [(file, 1, "error", what)]


def test_release_never_accepts_an_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock would mean nothing if releasing again took the edit in: exit code 78, and no lock is touched."""
    config = written(tmp_path)
    release([config])
    (tmp_path / "u.v1.j2").write_text("edited {{ record.text }}")
    before = (tmp_path / "prompts.lock").read_text()
    with pytest.raises(typer.Exit) as ended:
        release([config])
    assert ended.value.exit_code == 78
    assert "u.v1.j2(1,1) released prompt was edited" in capsys.readouterr().err
    assert (tmp_path / "prompts.lock").read_text() == before


def test_a_new_version_is_a_warning_until_it_is_released(tmp_path: Path) -> None:
    """While it is being written it may change; releasing it leaves the line of its predecessor as it was."""
    config = written(tmp_path)
    release([config])
    first = (tmp_path / "prompts.lock").read_text().splitlines()
    (tmp_path / "u.v2.j2").write_text("better {{ record.text }}\n")
    config.write_text(VERSIONED.replace("u.v1", "u.v2"))
    [(file, line, severity, what)] = problems(config)
    assert (file, line, severity) == ("u.v2.j2", 1, "warning")
    assert "`penstock release` adds it" in what
    release([config])
    assert problems(config) == []
    after = (tmp_path / "prompts.lock").read_text().splitlines()
    assert (after[:2], len(after)) == (first, 3)


def test_a_lock_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A read-only folder: exit code 1 with the reason, and the old lock stays as it was."""
    config = written(tmp_path)
    (tmp_path / "prompts.lock").touch()
    (tmp_path / f".prompts.lock.{os.getpid()}").mkdir()  # root may write anywhere, but not into this
    with pytest.raises(typer.Exit) as ended:
        release([config])
    assert ended.value.exit_code == 1
    assert "prompts.lock` cannot be written: Is a directory" in capsys.readouterr().err
    assert (tmp_path / "prompts.lock").read_text() == ""


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<<<<<<< ours\n", 1),
        (f"{DIGEST}  s.v1.txt\n{DIGEST} u.v1.j2\n", 2),
        (f"{DIGEST}  s.v1.txt\n{DIGEST[1:]}1  s.v1.txt\n", 2),
        (f"{DIGEST}  s.v1.txt\n\n", 2),
    ],
    ids=["unfinished merge", "one space", "released twice", "empty line"],
)
def test_a_broken_lock_is_an_error_at_its_line(text: str, line: int, tmp_path: Path) -> None:
    """Two branches that released the same version differently must not be settled by which line comes last."""
    config = written(tmp_path)
    (tmp_path / "prompts.lock").write_text(text)
    assert [one[:3] for one in problems(config)] == [("prompts.lock", line, "error")]


def test_a_lock_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 and a folder in its place are told, not raised as they come."""
    lock = tmp_path / "prompts.lock"
    lock.write_bytes(b"\xff")
    with pytest.raises(LockInvalid, match="UTF-8"):
        read_lock(lock)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(LockInvalid, match="cannot be read"):
        read_lock(lock)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """A name with spaces survives; the order is that of the names."""
    locked = {"b.j2": DIGEST, "a prompt.j2": "f" * 64}
    (tmp_path / "prompts.lock").write_text(lock_text(locked))
    assert read_lock(tmp_path / "prompts.lock") == locked
    assert list(read_lock(tmp_path / "prompts.lock") or {}) == ["a prompt.j2", "b.j2"]


@pytest.mark.parametrize(
    ("name", "taken", "successor"),
    [
        ("triage.user.v1.j2", (), "triage.user.v2.j2"),
        ("triage.user.v1.j2", ("triage.user.v2.j2",), "triage.user.v3.j2"),
        ("triage.v9.json", (), "triage.v10.json"),
        ("user.j2", (), "user.v2.j2"),
        ("prompt", (), "prompt.v2"),
        ("prompt.v3", (), "prompt.v4"),
    ],
)
def test_the_next_version(name: str, taken: tuple[str, ...], successor: str, tmp_path: Path) -> None:
    """The next number that is free, and version 2 after a name without a number."""
    for one in (name, *taken):
        (tmp_path / one).touch()
    assert next_version(tmp_path / name) == successor

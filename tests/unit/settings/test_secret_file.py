"""A secret from a file is read there again (that the log hides the new value then: test_log.py)."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.settings_files import SOUND, write_sound
from workers.cli.echo import resolved
from workers.settings.secret_file import reread
from workers.settings.source import load

OLD, NEW = "canary-of-may", "canary-of-june"


def secret_of(folder: Path, written: str = "${file:key}") -> SecretStr:
    """Return an API key that was read from the file `key` of this folder."""
    (folder / "key").write_text(f"{OLD}\n")
    path = write_sound(folder, SOUND.replace("    model: tiny", f"    model: tiny\n    api_key: '{written}'"))
    loaded = load(path, environ={"KEY": OLD})
    key = loaded.settings.models["small"].api_key
    assert key is not None
    assert OLD not in resolved(loaded)
    assert OLD not in repr(loaded.settings)
    return key


@pytest.mark.parametrize(("written", "value"), [("${file:key}", NEW), ("key-${file:key}", f"key-{NEW}")])
def test_a_changed_file_gives_the_new_secret_and_can_be_read_again(tmp_path: Path, written: str, value: str) -> None:
    """The new value counts, as often as the file changes; the line end is not part of it, and no repr shows it."""
    secret = secret_of(tmp_path, written)
    (tmp_path / "key").write_text(f"{NEW}\n")
    fresh = reread(secret)
    assert fresh.get_secret_value() == value
    assert NEW not in repr(fresh)
    assert reread(fresh) is fresh
    (tmp_path / "key").write_text(f"{OLD}\n")
    assert reread(fresh).get_secret_value() == secret.get_secret_value()


@pytest.mark.parametrize(
    "now", [f"{OLD}\n", "", "abc", None, "\udcff"], ids=["same", "empty", "short", "gone", "bytes"]
)
def test_what_is_not_new_or_not_usable_changes_nothing(tmp_path: Path, now: str | None) -> None:
    """The same value, none, one too short to be hidden, or no file at all: the caller gets what it had."""
    secret = secret_of(tmp_path)
    (tmp_path / "key").unlink()
    if now is not None:
        (tmp_path / "key").write_bytes(now.encode(errors="surrogateescape"))
    assert reread(secret) is secret


@pytest.mark.parametrize("written", ["${KEY}", OLD])
def test_a_secret_from_elsewhere_stays(tmp_path: Path, written: str) -> None:
    """An environment does not change under a process: there is nothing to read again."""
    secret = secret_of(tmp_path, written)
    (tmp_path / "key").write_text(NEW)
    assert reread(secret) is secret

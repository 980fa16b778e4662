"""Batches in a configuration: what is read, and which mistakes are found, at their places."""

from pathlib import Path

import pytest

from tests.support.settings_files import SOUND, planted, write_sound
from workers.settings.batch import BatchSettings
from workers.settings.checks import check
from workers.settings.checks.host import Host
from workers.settings.problems import SettingsInvalid
from workers.settings.source import load

HOST = Host(memory_bytes=1 << 30, open_files=1024)
TASK = "    input: raw"
URL = "    url: http://localhost:8000"
BATCHED = f"{URL}\n    dialect: completions\n    batch: {{max_records: 8, linger_s: 0.1}}"


def test_a_batch_is_read(tmp_path: Path) -> None:
    """As it stands in the documentation; nothing is wrong with it."""
    loaded = load(write_sound(tmp_path, SOUND.replace(URL, BATCHED)), environ={})
    assert check(loaded, HOST) == []
    assert loaded.settings.models["small"].batch == BatchSettings()


def test_batches_that_never_fill_are_said(tmp_path: Path) -> None:
    """64 slots of 8 records each want 512 on their way."""
    text, place = planted(TASK, f"{TASK}\n    max_in_flight: «511", SOUND.replace(URL, BATCHED))
    [problem] = check(load(write_sound(tmp_path, text), environ={}), HOST)
    assert (problem.severity, problem.line, problem.column) == ("warning", *place)
    assert "512 records fill its model's batches" in problem.what
    assert check(load(write_sound(tmp_path, text.replace("511", "512")), environ={}), HOST) == []


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_a_server_of_conversations_takes_no_batch(dialect: str, tmp_path: Path) -> None:
    """The worker does not start; the message says which dialect can."""
    text, place = planted(URL, f"{URL}\n    dialect: {dialect}\n    batch: «{{}}")
    with pytest.raises(SettingsInvalid) as raised:
        load(write_sound(tmp_path, text), environ={})
    [problem] = raised.value.problems
    assert (problem.line, problem.column) == place
    assert "dialect: completions" in problem.what

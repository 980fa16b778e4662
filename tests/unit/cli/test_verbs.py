"""The verbs lint, echo and schema, as a person and a pipe see them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.support.settings_files import SOUND, write_sound
from workers.cli.echo import resolved
from workers.cli.schema import editor_schema
from workers.settings.model import Settings
from workers.settings.source import load
from workers.settings.tree import read_tree

PENSTOCK = Path(sys.executable).with_name("penstock")
REPOSITORY = Path(__file__).parents[3]


def penstock(*arguments: object, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run(
        [PENSTOCK, *map(str, arguments)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_lint_says_how_many_files_are_fine(tmp_path: Path) -> None:
    """Nothing wrong: one line, exit code 0."""
    one, other = write_sound(tmp_path / "a"), write_sound(tmp_path / "b")
    done = penstock("lint", one, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 file fine\n", "")
    done = penstock("lint", one, other, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2 files fine\n")


def test_lint_says_what_is_wrong_with_every_file(tmp_path: Path) -> None:
    """One line per problem, the path as one would type it, exit code 1."""
    write_sound(tmp_path / "a", SOUND.replace("model: small", "model: big"))
    write_sound(tmp_path / "b", SOUND.replace("drain_s: 20", "drain_s: soon"))
    done = penstock("lint", "a/penstock.yaml", "b/penstock.yaml", "c.yaml", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a/penstock.yaml(13,12) no model is called `big`; known here: small",
        "b/penstock.yaml(5,12) `worker.drain_s` must be a number, not text",
        "c.yaml(1,1) no such file",
    ]


def test_lint_fails_on_warnings_only_when_strict(tmp_path: Path) -> None:
    """Warnings are marked; they fail with --strict."""
    path = write_sound(tmp_path, SOUND.replace("drain_s: 20", "drain_s: 0.5"))
    done = penstock("lint", path, folder=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)
    assert "penstock.yaml(5,12) warning: shorter than one call" in done.stdout
    assert "1 file fine, 1 warning" in done.stdout
    done = penstock("lint", "--strict", path, folder=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)


def test_echo_is_a_configuration_again(tmp_path: Path) -> None:
    """What echo prints has every default, and reads back as the same settings."""
    text = SOUND.replace("group_id: triage", "group_id: '$${x} no'\n  client_id: 'no'\n  group_instance_id: '1e3'")
    path = write_sound(tmp_path, text.replace("drain_s: 20", "drain_s: '${D}'\n  max_in_flight_bytes: 64MiB"))
    done = penstock("echo", path, folder=tmp_path, D="7")
    assert (done.returncode, done.stderr) == (0, "")
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    first, second = load(path, {"D": "7"}), load(again, {})
    assert first.settings == second.settings
    assert resolved(second) == done.stdout
    assert "commit_interval_s: 0.2" in done.stdout
    assert "max_in_flight_bytes: 67108864" in done.stdout


def test_echo_of_a_broken_configuration_says_so_on_stderr(tmp_path: Path) -> None:
    """Errors go to stderr with exit code 78, and stdout stays empty."""
    done = penstock("echo", write_sound(tmp_path, "kafka: [\n"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("penstock.yaml(")
    assert "Traceback" not in done.stderr


def test_schema_is_a_json_schema() -> None:
    """The schema is valid draft 2020-12, closed, and every setting says what it is."""
    schema = editor_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert jsonschema_rs.meta.is_valid(schema)
    closed = [schema, *schema["$defs"].values()]
    for part in closed:
        assert part["additionalProperties"] is False
        assert part["description"]
        for name, child in part["properties"].items():
            assert child.get("description"), f"{part['title']}.{name}"
    assert {part["title"] for part in closed} >= {"Penstock configuration", "TaskSettings", "ModelSettings", "Kafka"}


def written(text: str) -> Any:
    """What an editor checks: the values as they are written, variables included."""
    return read_tree(text).root


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("drain_s: 20", 'drain_s: "${DRAIN_S}"\n  max_in_flight_bytes: "${BYTES:64MiB}"'),
        ("drain_s: 20", 'drain_s: 20\n  http: {port: "${PORT:80}"}\n  log: {level: "${LEVEL:info}"}'),
        ("drain_s: 20", "drain_s: 20\n  max_in_flight_bytes: 64MiB"),
        ("input: raw", "input: [a, b]\n    decode_guard: ${GUARD}\n    max_age_s: ${AGE}"),
        ("input: raw", "input: ${TOPIC}"),
        ("- default: {label: other}", "- skip"),
        ("- default: {label: other}", "- review"),
        ("- default: {label: other}", "- default: text"),
        ("rules: rules.yaml", "rules: {python: 'a:b'}"),
    ],
)
def test_the_schema_accepts_what_may_be_written(old: str, new: str) -> None:
    """Variables may stand for numbers, and short forms are no mistakes."""
    validator = jsonschema_rs.Draft202012Validator(editor_schema())
    errors = [error.message for error in validator.iter_errors(written(SOUND.replace(old, new, 1)))]
    assert errors == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drain_s: 20", "drain_s: soon"),
        ("drain_s: 20", "drain: 20"),
        ("group_id: triage", "group: triage"),
        ("input: raw", "input: 'a b'"),
        ("input: raw", "input: raw\n    order: keys"),
        ("- default: {label: other}", "- ask"),
        ("- default: {label: other}", "- ask: {}"),
        ("drain_s: 20", "max_in_flight_bytes: 64MB"),
    ],
)
def test_the_schema_refuses_what_the_worker_refuses(old: str, new: str) -> None:
    """An editor underlines what lint would report."""
    validator = jsonschema_rs.Draft202012Validator(editor_schema())
    assert not validator.is_valid(written(SOUND.replace(old, new)))


def test_schema_prints_the_schema(tmp_path: Path) -> None:
    """What the verb prints is that schema, as JSON."""
    done = penstock("schema", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == editor_schema()


@pytest.mark.parametrize("verb", [[], ["lint"], ["dry-run"], ["echo"], ["schema"]])
def test_help_has_an_example(verb: list[str], tmp_path: Path) -> None:
    """Every help text shows how the command is typed; plain text when it is piped."""
    done = penstock(*verb, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Example: penstock " in " ".join(done.stdout.split())
    assert done.stdout.isascii()


def test_a_wrong_command_line_is_explained(tmp_path: Path) -> None:
    """A misspelt verb and a missing argument exit with 2 and say so on stderr."""
    for arguments, what in [(["lnit"], "Did you mean 'lint'?"), (["lint"], "Missing argument"), (["echo"], "Missing")]:
        done = penstock(*arguments, folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr


def test_version(tmp_path: Path) -> None:
    """The version is that of the installed distribution."""
    done = penstock("--version", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("penstock 0.")


def test_lint_does_not_load_kafka() -> None:
    """A verb loads what it needs: lint in an editor or a hook is quick."""
    script = (
        "import sys, workers.cli as c; c.application('lint'); print(sorted({'faust', 'aiokafka'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("config/pipelines/*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configurations_have_no_error(config: Path, tmp_path: Path) -> None:
    """What people copy is right, and the schema for editors agrees."""
    done = penstock("lint", config, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert jsonschema_rs.Draft202012Validator(editor_schema()).is_valid(written(config.read_text()))


def test_the_annotated_configuration_has_not_even_a_warning(tmp_path: Path) -> None:
    """The configuration that explains itself is clean."""
    done = penstock("lint", "--strict", REPOSITORY / "config/pipelines/tickets.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 file fine\n")


def test_echo_covers_every_setting(tmp_path: Path) -> None:
    """No setting is hidden: the sections of the echo are the fields of the settings."""
    echoed = yaml.safe_load(resolved(load(write_sound(tmp_path))))
    assert list(echoed) == list(Settings.model_fields)
    assert set(echoed["kafka"]["security"]) == set(
        type(load(write_sound(tmp_path)).settings.kafka.security).model_fields
    )

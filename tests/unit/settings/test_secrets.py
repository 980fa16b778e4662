"""A secret is never shown: not in what is wrong with a configuration, and not in its echo."""

import itertools
from pathlib import Path

import pytest

from tests.support.settings_files import SOUND, write_sound
from workers.cli.configuration import examine
from workers.cli.echo import resolved
from workers.settings.source import load

CANARY = "canary-5f3a9c"
SECURED = SOUND.replace(
    "  group_id: triage",
    "  group_id: triage\n"
    "  security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: 'PLACE', key_password: 'PLACE'}",
).replace("    model: tiny", "    model: tiny\n    api_key: 'PLACE'")
WRITTEN = [CANARY, "${SECRET}", "${file:secret}", f"${{NOT_SET:{CANARY}}}"]
MISTAKES = [
    ("", ""),
    ("model: small", "model: PLACE"),
    ("input: raw", "input: [PLACE, PLACE, 'a PLACE']"),
    ("input: raw", "input: raw\n    max_span: PLACE"),
    ("input: raw", "input: raw\n    order: PLACE"),
    ("input: raw", "input: raw\n    topics: {dlq: PLACE, review: PLACE}"),
    ("http://localhost:8000", "http://u:PLACE@localhost:8000"),
    ("http://localhost:8000", "http://localhost:PLACE"),
    ("http://localhost:8000", "PLACE"),
    ("user: user.j2", "user: PLACE"),
    ("- rules: rules.yaml", "- rules: {python: 'PLACE:x'}"),
    ("- rules: rules.yaml", "- rules: {python: 'mod_PLACE:x'}"),
    ("- default: {label: other}", "- default: {label: PLACE}"),
    ("bootstrap_servers: localhost:9092", "bootstrap_servers: PLACE"),
    ("drain_s: 20", "drain_s: PLACE"),
    ("drain_s: 20", "max_in_flight_bytes: PLACE"),
    ("drain_s: 20", "http: {host: PLACE, port: PLACE}"),
    ("password: 'PLACE'", "password: {a: PLACE}"),
    ("password: 'PLACE'", "password: [PLACE]"),
    ("password: 'PLACE'", "pasword: PLACE"),
    ("username: u", "username: u, 'PLACE': x"),
    ("username: u", "username: u\n  x: PLACE"),
    ("username: u", "username: [u\n  x: PLACE"),
]


@pytest.mark.parametrize(("mistake", "written"), list(itertools.product(MISTAKES, WRITTEN)))
def test_no_problem_shows_a_secret(mistake: tuple[str, str], written: str, tmp_path: Path) -> None:
    """However a secret came in, and whatever else is wrong, no line of lint shows it."""
    old, new = mistake
    folder = tmp_path / "deployment"
    path = write_sound(folder, SECURED.replace(old, new, 1).replace("PLACE", written), secret=f"{CANARY}\n")
    _, problems = examine(path, environ={"SECRET": CANARY})
    assert all(CANARY not in str(problem) for problem in problems), problems
    assert bool(problems) == bool(old), problems


@pytest.mark.parametrize("written", WRITTEN)
def test_echo_shows_no_secret(written: str, tmp_path: Path) -> None:
    """Secrets are stars in the echo, also where the same value stands in a place that is none."""
    text = SECURED.replace("group_id: triage", "group_id: x-PLACE").replace("PLACE", written)
    loaded = load(write_sound(tmp_path, text, secret=f"{CANARY}\n"), environ={"SECRET": CANARY})
    echo = resolved(loaded)
    assert CANARY not in echo
    assert "password: '**********'" in echo
    assert "api_key: '**********'" in echo
    assert "group_id: x-**********" in echo

"""`penstock try` and `penstock release`, installed, on the shipped configuration and a simulated model; no Kafka."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import PENSTOCK
from workers.demo.processes import SimulatedModel

REPOSITORY = Path(__file__).parents[2]
NO_MODEL = "http://127.0.0.1:1"
TICKET = b'{"subject": "Refund?", "body": "You charged me twice."}\n'
RUN_S = 90
PATIENCE = {"    timeout_s: 1.0": "    connect_timeout_s: 15\n    timeout_s: 15", "deadline_s: 5": "deadline_s: 60"}


@pytest.fixture(scope="module")
def model() -> Iterator[SimulatedModel]:
    """A simulated model that answers at once, with nothing around its answers."""
    with SimulatedModel(latency="zero", wrap_ratio=0.0) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A copy of the shipped configuration, patient with a busy machine: a second call would be one too many."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    copy = tmp_path / "config/pipelines/tickets.yaml"
    text = copy.read_text()
    for shipped, patient in PATIENCE.items():
        assert text.count(shipped) == 1
        text = text.replace(shipped, patient)
    copy.write_text(text)
    return copy


def penstock(*arguments: object, url: str = NO_MODEL, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the installed command."""
    done = subprocess.run(
        [PENSTOCK, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "LLM_URL": url, "KAFKA": "127.0.0.1:1"},
        input=stdin,
        capture_output=True,
        timeout=RUN_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def test_a_record_from_a_pipe_and_from_a_file(model: SimulatedModel, config: Path, tmp_path: Path) -> None:
    """Both give the same answer, with exit code 0 and exactly one call each; no Kafka is needed."""
    before = model.counts()["requests"]
    piped = penstock("try", config, "--record", "-", "--key", "c-1", "--json", url=model.url, stdin=TICKET)
    assert (piped.returncode, piped.stderr) == (0, b"")
    seen = json.loads(piped.stdout)
    assert (seen["outcome"], seen["enrichment"]["category"]) == ("enriched", "billing")
    assert "<ticket>" in seen["user"]
    assert [(one["topic"], one["key"]) for one in seen["produced"]] == [("tickets.raw.ticket_triage.enriched", "c-1")]
    (tmp_path / "ticket.json").write_bytes(TICKET)
    shown = penstock("try", config, "--record", tmp_path / "ticket.json", url=model.url)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"enriched: the model's answer is good" in shown.stdout
    assert model.counts()["requests"] == before + 2


def test_a_model_that_cannot_be_reached(config: Path) -> None:
    """69, and the rung that would answer."""
    done = penstock("try", config, "--record", "-", stdin=TICKET)
    assert done.returncode == 69
    assert b"FAILED connect" in done.stdout
    assert b"ladder[0] answers, tier rules" in done.stdout


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_line_end_of_a_file_is_no_part_of_the_record(line_end: bytes, config: Path) -> None:
    """Editors and `echo` add one: a record of nothing else is empty, as it would be in Kafka."""
    done = penstock("try", config, "--record", "-", "--json", stdin=line_end)
    assert (done.returncode, json.loads(done.stdout)["failure"]["reason"]) == (1, "empty")


def test_mistakes_on_the_command_line(config: Path) -> None:
    """A task or a file that is not there: exit code 2, and what is."""
    done = penstock("try", config, "--record", "-", "--task", "triage", stdin=TICKET)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"known here: ticket_triage" in done.stderr
    done = penstock("try", config, "--record", "-", "--model", "big", stdin=TICKET)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"known here: small" in done.stderr
    done = penstock("try", config, "--record", "-", "--endpoint", "7", stdin=TICKET)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no endpoint" in done.stderr
    done = penstock("try", config, "--record", "nowhere.json")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"No such file" in done.stderr


def test_an_edited_release_stops_the_worker_and_the_next_version_does_not(model: SimulatedModel, config: Path) -> None:
    """The shipped prompts are released: edited, nothing starts on them (78); as version 2 they can be tried at once."""
    prompts = config.parents[1] / "prompts"
    user = prompts / "triage.user.v1.j2"
    original = user.read_text()
    user.write_text(original + "Answer in German.\n")
    for verb in (["run", config], ["try", config, "--record", "-"], ["release", config]):
        done = penstock(*verb, url=model.url, stdin=TICKET)
        assert (done.returncode, done.stdout) == (78, b""), verb
        assert b"triage.user.v1.j2(1,1) released prompt was edited" in done.stderr
    (prompts / "triage.user.v2.j2").write_text(user.read_text())
    user.write_text(original)
    config.write_text(config.read_text().replace("triage.user.v1", "triage.user.v2"))
    done = penstock("try", config, "--record", "-", "--json", url=model.url, stdin=TICKET)
    assert done.returncode == 0
    assert json.loads(done.stdout)["user"].endswith("Answer in German.")
    assert penstock("lint", "--strict", config).returncode == 1
    assert penstock("release", config).stdout.endswith(b"triage.user.v2.j2 released\n")
    assert penstock("lint", "--strict", config).returncode == 0


def test_try_does_not_load_kafka() -> None:
    """A verb loads what it needs."""
    script = "import sys, workers.cli as c; c.application('try'); print(sorted({'faust', 'aiokafka'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"

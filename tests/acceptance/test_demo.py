"""`penstock demo` as somebody runs it who has just installed it; and what is left of it however it ends."""

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.deployment import PENSTOCK, wait_for
from tests.support.kafka import KafkaBroker
from workers.demo.processes import SimulatedModel
from workers.demo.tickets import load_tickets

DEMO_S = 120
"""On a busy machine; the demo ends by itself before."""
NOTICED_S = 30
"""A demo that went on without its worker would take 39 s: 8.7 s of tickets, 10 s for what is not seen, 20 s of lag."""


class Demo:
    """A running demo. Its processes carry a mark in their environment, by which they are found again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._mark = f"MARK_OF_A_TEST={uuid.uuid4().hex}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        name, _, value = self._mark.partition("=")
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [PENSTOCK, "demo", *options],
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {name: value, "TMPDIR": str(self.temporary)},
            )

    def processes(self) -> dict[int, str]:
        """Command lines of everything that the demo started and that still runs, itself included."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self._mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has just ended, or is not ours to look at
        return {pid: line for pid, line in found.items() if line}

    def said(self) -> str:
        """What it printed so far."""
        return self.stdout.read_text() + self.stderr.read_text()

    def wait_said(self, text: str) -> None:
        """Wait until it has printed this."""
        wait_for(lambda: text in self.said() or self.process.poll() is not None, DEMO_S, self.said)
        assert text in self.said()


@pytest.fixture
def demo_json(tmp_path: Path) -> Iterator[Demo]:
    """A demo that prints its summary as JSON."""
    demo = Demo(tmp_path, "--json")
    yield demo
    if demo.process.poll() is None:
        demo.process.kill()
        demo.process.wait(10)


def test_every_ticket_has_exactly_one_outcome(demo_json: Demo) -> None:
    """Exit 0; stdout is one JSON object whose numbers add up; every rung answered; nothing is left behind."""
    assert demo_json.process.wait(DEMO_S) == 0, demo_json.said()
    summary = orjson.loads(demo_json.stdout.read_bytes())
    assert summary["ok"] is True
    assert (summary["problems"], summary["lost"], summary["repeated"], summary["lag"]) == ([], 0, 0, 0)
    outcomes = summary["outcomes"]
    assert sum(one["records"] for one in outcomes) == summary["records"] == len(load_tickets())
    assert {one["tier"] for one in outcomes} == {"model", "rules", "review", "default", None}
    assert sum(one["records"] for one in outcomes if one["tier"] == "review") == summary["review_copies"]
    assert summary["latency_s"]["by_model"]["records"] == sum(
        one["records"] for one in outcomes if one["tier"] == "model"
    )
    assert summary["outage"]["answered_after"] > 0
    assert summary["simulated"] == ["broker", "model"]
    assert demo_json.processes() == {}
    assert list(demo_json.temporary.iterdir()) == []


def test_it_says_what_is_simulated_and_tells_what_happens(tmp_path: Path) -> None:
    """The first lines say what is no Kafka and no model; what happens comes in its order; no escape codes in a file."""
    demo = Demo(tmp_path)
    assert demo.process.wait(DEMO_S) == 0, demo.said()
    told = demo.stdout.read_text()
    assert demo.stderr.read_text() == ""
    assert len(re.findall(r"^  (broker|model) +simulated:", told, re.MULTILINE)) == 2
    happenings = ("the model goes away", "the breaker opened", "the model is back", "the breaker closed", "lag is 0")
    places = [told.index(happening) for happening in happenings]
    assert places == sorted(places)
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C ends broker, model and worker at once; even a demo that is killed takes them with it."""
    demo = Demo(tmp_path)
    demo.wait_said("the worker has joined its group")
    assert len(demo.processes()) == 4, demo.processes()
    demo.process.send_signal(number)
    assert demo.process.wait(60) == code, demo.said()
    wait_for(lambda: not demo.processes(), 60, lambda: f"still there: {demo.processes()}")
    if number != signal.SIGKILL:
        assert list(demo.temporary.iterdir()) == []
        assert "Traceback" not in demo.said()


def test_a_worker_that_dies_fails_the_demo(tmp_path: Path) -> None:
    """Exit 1, a sentence that says what happened, and where the worker's log is kept."""
    demo = Demo(tmp_path, "--json")
    demo.wait_said("the worker has joined its group")
    (worker,) = [pid for pid, line in demo.processes().items() if " run " in line]
    os.kill(worker, signal.SIGKILL)
    began_s = time.monotonic()
    assert demo.process.wait(DEMO_S) == 1, demo.said()
    assert time.monotonic() - began_s < NOTICED_S
    summary = orjson.loads(demo.stdout.read_bytes())
    assert summary["ok"] is False
    assert "the worker ended by itself with exit code -9" in summary["problems"][0]
    (log,) = re.findall(r"^The worker's log: (.*)$", demo.stderr.read_text().replace("\n/", "/"), re.MULTILINE)
    assert demo.processes() == {}
    assert list(demo.temporary.rglob("worker.log")) == [Path(log)]


def test_a_model_of_ones_own_needs_its_name(tmp_path: Path) -> None:
    """`--model-url` without `--model` is a wrong command line, and starts nothing."""
    demo = Demo(tmp_path, "--model-url", "http://127.0.0.1:9")
    assert demo.process.wait(DEMO_S) == 2
    assert "belong together" in demo.stderr.read_text()


def test_a_model_of_ones_own_is_not_made_to_fail(tmp_path: Path) -> None:
    """Every ticket has its outcome, and no outage is played on a server that is not the demo's."""
    with SimulatedModel() as model:
        demo = Demo(tmp_path, "--json", "--model-url", model.url, "--model", "mine")
        assert demo.process.wait(DEMO_S) == 0, demo.said()
        assert model.counts()["refused"] == 0
    summary = orjson.loads(demo.stdout.read_bytes())
    assert (summary["ok"], summary["outage"], summary["simulated"]) == (True, None, ["broker"])
    assert {one["tier"] for one in summary["outcomes"]} == {"model", None}


def test_a_model_that_does_not_answer_is_told_at_once(tmp_path: Path) -> None:
    """Nothing is sent through a worker whose model has a wrong address: exit 69, and why."""
    demo = Demo(tmp_path, "--json", "--model-url", "http://127.0.0.1:9", "--model", "nobody")
    assert demo.process.wait(DEMO_S) == 69, demo.said()
    assert "did not answer" in orjson.loads(demo.stdout.read_bytes())["problems"][0]
    assert list(demo.temporary.iterdir()) == []


def test_a_broker_of_ones_own(kafka: KafkaBroker, tmp_path: Path) -> None:
    """On a real Kafka the whole demo runs the same, on topics of its own."""
    demo = Demo(tmp_path, "--json", "--bootstrap-servers", kafka.bootstrap_servers)
    assert demo.process.wait(DEMO_S) == 0, demo.said()
    summary = orjson.loads(demo.stdout.read_bytes())
    assert (summary["ok"], summary["lag"], summary["simulated"]) == (True, 0, ["model"])
    assert summary["outage"]["answered_after"] > 0
    assert re.search(r"created the topic penstock-demo-[0-9a-f]{8}\.tickets\.raw", demo.stderr.read_text())

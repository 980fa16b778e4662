"""The demo's configuration: the shipped one, without problems, changed where it must be."""

from pathlib import Path

import pytest

from workers.cli.configuration import examine
from workers.demo.deployment import Deployment, deploy
from workers.demo.play import acts
from workers.demo.tickets import load_tickets


def deployed(folder: Path, **options: object) -> Deployment:
    """A deployment in a folder."""
    return deploy(folder, bootstrap_servers="127.0.0.1:9", url="http://127.0.0.1:8", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("real_model", [None, "tiny"])
def test_it_has_no_problems(tmp_path: Path, real_model: str | None) -> None:
    """What the demo runs passes the checks that every deployment passes, warnings included."""
    deployment = deployed(tmp_path, real_model=real_model)
    _, problems = examine(deployment.config)
    assert [str(problem) for problem in problems] == []
    assert deployment.kafka.bootstrap_servers == "127.0.0.1:9"
    assert deployment.settings.worker.http.port == 0
    assert deployment.settings.models["small"].all_endpoints()[0].url == "http://127.0.0.1:8"


def test_the_embedded_broker_gets_the_shipped_names(tmp_path: Path) -> None:
    """What the demo shows is what the configuration in the repository would write."""
    deployment = deployed(tmp_path)
    assert deployment.input == "tickets.raw"
    assert [spec.name for spec in deployment.specs()] == [
        "tickets.raw",
        *(f"tickets.raw.ticket_triage.{kind}" for kind in ("enriched", "fallback", "review", "dlq")),
    ]


def test_a_real_broker_gets_names_of_its_own(tmp_path: Path) -> None:
    """Two runs on one cluster share neither topics nor a group, with each other or with anybody else."""
    one, two = (deployed(tmp_path / name, real_broker=True) for name in ("a", "b"))
    assert one.input.startswith("penstock-demo-")
    assert one.kafka.group_id.startswith("penstock-demo-")
    assert {spec.name for spec in one.specs()}.isdisjoint(spec.name for spec in two.specs())
    assert one.kafka.group_id != two.kafka.group_id


def test_the_acts_are_all_tickets_once() -> None:
    """No ticket is left out or written twice, and each act has some."""
    tickets = load_tickets()
    parts = acts(tickets)
    assert [ticket for part in parts for ticket in part] == tickets
    assert len(parts) == 4
    assert all(parts)

"""What a dry run prints: one line for each finding, the same as JSON, and what fails it."""

import json

from workers.cli.findings import Finding, as_json, failed, summary

FINE = Finding(about="broker b:1", state="ok", what="answers")
WRONG = Finding(about="topic raw", state="failed", what="does not\nexist", todo="create it")
UNTOLD = Finding(about="group g", state="unknown", what="not told")


def test_a_finding_is_one_line() -> None:
    """State, what was looked at, what was found and what to do stand on one line, whatever the texts hold."""
    assert str(FINE) == "ok      broker b:1: answers"
    assert str(WRONG) == "FAILED  topic raw: does not exist. To do: create it"
    assert str(UNTOLD) == "unknown group g: not told"


def test_only_a_failure_fails() -> None:
    """What could not be told fails nothing."""
    assert not failed([FINE, UNTOLD])
    assert failed([FINE, WRONG, UNTOLD])


def test_the_summary_counts() -> None:
    """The last line says how many checks ended how."""
    assert summary([FINE, FINE, WRONG, UNTOLD]) == "2 ok, 1 failed, 1 unknown; nothing was left behind"


def test_json_says_the_same() -> None:
    """One object: the verdict, every check, every warning."""
    said = json.loads(as_json("c.yaml", [FINE, WRONG], ["c.yaml(1,1) warning: odd"]))
    assert (said["config"], said["ok"], said["warnings"]) == ("c.yaml", False, ["c.yaml(1,1) warning: odd"])
    assert [check["state"] for check in said["checks"]] == ["ok", "failed"]
    assert said["checks"][0] == {"about": "broker b:1", "state": "ok", "what": "answers", "todo": ""}
    assert json.loads(as_json("c.yaml", [FINE, UNTOLD], []))["ok"] is True

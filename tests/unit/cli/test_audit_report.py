"""What the audit prints and returns for one topic."""

from collections import Counter
from io import StringIO

from rich.console import Console

from workers.audit import Tally, Verdict
from workers.audit.verdict import WHAT
from workers.cli.audit_report import COLUMNS, WHAT_TO_DO, Audited, as_table, findings

TALLIES = {0: Tally(records=9, finished=6, waiting=1, past_commit=2, commit=4), 3: Tally(records=4, finished=4)}


def audited(**found: object) -> Audited:
    """A topic with two partitions and these faults."""
    return Audited(task="t", topic="in", verdict=Verdict(inputs=13, partitions=TALLIES, **found))  # type: ignore[arg-type]


def printed(one: Audited) -> list[list[str]]:
    """The table's rows as words."""
    console = Console(width=140, file=StringIO())
    console.print(as_table(one))
    return [row.split() for row in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_each_partition_has_a_row_and_all_have_a_sum() -> None:
    """Columns in the order of the help text; a record with two faults of one column counts once."""
    one = audited(
        lost=["in/0/4", "in/0/5"],
        repeated=Counter({"in/0/1": 3}),
        out_of_order=["in/3/1"],
        key_moved=["in/3/1", "in/3/2"],
        altered=["in/0/2"],
        misfiled=["in/3/3"],
        unknown=["elsewhere/0/1"],
    )
    rows = printed(one)
    assert rows[0] == ["t:", "in"]
    assert ["0", "9", "6", "1", "2", "1", "0", "1", "0", "2"] in rows
    assert ["3", "4", "4", "0", "0", "0", "2", "0", "1", "0"] in rows
    assert ["all", "13", "10", "1", "2", "1", "2", "1", "1", "2"] in rows


def test_findings_come_worst_first() -> None:
    """What is broken, with what to do; what a crash allows; what could not be judged."""
    one = audited(repeated=Counter({"in/0/1": 3}), lost=["in/0/4"], unjudged=Counter({"of something": 7}))
    states = [(finding.state, finding.todo != "") for finding in findings(one)]
    assert states == [("failed", True), ("ok", False), ("unknown", False)]
    lines = [str(finding) for finding in findings(one)]
    assert lines[0].startswith("FAILED  in: 1 records have no outcome: in/0/4. To do: stop the workers")
    assert lines[1].startswith("ok      in: 1 records have more than one outcome: in/0/1; as a crash may leave them")
    assert lines[2] == "unknown in: 7 of something"


def test_nothing_wrong_is_said_as_well() -> None:
    """One line; and what the cluster does not tell is named."""
    assert [str(finding) for finding in findings(audited())] == ["ok      in: nothing is wrong"]
    untold = Audited(task="t", topic="in", verdict=Verdict(), untold=["in.t.dlq"], latest=True)
    assert ["in.t.dlq" in str(finding) for finding in findings(untold)] == [False, True, False]
    assert "start: latest" in str(findings(untold)[2])


def test_the_same_as_json() -> None:
    """Per partition the columns by name; of each fault how many, the first three, and whether it breaks a promise."""
    told = audited(lost=[f"in/0/{n}" for n in range(5)], repeated=Counter({"in/3/1": 1})).as_json()
    assert told["partitions"][0] == {
        "partition": 0,
        "records": 9,
        "finished": 6,
        "waiting": 1,
        "past_commit": 2,
        "commit": 4,
        "missing": 5,
        "doubled": 0,
        "out_of_order": 0,
        "altered": 0,
        "invalid": 0,
    }
    [lost, repeated] = told["findings"]
    assert (lost["fault"], lost["records"], lost["first"]) == ("lost", 5, ["in/0/0", "in/0/1", "in/0/2"])
    assert (lost["broken"], repeated["broken"]) == (True, False)


def test_everything_that_can_be_found_has_a_remedy() -> None:
    """The audit neither samples commits nor knows secrets, and its run is not over: all else has one."""
    not_looked_for = {"early", "leaked", "uncommitted", "repeated", "in_two_kinds"}
    assert WHAT_TO_DO.keys() == WHAT.keys() - not_looked_for
    assert {name for names in COLUMNS.values() for name in names} <= WHAT.keys()

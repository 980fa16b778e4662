"""What a dry run found: one line for each check, or one JSON object."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "failed", "unknown"]

_SHOWN: dict[State, str] = {"ok": "ok", "failed": "FAILED", "unknown": "unknown"}
_STATE_WIDTH = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check. `about`: what was looked at; `todo`: what a person should do, '' when nothing.

    `unknown` is what could not be told without leaving a trace, or not at all; it fails nothing.
    """

    about: str
    state: State
    what: str
    todo: str = ""

    def __str__(self) -> str:
        line = f"{_SHOWN[self.state]:{_STATE_WIDTH}} {self.about}: {self.what}"
        return " ".join((f"{line}. To do: {self.todo}" if self.todo else line).split("\n"))


def failed(findings: Sequence[Finding]) -> bool:
    """Return whether any check failed."""
    return any(finding.state == "failed" for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: how many checks ended how."""
    counts = {state: sum(finding.state == state for finding in findings) for state in _SHOWN}
    return f"{counts['ok']} ok, {counts['failed']} failed, {counts['unknown']} unknown; nothing was left behind"


def as_json(config: str, findings: Sequence[Finding], warnings: Sequence[str]) -> str:
    """Return the same as one JSON object."""
    checks = [{"about": one.about, "state": one.state, "what": one.what, "todo": one.todo} for one in findings]
    return json.dumps({"config": config, "ok": not failed(findings), "checks": checks, "warnings": list(warnings)})

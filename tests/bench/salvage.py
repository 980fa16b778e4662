"""What becomes of broken answers, by class: `python -m tests.bench.salvage`.

Takes every answer of `tests/contract/answers` through the parse stage and, where that gives nothing, asks whether the
record would be asked again. Prints a table and one JSON line. No server, no model: what a second ask brings is another
question.
"""

import platform
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson

from tests.contract.answers.corpus import Row, rows
from tests.fuzz.shipped import shipped_task
from tests.support.wire import make_reply
from workers.errors import BadAnswer
from workers.records import Prompt
from workers.retry_budget import RetryBudget
from workers.second_ask import second_ask
from workers.stages.s4_parse import parse

COLUMNS = ("rows", "as it is", "rescued", "wrong", "missed", "given up", "asked again", "larger budget", "ladder")
"""`wrong`: another value than a person reads. `given up`: no value; `missed` are those where a person reads one.

The last three say what happens to those given up: the same text and what was wrong, twice the tokens, no second ask.
"""


def became(row: Row) -> list[str]:
    """Return the columns that an answer counts in."""
    task = replace(shipped_task(), second_asks=RetryBudget())
    reply = replace(make_reply(), text=row.said, finish_reason=row.finish_reason)
    try:
        value = parse(reply, task)
    except BadAnswer as error:
        again = second_ask(Prompt(b"", "a ticket"), error, reply, task)
        missed = [] if row.reads is None else ["missed"]
        how = {None: "ladder", "asked_again": "asked again", "larger_budget": "larger budget"}
        return ["given up", *missed, how[again and again[0]]]
    if value != row.reads:
        return ["wrong"]
    return ["rescued" if reply.repairs else "as it is"]


def measured() -> dict[str, Counter[str]]:
    """Return the figures of each class, and of all of them under `all`."""
    figures: dict[str, Counter[str]] = {}
    for row in rows():
        for name in (row.kind, "all"):
            figures.setdefault(name, Counter())["rows"] += 1
            figures[name].update(became(row))
    return {name: figures[name] for name in sorted(figures, key=lambda name: (name == "all", name))}


def main() -> None:
    """Print the table and the line."""
    began_s = time.thread_time()
    figures = measured()
    cpu_s = time.thread_time() - began_s
    widest = max(map(len, figures))
    print(f"{'class':{widest}}  " + "  ".join(COLUMNS))
    for name, counts in figures.items():
        print(f"{name:{widest}}  " + "  ".join(f"{counts[column]:{len(column)}}" for column in COLUMNS))
    line: dict[str, Any] = {
        "bench": "salvage",
        "python": platform.python_version(),
        "cpu_s": round(cpu_s, 3),
        "classes": {name: {column: counts[column] for column in COLUMNS} for name, counts in figures.items()},
    }
    print(orjson.dumps(line).decode())


if __name__ == "__main__":
    main()

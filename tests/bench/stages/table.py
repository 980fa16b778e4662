"""From the measured steps to the tables: which step is which row, what they add up to, and what is left over."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Steps = Mapping[str, Sequence[float]]
"""us per record of each step, one for each round."""
Parts = Mapping[str, int]
"""Steps that are added (1) and taken away (-1): what is measured as a whole is shown without what has a row already."""

ROWS: Mapping[str, Parts] = {
    "Kafka client: fetch": {"fetch": 1},
    "intake: ledger, delivery, window": {"intake": 1},
    "lane: an asyncio task, the window, the awaits between the stages": {
        "path": 1,
        "s1_decode": -1,
        "s2_prompt": -1,
        "s4_parse": -1,
        "s5_route": -1,
        "s6_ack": -1,
        "metrics_of_record": -1,
    },
    "s1_decode": {"s1_decode": 1},
    "s2_prompt": {"s2_prompt": 1},
    "s3_call: slots, cool-downs, breaker": {"admission": 1},
    "s3_call: attempts, deadline, checks of the answer": {
        "call": 1,
        "post": -1,
        "admission": -1,
        "envelope": -1,
        "metrics_of_call": -1,
    },
    "s3_call: the POST, sockets and event loop with it": {"post": 1},
    "s3_call: the envelope of the answer": {"envelope": 1},
    "s4_parse: JSON, depth": {"s4_parse": 1, "schema": -1},
    "s4_parse: answer schema": {"schema": 1},
    "s5_route: key, partition, value": {"s5_route": 1, "provenance": -1},
    "s5_route: provenance": {"provenance": 1},
    "s6_ack: ack, ledger": {"s6_ack": 1},
    "Kafka client: produce, confirmed": {"produce": 1},
    "metrics": {"metrics_of_record": 1, "metrics_of_call": 1},
    "commit: positions, metadata (a 1,000th of a commit)": {"commit": 1},
}
WHOLE: Parts = {"fetch": 1, "intake": 1, "path": 1, "call": 1, "produce": 1, "commit": 1}
"""What is measured as a whole: the rows are this, taken apart."""

SAFETY: Mapping[str, tuple[Parts, str]] = {
    "answer schema": ({"schema": 1}, "alone"),
    "provenance": ({"provenance": 1}, "alone"),
    "order by key": ({"intake_key": 1, "path_key": 1, "intake": -1, "path": -1}, "with it minus without"),
    "confirmed sends": ({"produce": 1, "produce_unconfirmed": -1}, "waiting for each confirmation minus for none"),
    "breaker, with slots and cool-downs": ({"admission": 1}, "alone"),
    "metrics": ({"metrics_of_record": 1, "metrics_of_call": 1}, "alone"),
    "commit metadata, with the positions": ({"commit": 1}, "alone, shared by 1,000 records"),
}


def added(steps: Steps, parts: Parts) -> list[float] | None:
    """Return the sum of the parts for each round, None when one of them was not measured."""
    if any(name not in steps for name in parts):
        return None
    rounds = min(len(steps[name]) for name in parts)
    return [sum(sign * steps[name][each] for name, sign in parts.items()) for each in range(rounds)]


def shown(values: Sequence[float] | None) -> str:
    """Return `median | least-most`."""
    if values is None:
        return "- | -"
    return f"{statistics.median(values):.1f} | {min(values):.1f}-{max(values):.1f}"


def table(line: Mapping[str, Any]) -> str:
    """Return the table of the stages of one line of results."""
    steps: Steps = line["steps"]
    rows = [f"| {name} | {shown(added(steps, parts))} |" for name, parts in ROWS.items()]
    whole, worker_us = added(steps, WHOLE), line.get("worker_us_per_record")
    rows.append(f"| **all of these** | {shown(whole)} |")
    if whole is not None and worker_us is not None:
        rest = worker_us - statistics.median(whole)
        rows.append(f"| **the whole worker**, W3 | {worker_us:.1f} | |")
        rows.append(f"| the rest | {rest:.1f} | |")
    return "\n".join(["| Step | us CPU per record | range |", "|---|---|---|", *rows])


def safety(line: Mapping[str, Any]) -> str:
    """Return the table of what each safety costs."""
    rows = [f"| {name} | {shown(added(line['steps'], parts))} | {how} |" for name, (parts, how) in SAFETY.items()]
    return "\n".join(["| Safety | us CPU per record | range | measured |", "|---|---|---|---|", *rows])


def block(line: Mapping[str, Any]) -> str:
    """Return what stands on the page."""
    machine = line["machine"]
    where = f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}"
    when = f"{line['run'][:10]}: {where}, Apache Kafka {machine['kafka']}, load {line['load']} before it;"
    how = f"median and range of {line['rounds']} rounds of {line['records']:,} records."
    rest = (
        "The rest is what no step has alone: the Faust channel, heartbeats and the group, the event loop's idle turns, "
        "garbage collection over the whole, caches that are cold. "
        f"The POST is by `http_client: {line['http_client']}`; by `{line['other_client']}` it takes "
        f"{statistics.median(line['steps']['post_other']):.1f} us."
    )
    beside = (
        'What no step isolates is seen in the whole worker: `make bench W=W3 PEERS="penstock penstock_key '
        'penstock_default"` has order by key, and the shorter commit interval, beside none.'
    )
    return "\n\n".join([f"{when} {how}", table(line), rest, safety(line), beside])

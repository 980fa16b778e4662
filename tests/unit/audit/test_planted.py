"""Planted faults: whatever is broken in a sound run is found, each by its name, and nothing else is."""

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.outcomes import Outputs, answered, came, dead, fell_back, forged, placed
from topics import enriched
from topics.shapes import Shape
from workers.audit import Rules, Sample, Verdict, judge
from workers.records import Record
from workers.stream.commit_metadata import encode, fingerprint

CANARY = b"CANARY-7f3a"
RECORDS, PARTITIONS, EACH = 96, 2, 8
RULES = Rules(
    shape=Shape(), check=lambda answer: None if answer == {"a": 1} else "wrong", canaries=(CANARY,), cluster_id="c"
)


@dataclass
class Run:
    """A sound run: of each partition's records every eighth is a dead letter, the one after it fell back.

    Each key has eight records that follow each other, and only one fault is done to a key.
    """

    inputs: list[Record] = field(default_factory=list)
    outputs: Outputs = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    commit: dict[int, tuple[int, str]] = field(default_factory=dict)

    def output(self, source: str, kind: str = "enriched") -> Record:
        """The output of a record."""
        [found] = [one for one in self.outputs[kind] if dict(one.headers)["__penstock.source"] == source.encode()]
        return found


def sound() -> Run:
    """Return such a run."""
    run = Run(outputs={"enriched": [], "fallback": [], "review": [], "dlq": []})
    for number in range(RECORDS):
        partition, offset = number % PARTITIONS, number // PARTITIONS
        key = b"k%d" % (offset // EACH)
        record = came(offset, b'{"n": %d}' % number, key, partition=partition, said=[("h", b"v")])
        run.inputs.append(record)
        kind = {0: "dlq", 1: "fallback"}.get(offset % EACH, "enriched")
        made = {"dlq": dead, "fallback": lambda one: fell_back(one, "rules"), "enriched": answered}[kind](record)
        run.outputs[kind].append(made)
    for kind in ("enriched", "fallback", "dlq"):
        run.outputs[kind].sort(key=lambda one: one.partition)
    run.commit = dict.fromkeys(range(PARTITIONS), (RECORDS // PARTITIONS, ""))
    return run


def seen(run: Run) -> Verdict:
    """The verdict over it."""
    return judge(run.inputs, placed(run.outputs), rules=RULES, samples=run.samples, commit=run.commit)


def source(group: int, place: int) -> str:
    """The source of a record of a key: `place` 0 is a dead letter, 1 fell back, the others were answered."""
    return f"in/{group % PARTITIONS}/{group // PARTITIONS * EACH + place}"


def lose(run: Run, group: int) -> str:
    """No outcome."""
    run.outputs["enriched"].remove(run.output(source(group, 3)))
    return source(group, 3)


def double(run: Run, group: int) -> str:
    """A second outcome, behind the first."""
    run.outputs["enriched"].append(answered(came_of(run, source(group, 3))))
    return source(group, 3)


def swap(run: Run, group: int) -> str:
    """Two records of a key in the wrong order."""
    one, two = run.output(source(group, 4)), run.output(source(group, 5))
    records = run.outputs["enriched"]
    here, there = records.index(one), records.index(two)
    records[here], records[there] = two, one
    return source(group, 4)


def change_key(run: Run, group: int) -> str:
    """Other key bytes."""
    run.output(source(group, 3)).key = b"other"
    return source(group, 3)


def move_key(run: Run, group: int) -> str:
    """The last record of a key on another partition."""
    run.output(source(group, 7)).partition = 5
    return source(group, 7)


def alter_value(run: Run, group: int) -> str:
    """One byte of the embedded input."""
    output = run.output(source(group, 2))
    output.value = (output.value or b"").replace(b'{"n": ', b'{"m": ')
    return source(group, 2)


def alter_letter(run: Run, group: int) -> str:
    """One byte of a dead letter's value."""
    run.output(source(group, 0), "dlq").value = b"x"
    return source(group, 0)


def alter_header(run: Run, group: int) -> str:
    """One byte of a dead letter's header."""
    letter = run.output(source(group, 0), "dlq")
    letter.headers = [("h", b"w"), *letter.headers[1:]]
    return source(group, 0)


def break_schema(run: Run, group: int) -> str:
    """An enrichment that the schema refuses."""
    output = run.output(source(group, 3))
    output.value = answered(came_of(run, source(group, 3)), {"a": 2}).value
    return source(group, 3)


def forge(run: Run, group: int) -> str:
    """A second source header."""
    output = run.output(source(group, 1), "fallback")
    output.headers = [forged("in/0/0"), *output.headers]
    return source(group, 1)


def invent(run: Run, group: int) -> str:
    """An outcome of a record that never was."""
    run.outputs["enriched"].append(answered(came(1_000 + group)))
    return f"in/0/{1_000 + group}"


def leak(run: Run, group: int) -> str:
    """A canary in a header."""
    output = run.output(source(group, 6))
    output.headers = [*output.headers, ("trace", b"Bearer " + CANARY)]
    return source(group, 6)


def misfile(run: Run, group: int) -> str:
    """An answer that says it was a fallback."""
    output = run.output(source(group, 3))
    output.headers = [(name, b"fallback" if name == "__penstock.outcome" else value) for name, value in output.headers]
    return source(group, 3)


def commit_early(run: Run, group: int) -> str:
    """One sample, in the middle of the run, whose bitmap is one record ahead of the outputs."""
    at = source(group, 3)
    _, number, offset = at.split("/")
    placed(run.outputs)
    base = int(offset) - 1
    text = encode(base, b"\x02", fingerprint("c", "in", int(number)))
    everything = {
        (kind, partition): sum(one.partition == partition for one in run.outputs[kind])
        for kind in run.outputs
        for partition in range(PARTITIONS)
    }
    ends = everything | {("enriched", int(number)): run.output(at).offset}
    run.samples.insert(0, Sample(committed={int(number): (base, text)}, ends=ends))
    return at


FAULTS: dict[str, tuple[Callable[[Run, int], str], ...]] = {
    "lost": (lose,),
    "repeated": (double,),
    "out_of_order": (swap,),
    "key_changed": (change_key,),
    "key_moved": (move_key,),
    "altered": (alter_value, alter_letter, alter_header),
    "invalid": (break_schema,),
    "forged": (forge,),
    "unknown": (invent,),
    "leaked": (leak,),
    "misfiled": (misfile,),
    "early": (commit_early,),
}
PLANTS = [(name, plant) for name, plants in FAULTS.items() for plant in plants]


def test_a_sound_run_has_no_fault() -> None:
    """Nothing is found where nothing is."""
    assert seen(sound()).faults() == {}
    assert not seen(sound()).unjudged


@pytest.mark.parametrize(("name", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
def test_a_planted_fault_is_found(name: str, plant: Callable[[Run, int], str]) -> None:
    """One fault, one name, one record."""
    run = sound()
    wrong = plant(run, 4)
    assert seen(run).faults() == {name: [wrong]}
    assert seen(run).broken(crashed=name != "repeated")


ORDER_OF_PLANTING = [one for one in PLANTS if one[0] not in ("early", "lost")]


@given(st.permutations(range(RECORDS // EACH)), st.lists(st.sampled_from(ORDER_OF_PLANTING), max_size=9), st.booleans())
def test_any_faults_together_are_found_exactly(
    groups: list[int],
    plants: list[tuple[str, Callable[[Run, int], str]]],
    with_loss: bool,  # noqa: FBT001 - drawn
) -> None:
    """Whatever is planted, each on a key of its own, is found by name and source, and nothing besides."""
    run = sound()
    expected: dict[str, list[str]] = {}
    chosen = [*plants, *([("lost", lose)] if with_loss else [])]
    for (name, plant), group in zip(chosen, groups, strict=False):
        expected.setdefault(name, []).append(plant(run, group))
    found = {name: sorted(wrong) for name, wrong in seen(run).faults().items()}
    assert found == {name: sorted(wrong) for name, wrong in expected.items()}


@given(st.data())
def test_any_commits_are_held_against_the_outputs(data: st.DataObject) -> None:
    """Random commits with random bitmaps at random moments: early is what a plain look at each sample finds."""
    run = sound()
    placed(run.outputs)
    written = {
        dict(one.headers)["__penstock.source"]: (kind, one.partition, one.offset)
        for kind, records in run.outputs.items()
        for one in records
    }
    ends = {(kind, number): 0 for kind in run.outputs for number in range(PARTITIONS)}
    early: set[str] = set()
    for _ in range(data.draw(st.integers(0, 6))):
        for at in ends:
            ends[at] += data.draw(st.integers(0, 12))
        number, base = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 48))
        bits = data.draw(st.binary(max_size=3))
        text = encode(base, bits, fingerprint("c", "in", number))
        run.samples.append(Sample(committed={number: (base, text)}, ends=dict(ends)))
        claimed = set(range(base)) | {base + n for n in range(24) if n < len(bits) * 8 and bits[n >> 3] >> (n & 7) & 1}
        for offset in claimed & set(range(48)):
            kind, partition, place = written[b"in/%d/%d" % (number, offset)]
            if place >= ends[kind, partition]:
                early.add(f"in/{number}/{offset}")
    assert set(seen(run).early) == early


def came_of(run: Run, at: str) -> Record:
    """The input record at a source."""
    return next(one for one in run.inputs if one.source == at)


def test_the_shipped_shapes_can_be_judged() -> None:
    """`merge` gives the input back byte for byte, `only` keeps none of it: then there is nothing to compare."""
    one = came(0, b'{"x": 1 }')
    output = answered(one)
    how = enriched.decode(output.value or b"").provenance
    assert how is not None
    merge = Shape(kind="merge", merge_as="z")
    output.value = enriched.encode(one.value or b"", {"a": 1}, how, merge)
    assert judge([one], {"enriched": [output]}, rules=Rules(shape=merge)).broken() == []
    output.value = output.value.replace(b'"x": 1', b'"x":1')
    assert judge([one], {"enriched": [output]}, rules=Rules(shape=merge)).altered == [one.source]
    output.value = orjson.dumps({"a": 1})
    assert judge([one], {"enriched": [output]}, rules=Rules(shape=Shape(kind="only"))).broken() == []

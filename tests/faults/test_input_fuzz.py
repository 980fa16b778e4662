"""D20: records of any bytes, answers of any text, configurations and commit metadata of any kind.

`make fuzz` runs the same for longer, guided by coverage; `python -m tests.fuzz records --seconds 600` is a million
records.
"""

import pytest

from tests.fuzz import boundary
from tests.fuzz.targets import CORPUS, NAMES, mutations

RECORDS = {"as shipped": 60_000, "text": 20_000, "merge": 20_000}
GROWTH_MAX_BYTES = 16 << 20
BLOCK_MAX_S = 2.0
MUTATIONS = {"configuration": 150}
"""Reading one costs 10 ms; the others take 1,000."""


@pytest.mark.fault("D20")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("course", boundary.COURSES, ids=lambda course: course.name)
async def test_whatever_the_record_and_the_answer_it_ends_once(course: boundary.Course) -> None:
    """Nothing leaves the record boundary, each record ends once, in order, readably; memory is flat, the loop runs."""
    figures = boundary.Figures()
    await boundary.run(course, figures, lambda: figures.records < RECORDS[course.name], seed=20)
    print(figures)
    assert figures.growth_bytes() < GROWTH_MAX_BYTES
    assert figures.longest_block_s < BLOCK_MAX_S
    assert min(figures.ends[kind] for kind in boundary.ENDS) > figures.records // 20, (
        "a way that hardly any record went"
    )


@pytest.mark.fault("D20")
@pytest.mark.parametrize("target", NAMES)
def test_fuzz_targets_find_nothing_in_their_corpus_nor_close_to_it(target: str) -> None:
    """What fuzzing found stays mended, and the targets themselves still run."""
    count = MUTATIONS.get(target, 1_000)
    assert mutations(target, count=count, seed=20) == count + len(list((CORPUS / target).iterdir()))

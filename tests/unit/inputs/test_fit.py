"""Parts of a record over their budget: what the template sees, and what stays whole."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.wire import VALUE, make_record, make_reply, make_task, route_at_now
from workers import metrics
from workers.inputs import fitting
from workers.outcome import Enriched
from workers.ports import Frame
from workers.prompts import compile_prompt
from workers.records import Cut, Request
from workers.settings.inputs import InputPart
from workers.stages.s2_prompt import build

LONG = "word " * 100


def fitted(value: Any, **parts: int) -> tuple[Any, tuple[Cut, ...]]:
    """Fit a value, each part by its head; `__` stands for a dot, `whole` for the whole value."""
    budgets = {name.replace("__", ".").replace("whole", "."): tokens for name, tokens in parts.items()}
    fit = fitting({name: InputPart(max_tokens=tokens, keep="head") for name, tokens in budgets.items()}, None)
    assert fit is not None
    return fit(value)


def test_no_budgets_no_work() -> None:
    """A task without `inputs` has nothing that could cut."""
    assert fitting({}, None) is None


def test_a_long_part_is_cut_in_a_copy() -> None:
    """The record stays whole, because the outputs embed it; what leads to the part is copied, the rest shared."""
    value = {"a": {"b": [{"text": LONG}, "x"]}, "c": {"d": 1}}
    before = deepcopy(value)
    other, cuts = fitted(value, a__b__0__text=2)
    assert value == before
    assert other == {"a": {"b": [{"text": "word w"}, "x"]}, "c": {"d": 1}}
    assert other["c"] is value["c"]
    assert cuts == (
        Cut(field="a.b.0.text", keep="head", kept_tokens=2, kept_chars=6, of_chars=500, counted="estimate"),
    )


def test_what_fits_is_the_same_object() -> None:
    """Most records: no copy, and nothing to tell."""
    value = {"a": "short", "b": LONG}
    other, cuts = fitted(value, a=100, b=1_000)
    assert other is value
    assert cuts == ()


@pytest.mark.parametrize(
    "value", [{}, {"a": None}, {"a": 7}, {"a": [LONG]}, {"a": {"a": LONG}}, [LONG], LONG, None, 1.5]
)
def test_what_is_no_text_at_that_place_is_left_alone(value: Any) -> None:
    """A path that leads nowhere, or to something else, is the template's business."""
    assert fitted(value, a=1, a__b=1)[0] is value


def test_a_text_record_is_one_part() -> None:
    """`.` is the whole of it."""
    assert fitted(LONG, whole=1)[0] == "wor"


def test_several_parts_have_budgets_of_their_own() -> None:
    """A budget per part: what one leaves over is not another's."""
    other, cuts = fitted({"a": LONG, "b": LONG, "c": LONG}, a=1, b=2)
    assert other == {"a": "wor", "b": "word w", "c": LONG}
    assert [cut.field for cut in cuts] == ["a", "b"]


def test_the_template_sees_what_is_left(tmp_path: Path) -> None:
    """Stage 2: the prompt has the cut text and says so, the request keeps its value, and the cut is counted."""
    (tmp_path / "system.txt").write_text("s")
    (tmp_path / "user.j2").write_text("<{{ record.a }}>")
    fit = fitting({"a": InputPart(max_tokens=2, keep="tail")}, None)
    render = compile_prompt(tmp_path / "system.txt", tmp_path / "user.j2").render
    task = replace(make_task(), frame=Frame(b"", b""), render=render, fit=fit)
    counter = metrics.INPUTS_CUT.labels(task.name, "tail")
    before = counter._value.get()
    request = Request(make_record(), {"a": LONG})
    prompt = build(request, task)
    assert orjson.loads(prompt.body) == "< word >"
    assert [cut.of_chars for cut in prompt.cut] == [500]
    assert request.value == {"a": LONG}
    assert counter._value.get() == before + 1
    assert build(Request(make_record(), {"a": "x"}), task).cut == ()


def test_provenance_says_what_was_cut() -> None:
    """Written only where something was; the input beside it is whole."""
    cut = Cut(field="a", keep="ends", kept_tokens=9, kept_chars=30, of_chars=500, counted="tokenizer")
    for cuts, expected in (((cut,), [orjson.loads(orjson.dumps(cut))]), ((), None)):
        [outgoing] = route_at_now(make_record(), Enriched({}, make_reply(cut=cuts)), make_task())
        assert outgoing.value is not None
        written = orjson.loads(outgoing.value)
        assert written["provenance"].get("cut") == expected
        assert VALUE in outgoing.value

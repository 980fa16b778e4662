"""A template of texts and fields alone is strung together without Jinja: what comes out is Jinja's."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.prompts import NAMES, compile_prompt, explain

FIELDS = ("text", "a", "items", "__class__")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner), max_leaves=6
)
PATHS = st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(FIELDS), max_size=2)).map(
    lambda path: ".".join([path[0], *path[1]])
)
PIECES = st.lists(
    PATHS.map("{{{{ {} }}}}".format) | st.sampled_from(["", "\n", " a ", "<b>&amp;", "{# no #}"]), max_size=5
)


def said(template: str, folder: Path, names: dict[str, Any]) -> str:
    """Return what a template gives, or why it fails."""
    system, user = folder / "system.txt", folder / "user.j2"
    system.write_text("")
    user.write_text(template)
    try:
        return compile_prompt(system, user).render(**names)
    except Exception as exc:  # noqa: BLE001 - a template can raise anything
        return f"failed: {explain(exc)}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, values=st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)))
def test_fields_and_texts_are_rendered_as_by_jinja(tmp_path: Path, pieces: list[str], values: dict[str, Any]) -> None:
    """The same template with a statement that says nothing goes through Jinja: the same text, or the same error."""
    template = "".join(pieces)
    assert said(template, tmp_path, values) == said("{% if true %}{% endif %}" + template, tmp_path, values)


@pytest.mark.parametrize(
    ("template", "text"),
    [("{{ record.text | upper }}", "A"), ("{{ record.text ~ 1 }}", "a1"), ("{{ record.text }}{% set a = 1 %}", "a")],
)
def test_what_is_more_than_fields_is_left_to_jinja(tmp_path: Path, template: str, text: str) -> None:
    """A filter, an operator, a statement."""
    assert said(template, tmp_path, {"record": {"text": "a"}}) == text

"""A prompt's template is code in a sandbox, and a record's text is never a template."""

from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError

from workers.prompts import PromptInvalid, compile_prompt

ESCAPES = [
    "{{ record.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ record['__class__'] }}",
    "{{ ''['__class__']['__base__'] }}",
    "{{ ().__class__.__bases__[0].__subclasses__()[104].__init__.__globals__ }}",
    "{{ record.get.__self__ }}",
    "{{ record.text.format.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(record) }}",
    "{{ '%s'.__mod__.__class__ }}",
    "{{ record.text.format_map({'a': record}).__class__ }}",
    "{{ '{a.__class__}'.format_map({'a': record}) }}",
    "{{ ('{0.__class__}' | string).format(record) }}",
    "{{ record | attr('__class__') }}",
    "{{ [record] | map('attr', '__class__') | list }}",
    "{{ [record] | sum(attribute='__class__') }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ config }}",
    "{{ request }}",
    "{{ environment }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import environ %}",
    "{% extends '/etc/passwd' %}",
    "{% set record.text = 1 %}{{ record }}",
    "{{ record.update({'text': 1}) }}",
    "{{ record.clear() }}",
    "{{ record.pop('text') }}",
    "{{ [1].append(2) }}",
    "{{ range(100000000) | list }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ record.items }}",
]
BLIND = ["{{ record | map(attribute='__class__') | list }}", "{{ [record] | groupby('__class__') | length }}"]
REFUSED = (PromptInvalid, TemplateError, OverflowError)
"""`OverflowError`: a range that is too long to be meant."""
SEEN: dict[str, Any] = {
    "key": "k",
    "headers": {},
    "kafka_topic": "t",
    "kafka_partition": 0,
    "kafka_offset": 0,
    "kafka_timestamp_ms": 0,
}


def rendered(folder: Path, template: str, text: str = "hello") -> str:
    """Return what a template makes of a record."""
    (folder / "system.txt").write_text("Sort it.")
    (folder / "user.j2").write_text(template)
    prompt = compile_prompt(folder / "system.txt", folder / "user.j2")
    return prompt.render(record={"text": text}, **SEEN)


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_known_way_out_of_the_sandbox_leads_anywhere(tmp_path: Path, escape: str) -> None:
    """Refused by lint or while rendering."""
    with pytest.raises(REFUSED):
        rendered(tmp_path, escape)


@pytest.mark.parametrize("template", BLIND)
def test_a_filter_that_looks_at_attributes_sees_nothing(tmp_path: Path, template: str) -> None:
    """They are undefined to a filter, and an undefined value is all that it can show."""
    assert "class" not in rendered(tmp_path, template)


@pytest.mark.parametrize("text", [*ESCAPES, "{{ 7 * 7 }}", "{% for x in [1] %}x{% endfor %}", "{# gone #}"])
def test_the_text_of_a_record_is_never_a_template(tmp_path: Path, text: str) -> None:
    """It stands in the prompt as it came."""
    assert rendered(tmp_path, "{{ record.text }}", text) == text
    assert rendered(tmp_path, "{{ record.text | upper | lower }}", "{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_an_undefined_field_is_an_error_and_an_ordinary_template_works(tmp_path: Path) -> None:
    """Strict: a field that is missing is no empty text; loops, filters and conditions are what they are."""
    with pytest.raises(TemplateError, match="no attribute 'missing'"):
        rendered(tmp_path, "{{ record.missing }}")
    assert rendered(tmp_path, "{% for x in record.values() if x %}{{ x | upper }}{% endfor %}") == "HELLO"

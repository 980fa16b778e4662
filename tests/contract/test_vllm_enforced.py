"""What a real vLLM makes of each keyword of a schema is what the table in `workers/portable.py` says.

As `test_vllm_server.py` it runs by hand: `make servers SERVERS=vllm`. Best before a server that writes no blanks:
where it may, a random model writes them until its tokens are used up, and what no answer shows is skipped.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.llm_settings import Start, passage
from tests.support.real_server import raw_prompt
from tests.support.vllm_server import PATIENT_S, patient, vllm_url
from workers.answers import compile_schema
from workers.errors import BadAnswer, Declined
from workers.json_text import loads_raw_controls
from workers.llm import Client
from workers.portable import BY_DIALECT, unenforced
from workers.ports import Ask
from workers.records import Reply

ASKED = 32
"""Times; at temperature 1 a random model breaks in one of them whatever it can."""

Check = Callable[[Any], str | None]

ONE = {"const": 1}
CLOSED = {"type": "object", "additionalProperties": False}
A_OR_B = CLOSED | {"properties": {"a": ONE, "b": ONE}}
BOTH = A_OR_B | {"properties": {"a": {"enum": [1, 2]}, "b": {"enum": [1, 2]}}, "required": ["a", "b"]}
FORMATS = sorted({*BY_DIALECT["vllm"].formats, "idn-email", "iri", "regex"})

# Schemas of one property, by the keyword that is tried.
SCHEMAS: dict[str, dict[str, Any]] = {
    "minimum": {"type": "integer", "minimum": 100, "maximum": 120},
    "exclusiveMinimum, number": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "minimum, nullable": {"type": ["integer", "null"], "minimum": 100, "maximum": 120},
    "exclusiveMinimum": {"type": "integer", "exclusiveMinimum": 41, "exclusiveMaximum": 44},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 60},
    "pattern": {"type": "string", "pattern": "^a{2,3}$"},
    "pattern, not anchored": {"type": "string", "pattern": "zq"},
    "pattern and maxLength": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 2},
    "minLength": {"type": "string", "minLength": 3, "maxLength": 5},
    "minItems": {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "maxItems": 3},
    "uniqueItems": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2, "uniqueItems": True},
    "contains": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2, "contains": ONE},
    "minContains": {
        "type": "array",
        "items": {"enum": [1, 2]},
        "minItems": 2,
        "maxItems": 2,
        "contains": ONE,
        "minContains": 2,
    },
    "prefixItems": {"type": "array", "prefixItems": [ONE, {"const": 2}], "items": False, "minItems": 2},
    "unevaluatedItems": {"type": "array", "prefixItems": [ONE], "minItems": 1, "unevaluatedItems": False},
    "enum": {"enum": [17, "x", None]},
    "const": {"const": 17},
    "anyOf": {"anyOf": [{"const": 3}, {"type": "string", "maxLength": 1}]},
    "oneOf": {"oneOf": [{"enum": [1]}, {"enum": [2]}]},
    "oneOf, overlapping": {"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
    "allOf": {"allOf": [CLOSED | {"properties": {"a": ONE}, "required": ["a"]}]},
    "allOf of two": {"allOf": [{"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 7}]},
    "pattern and format": {"type": "string", "pattern": "^1", "format": "date"},
    "anyOf beside properties": A_OR_B | {"required": ["a"], "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "$ref and minimum": {"$ref": "#/$defs/seventeen", "minimum": 18},
    "multipleOf, nullable": {"type": ["integer", "null"], "multipleOf": 7, "minimum": 1, "maximum": 60},
    "allOf beside properties": CLOSED | {"properties": {"a": ONE}, "allOf": [{"required": ["a"]}]},
    "$ref": {"$ref": "#/$defs/seventeen"},
    "not": {"enum": [3, 4, 5], "not": {"enum": [3, 4]}},
    "if": BOTH
    | {
        "if": {"properties": {"a": ONE}},
        "then": {"properties": {"b": ONE}},
        "else": {"properties": {"b": {"const": 2}}},
    },
    "dependentRequired": A_OR_B | {"dependentRequired": {"a": ["b"], "b": ["a"]}},
    "dependentSchemas": A_OR_B | {"dependentSchemas": {"a": {"required": ["b"]}, "b": {"required": ["a"]}}},
    "patternProperties": CLOSED | {"patternProperties": {"^[ab]$": ONE}},
    "propertyNames": {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": ONE},
    "additionalProperties": {
        "type": "object",
        "properties": {"a": ONE},
        "required": ["a"],
        "additionalProperties": ONE,
    },
    "minProperties": A_OR_B | {"minProperties": 1},
    "maxProperties": A_OR_B | {"maxProperties": 1},
    "unevaluatedProperties": {
        "type": "object",
        "properties": {"a": ONE},
        "required": ["a"],
        "unevaluatedProperties": False,
    },
    "default": {"enum": [1, 2], "default": 1},
} | {f"format {name}": {"type": "string", "format": name} for name in FORMATS}


HALF = r"\\u[dD][89a-fA-F]"
"""An escape of half a character, which is no text: in each string without a pattern."""

NO_SUCH_DAY = r"-02-3|-02-29|-(04|06|09|11)-31"

WIDER = {
    "minimum": r"12\d",
    "minimum, nullable": r"12\d",
    "format date": NO_SUCH_DAY,
    "oneOf, overlapping": r'"x"\s*:\s*2\s*}',
    "format date-time": rf"{NO_SUCH_DAY}|:60",
    "format time": r":60",
    "format ipv4": r"\b0\d",
    "format hostname": r"--|[^.]{64}|.{254}",
    "format email": r'[^"@]{65}|[^.@]{64}|--',
}
"""Where the server's idea of a keyword is wider than ours at an edge: that one of several branches alone may hold, how
long a month or a name is, 121 to 129 for at most 120. What it breaks there does not make the keyword an ignored one."""


def wrong(text: str, check: Check) -> bool:
    """Return whether a whole answer breaks the schema; what we cannot read (a number without bounds: 1e999) does."""
    try:
        return check(loads_raw_controls(text)) is not None
    except orjson.JSONDecodeError:
        return True


def shown(told: Sequence[object], check: Check, edge: str) -> str:
    """Return what answers show of a schema: enforced, ignored or, when none came to its end, cut; and one of them."""
    assert all(isinstance(one, Reply | BadAnswer) for one in told), told
    whole = [one.text for one in told if isinstance(one, Reply) and one.finish_reason == "stop"]
    broken = [text for text in whole if wrong(text, check) and not re.search(edge, text)]
    telling = (broken or whole)[:1]
    return f"{'ignored' if broken else 'enforced' if whole else 'cut'}: {len(broken)} of {len(whole)}, {telling}"


def as_the_table_says(said: str, schema: dict[str, Any], dialect: str) -> None:
    """Fail unless the table of `workers/portable.py` says it, too."""
    expected = {verdict for _, verdict in unenforced(schema, BY_DIALECT[dialect])} or {"enforced"}
    if "refused" in expected:
        expected.add("ignored")  # with the rest of the place: a reason not to send it either
    assert said.partition(":")[0] in expected, f"the table says {expected}, the server {said}"


async def verdict(client: Client, schema: dict[str, Any], folder: Path, edge: str) -> str:
    """Return what the server makes of a schema: enforced, ignored or refused, and what shows it."""
    (folder / "schema.json").write_bytes(orjson.dumps(schema))
    check = compile_schema(folder / "schema.json").check
    ask = Ask(name="t", system="", schema=schema, max_tokens=400, temperature=1.0)
    told = await asyncio.gather(
        *(
            client.complete(raw_prompt(client, ask, schema, f"ticket {number}"), passage(PATIENT_S), wait_s=0)
            for number in range(ASKED)
        ),
        return_exceptions=True,
    )
    if all(isinstance(one, Declined) for one in told):
        return f"refused: {told[0]}"
    return shown(told, check, edge)


@pytest.mark.parametrize("keyword", SCHEMAS)
async def test_the_table_of_vllm_is_right(keyword: str, start: Start, tmp_path: Path) -> None:
    """What the table leaves to the server holds in every answer; what it calls ignored is broken in one of them."""
    schema = {"type": "object", "properties": {"x": SCHEMAS[keyword]}, "required": ["x"], "additionalProperties": False}
    schema["$defs"] = {"seventeen": {"const": 17}}
    client = await start(vllm_url(), slots=ASKED, **patient())
    said = await verdict(client, schema, tmp_path, WIDER.get(keyword, HALF))
    print(f"{keyword}: {said}")
    if said.startswith("cut"):
        pytest.skip("NOT CHECKED: no answer came to its end")
    as_the_table_says(said, schema, "vllm")

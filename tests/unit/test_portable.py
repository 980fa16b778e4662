"""What of a schema a server enforces, and what is sent to it."""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.support.llm_settings import ASK, model_settings
from workers.llm.dialects import dialect_of
from workers.portable import BY_DIALECT, objections, portable, unenforced
from workers.settings.servers import ModelSettings

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"enum": ["spam", "other"]}, "note": {"type": "string", "maxLength": 200}},
    "required": ["label", "note"],
    "additionalProperties": False,
}


def of(**properties: Any) -> dict[str, Any]:
    """Return a closed object with these properties, all required."""
    return CLOSED | {"properties": properties, "required": [*properties]}


def found(schema: dict[str, Any], dialect: str) -> dict[str, str]:
    """Return what is not enforced, by its place."""
    return {"/".join(map(str, way)): verdict for way, verdict in unenforced(schema, BY_DIALECT[dialect])}


def test_every_dialect_has_its_table() -> None:
    """Without one, a server is sent what it refuses; of one that a person describes nothing is known."""
    assert {*BY_DIALECT, "custom"} == set(get_args(ModelSettings.model_fields["dialect"].annotation))
    assert all(one.source for one in BY_DIALECT.values())


@pytest.mark.parametrize("dialect", BY_DIALECT)
def test_a_plain_schema_is_enforced_whole_and_sent_as_it_is(dialect: str) -> None:
    """Closed objects, enums and lengths are enforced by every kind of server."""
    assert found(CLOSED, dialect) == {}
    assert list(objections(CLOSED, BY_DIALECT[dialect])) == []
    assert portable(CLOSED, BY_DIALECT[dialect]) == CLOSED


OTHERS = ("llamacpp", "ollama", "tgi")

# One property's schema, and what each dialect makes of the keyword that stands last in it.
KEYWORDS: list[tuple[dict[str, Any], dict[str, str]]] = [
    (
        {"type": "number", "minimum": 0},
        {**dict.fromkeys(("vllm", "completions"), "refused"), **dict.fromkeys(OTHERS, "ignored")},
    ),
    (
        {"type": "integer", "multipleOf": 2},
        {
            **dict.fromkeys(("vllm", "completions"), "refused"),
            **dict.fromkeys(("llamacpp", "ollama", "tgi"), "ignored"),
        },
    ),
    ({"type": "integer", "minimum": 0}, {"tgi": "ignored"}),
    ({"type": "integer", "minimum": -1}, {"vllm": "refused", "completions": "refused", "tgi": "ignored"}),
    ({"type": "integer", "exclusiveMinimum": -1}, {"tgi": "ignored"}),
    ({"type": ["integer", "null"], "maximum": 9}, {"tgi": "ignored"}),
    ({"type": "string", "pattern": "a+"}, {"llamacpp": "refused", "ollama": "refused"}),
    ({"type": "string", "pattern": "^a+$"}, {}),
    ({"type": "string", "format": "date"}, {}),
    (
        {"type": "string", "format": "uri"},
        {"openai": "refused", "llamacpp": "ignored", "ollama": "ignored", "tgi": "refused"},
    ),
    (
        {"type": "array", "items": {}, "uniqueItems": True},
        {
            **dict.fromkeys(("openai", "vllm", "completions"), "refused"),
            **dict.fromkeys(("llamacpp", "ollama", "tgi"), "ignored"),
        },
    ),
    (
        {"not": {"const": 1}},
        {
            "openai": "refused",
            **dict.fromkeys(("vllm", "completions", "llamacpp", "ollama", "tgi"), "ignored"),
        },
    ),
    ({"allOf": [{"properties": {}}]}, {"openai": "refused", "tgi": "refused"}),
    ({"description": "x", "allOf": [{"$ref": "#/$defs/a"}]}, {"openai": "refused", "tgi": "refused"}),
    ({"allOf": [{"type": "string"}]}, dict.fromkeys(("openai", "llamacpp", "ollama", "tgi"), "refused")),
    (
        {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
        dict.fromkeys(("openai", "vllm", "completions", "tgi"), "refused"),
    ),
    ({"allOf": [{"type": "string"}, {"maxLength": 2}]}, dict.fromkeys(BY_DIALECT, "refused")),
    ({"type": "object", "allOf": [{"required": ["a"]}]}, dict.fromkeys(BY_DIALECT, "refused")),
    ({"type": "array", "allOf": [{"properties": {}}]}, dict.fromkeys(BY_DIALECT, "refused")),
    ({"anyOf": [{"const": 1}], "minimum": 2}, dict.fromkeys(("vllm", "completions", *OTHERS), "ignored")),
    (
        {"$ref": "#/$defs/a", "required": ["a"]},
        dict.fromkeys(("vllm", "completions", "llamacpp", "ollama"), "ignored"),
    ),
    ({"enum": [1], "maxLength": 2}, dict.fromkeys(("llamacpp", "ollama"), "ignored")),
    ({"type": "string", "maxLength": 2_000}, {}),
    ({"type": "string", "maxLength": 2_001}, dict.fromkeys(("llamacpp", "ollama"), "refused")),
    ({"type": "array", "minItems": 2_001}, dict.fromkeys(("llamacpp", "ollama"), "refused")),
    ({"type": "array", "items": True}, dict.fromkeys(("llamacpp", "ollama"), "refused")),
    ({"type": "array", "items": {}}, {}),
    ({"type": "string", "default": "x"}, {"openai": "refused"}),
]


@pytest.mark.parametrize(("inner", "verdicts"), KEYWORDS, ids=lambda one: str(list(one)[-1]) if one else "all")
def test_what_each_kind_of_server_makes_of_a_keyword(inner: dict[str, Any], verdicts: dict[str, str]) -> None:
    """The tables, keyword by keyword: nothing else of the property is named, and only what is refused is not sent."""
    keyword = list(inner)[-1]
    for dialect in BY_DIALECT:
        schema = of(x=inner)
        expected = {f"properties/x/{keyword}": verdicts[dialect]} if dialect in verdicts else {}
        assert found(schema, dialect) == expected, dialect
        sent = portable(schema, BY_DIALECT[dialect])
        left = {name: one for name, one in inner.items() if verdicts.get(dialect) != "refused" or name != keyword}
        assert sent == (portable(of(x=left), BY_DIALECT["ollama"]) if dialect == "ollama" else of(x=left)), dialect
        assert schema == of(x=inner)


def test_a_keyword_can_be_ignored_for_what_stands_beside_it() -> None:
    """A pattern and a length: llama.cpp and vLLM go by the pattern, TGI by the length."""
    schema = of(x={"type": "string", "pattern": "^a+$", "minLength": 2})
    assert found(schema, "llamacpp") == {"properties/x/minLength": "ignored"}
    assert found(schema, "tgi") == {"properties/x/pattern": "ignored"}
    assert found(schema, "vllm") == {"properties/x/minLength": "ignored"}
    schema = of(x={"type": "string", "format": "date", "pattern": "^1", "maxLength": 9})
    assert found(schema, "vllm") == {"properties/x/pattern": "ignored", "properties/x/maxLength": "ignored"}


def test_what_does_not_hold_itself_stands_in_nobodys_way() -> None:
    """A pattern that is not sent, and a format that is not known, leave the length to the server."""
    for beside in ({"pattern": "a+"}, {"format": "uri"}):
        (name,) = beside
        told = found(of(x={"type": "string", "maxLength": 2} | beside), "llamacpp")
        assert told == {f"properties/x/{name}": "refused" if name == "pattern" else "ignored"}
    items: dict[str, Any] = {"type": "array", "prefixItems": [{"const": 1}], "minItems": 1}
    assert found(of(x=items), "llamacpp") == {"properties/x/minItems": "ignored"}
    assert found(of(x=items | {"items": {}}), "llamacpp") == {"properties/x/prefixItems": "ignored"}
    assert found(of(x=items | {"items": False}), "llamacpp") == {
        "properties/x/items": "refused",
        "properties/x/minItems": "ignored",
    }


HELD = ("^$", "^a{2,3}$", "^(ab|cd)+$", "^[A-Z]{2}-[0-9]{1,9}$", "^a\\.b$", "^[a-z_-]*x?$", "^é[à-ü]$")
ERRORS_IN_GBNF = ("a+", "^a", "a$", "^\\d$", "^[\\d]$", "^\\w+$", "^a\\-b$", "^\\p{L}$", "^(?:a)$", "^a{2000}$")
OTHERWISE_IN_GBNF = ("^a+?$", "^a$|^b$", "^\\.{2}$", "^a{2}{3}$")
NO_TEXT_OF_JSON = ("^.$", "^[^a]$", "^[ -~]$", "^[A-z]$", '^"$', "^\\n$", "^\\\\$")


@pytest.mark.parametrize("pattern", [*HELD, *ERRORS_IN_GBNF, *OTHERWISE_IN_GBNF, *NO_TEXT_OF_JSON])
def test_llama_cpp_gets_the_patterns_that_it_can_hold(pattern: str) -> None:
    """Others are an error in the language of its grammars, mean something else there, or would break the JSON."""
    inner = {"type": "string", "pattern": pattern}
    for dialect in ("llamacpp", "ollama"):
        sent = portable(of(x=inner), BY_DIALECT[dialect])
        assert sent == of(x=inner if pattern in HELD else {"type": "string"})


def test_ollama_is_told_a_type_where_the_schema_tells_none() -> None:
    """It refuses a schema without one, and reads an empty one as an object: every type is the same as none."""
    for inner in ({}, {"description": "anything"}, {"required": ["a"]}):
        sent = portable(of(x=inner), BY_DIALECT["ollama"])["properties"]["x"]
        assert set(sent.pop("type")) == {"object", "array", "string", "number", "boolean", "null"}
        assert sent == inner
        assert portable(of(x=inner), BY_DIALECT["llamacpp"]) == of(x=inner)


def test_bounds_on_both_sides_hold_below_zero_too() -> None:
    """The regular expression of xgrammar misses values only where the range has no end."""
    assert found(of(x={"type": "integer", "minimum": -1, "maximum": 9}), "vllm") == {}
    assert found(of(x={"type": "integer", "maximum": -9}), "vllm") == {}


def test_a_schema_is_looked_at_as_deep_as_it_goes_and_not_inside_values() -> None:
    """Definitions, branches, lists and names; a property may be called as a keyword is, and an enum may hold one."""
    schema = of(
        **{
            "not": {"enum": [{"not": 1}]},
            "list": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/one"}, {"not": {}}]}},
        }
    ) | {"$defs": {"one": {"if": {"not": {}}}}}
    assert found(schema, "vllm") == {"$defs/one/if": "ignored", "properties/list/items/anyOf/1/not": "ignored"}


def test_openai_reads_any_of_where_the_schema_says_one_of() -> None:
    """It refuses `oneOf`; as `anyOf` at least the branches are enforced, and what is inside them is still mended."""
    schema = of(x={"oneOf": [{"type": "string", "default": "a"}, {"type": "null"}]})
    assert found(schema, "openai") == {"properties/x/oneOf/0/default": "refused"}
    assert portable(schema, BY_DIALECT["openai"]) == of(x={"anyOf": [{"type": "string"}, {"type": "null"}]})


def test_openai_refuses_objects_that_are_open_or_have_optional_properties() -> None:
    """Each place is named with what to do; other servers take such objects."""
    schema = {"properties": {"a": {"type": ["object", "null"]}, "b": CLOSED}, "required": ["b"]}
    told = list(objections(schema, BY_DIALECT["openai"]))
    assert [way for way, what in told if "additionalProperties" in what] == [(), ("properties", "a")]
    assert [way for way, what in told if "`required`" in what] == [("properties", "a")]
    assert len(told) == 3
    assert list(objections(schema, BY_DIALECT["vllm"])) == []
    assert [way for way, _ in objections({"anyOf": [CLOSED]}, BY_DIALECT["openai"])] == [("anyOf",)]


def test_tgi_needs_properties_at_the_top() -> None:
    """Its router says so with a 422."""
    assert [what[:15] for _, what in objections({"$ref": "#/$defs/a"}, BY_DIALECT["tgi"])] == ["no `properties`"]


@pytest.mark.parametrize("dialect", BY_DIALECT)
def test_each_dialect_sends_what_its_servers_take(dialect: str) -> None:
    """The request holds the portable part of the task's schema, and the answer's check the whole."""
    schema = of(x={"type": "string", "pattern": "a", "format": "uri", "allOf": [{}]}, y={"uniqueItems": True})
    settings = model_settings("http://localhost:1", dialect=dialect)
    frame = dialect_of(settings).frame("m", replace(ASK, schema=schema))
    sent = json.dumps(portable(schema, BY_DIALECT[dialect]), separators=(",", ":"))
    assert sent != json.dumps(schema, separators=(",", ":"))
    assert sent in frame.head.decode()

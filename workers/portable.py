"""What each kind of model server enforces of a JSON Schema, and the part of a schema that it is sent.

The tables are read from the servers' own sources and documents (`source`); keywords that they do not name are enforced.
Every answer is checked here again by the whole schema, whatever a server says.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

import orjson

Way = tuple[str | int, ...]
"""The way to a place in a schema: keys and list positions from the top."""

Verdict = Literal["ignored", "refused"]
"""`ignored`: taken and not enforced. `refused`: with it the whole request is a 400 or comes to nothing; not sent."""

_SCHEMA = (
    *("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Keywords that hold one schema, schemas by name, a list of schemas."""

ANNOTATIONS = frozenset({"default"})
"""Say nothing about an answer: nothing is lost when they are left out."""

_WORDS = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default", "deprecated"})
"""Say nothing about an answer either, and no server minds them."""

_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_CONDITIONS = frozenset({"not", "if", "then", "else", "dependentRequired", "dependentSchemas"})
_NAMES = frozenset({"patternProperties", "propertyNames"})
_COUNTS = frozenset({"minProperties", "maxProperties"})
_TYPES = ("object", "array", "string", "number", "boolean", "null")
_TELLING = frozenset(
    {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "pattern", "items", "prefixItems", "properties"}
)
_TELLING |= {"additionalProperties"}
_CONTAINS = frozenset({"contains", "minContains", "maxContains", "uniqueItems"})
_REST = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_FORMATS = frozenset({"date", "time", "date-time", "uuid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What one kind of server makes of a schema's keywords.

    `shadowed`: keywords that are ignored where one of the others stands beside them, and holds. `formats`: those that
    are enforced; `other_formats` says what becomes of the rest. `number_bounds`: what becomes of bounds on what may be
    no integer; `open_below_zero`: of those on integers, where the least is negative and there is no largest.
    `lone_all_of`: an `allOf` holds only if it has one schema and nothing stands beside it; else nothing of the whole
    place is enforced, and it is refused. `merged_all_of`: one holds only if each of its schemas has properties or an
    `enum`; else only `{}` may be answered, and it is refused. `patterns`: those that are enforced, the others are
    refused; None: all. `most_repeats`: a length or a number of items beyond is refused. `schema_booleans`: `items` may
    be true or false. `typed_only`: a schema that says nothing of a type is refused, an empty one is read as an object;
    they are sent with every type there is. `strict`: OpenAI's rules for whole objects. `needs_properties`: the top must
    have them.
    """

    source: str
    ignored: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    shadowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    formats: frozenset[str]
    other_formats: Verdict
    number_bounds: Verdict | None = None
    open_below_zero: Verdict | None = None
    lone_all_of: bool = False
    merged_all_of: bool = False
    patterns: re.Pattern[str] | None = None
    most_repeats: float = inf
    schema_booleans: bool = True
    typed_only: bool = False
    strict: bool = False
    needs_properties: bool = False


_ALTERNATIVES = frozenset({"$ref", "anyOf", "oneOf"})
_SHADOWED = frozenset(
    {"properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"}
)
_SHADOWED |= _BOUNDS | _COUNTS | _REST | {"minLength", "maxLength", "pattern", "format"}

_ALONE = _ALTERNATIVES | {"enum", "const"}

_GBNF_PATTERN = re.compile(
    r"""\^(?:
        (?: [^\\\[\](){}.*+?|^$"\x00-\x1f]
          | \)
          | \[ -?
              (?: [0-9]-[0-9] | [a-z]-[a-z] | [A-Z]-[A-Z] | [^\x00-\x7f]-[^\x00-\x7f] | [^\\\[\]"^\x00-\x1f-] )*
            -? \]
        ) (?: [*+?] | \{[0-9]{1,3}(?:,[0-9]{0,3})?\} )? (?![*+?{])
      | \\[.^$\[\](){}|*+?] (?![*+?{])
      | \((?!\?)
      | \|
    )*\$""",
    re.VERBOSE,
)
"""What llama.cpp's converter makes a grammar of that means the same. `\\d` and `(?:` are errors in one, `+?` is `*`
there, and what a dot or `[^a]` lets through may be a quotation mark, which ends the string."""

_LLAMACPP = Enforcement(
    source="ggml-org/llama.cpp, common/json-schema-to-grammar.cpp at 011c6c3 (2026), which refuses a pattern without"
    " `^` and `$`; llama-server 0.7.0 (build 11669), asked by tests/contract/test_enforced.py, ignores it",
    ignored=_CONDITIONS | _NAMES | _COUNTS | _CONTAINS | _REST | {"multipleOf"},
    shadowed={
        **dict.fromkeys(_SHADOWED, _ALONE),
        "minLength": _ALONE | {"pattern", "format"},
        "maxLength": _ALONE | {"pattern", "format"},
        "format": _ALONE | {"pattern"},
        "exclusiveMinimum": _ALONE | {"minimum"},
        "exclusiveMaximum": _ALONE | {"maximum"},
        "prefixItems": _ALONE | {"items"},
        "minItems": _ALONE | {"prefixItems"},
        "maxItems": _ALONE | {"prefixItems"},
        "allOf": _ALONE | {"properties"},
        "enum": _ALTERNATIVES | {"const"},
        "const": _ALTERNATIVES,
    },
    formats=_FORMATS,
    other_formats="ignored",
    number_bounds="ignored",
    merged_all_of=True,
    patterns=_GBNF_PATTERN,
    most_repeats=2_000,
    schema_booleans=False,
)

_OLLAMA = replace(
    _LLAMACPP,
    source="ollama/ollama v0.17.4, llama/sampling_ext.cpp: `format` goes through llama.cpp's converter at ec98e2002,"
    " asked by tests/contract/test_ollama_enforced.py. `(?:` in a pattern ends the whole server (SIGSEGV)",
    typed_only=True,
)

_VLLM = Enforcement(
    source="mlc-ai/xgrammar 0.2.1, cpp/json_schema_converter.cc, and vllm-project/vllm 0.22.1, v1/structured_output:"
    " backend_xgrammar.py refuses what xgrammar lacks; with backend `auto` the first schema after the start decides who"
    " enforces all that follow (__init__.py). Asked by tests/contract/test_vllm_enforced.py",
    ignored=_CONDITIONS,
    refused=_CONTAINS | _NAMES | {"multipleOf"},
    shadowed={
        **dict.fromkeys(_SHADOWED, _ALTERNATIVES),
        "minLength": _ALTERNATIVES | {"pattern", "format"},
        "maxLength": _ALTERNATIVES | {"pattern", "format"},
        "pattern": _ALTERNATIVES | {"format"},
    },
    # Taken, and wrong: a number with `minimum: 0` may not be 0.5, an integer with `minimum: -1` not -1.
    number_bounds="refused",
    open_below_zero="refused",
    lone_all_of=True,
    formats=_FORMATS
    | {"duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uri-template"}
    | {"json-pointer", "relative-json-pointer"},
    other_formats="refused",
)

BY_DIALECT: Mapping[str, Enforcement] = {
    "openai": Enforcement(
        source="OpenAI's guide to structured outputs, `Supported schemas`, October 2026; `'uniqueItems' is not"
        " permitted`, `'oneOf' is not permitted` and `'default' is not permitted` in its answers",
        refused=_CONDITIONS | _NAMES | _COUNTS | _CONTAINS | _REST | {"allOf", "prefixItems"} | ANNOTATIONS,
        formats=_FORMATS | {"duration", "email", "hostname", "ipv4", "ipv6"},
        other_formats="refused",
        strict=True,
    ),
    "vllm": _VLLM,
    "completions": _VLLM,
    "llamacpp": _LLAMACPP,
    "ollama": _OLLAMA,
    "tgi": Enforcement(
        source="huggingface/text-generation-inference, router/src/validation.rs, and dottxt-ai/outlines-core,"
        " src/json_schema/parsing.rs: a regular expression, for which `allOf` is one text after the other",
        ignored=_CONDITIONS | _NAMES | _COUNTS | _CONTAINS | _REST | _BOUNDS | {"multipleOf"},
        refused=frozenset({"allOf"}),
        shadowed={"pattern": frozenset({"minLength", "maxLength"})},
        formats=_FORMATS,
        other_formats="refused",
        needs_properties=True,
    ),
}
"""By the dialect's name in the configuration. Of a `custom` server nothing is known."""


def unenforced(schema: dict[str, Any], server: Enforcement) -> Iterator[tuple[Way, Verdict]]:
    """Yield the way to each keyword that the server does not enforce. What is inside such a one is not looked at."""
    for way, node in _nodes(schema, server):
        for keyword in node:
            if (verdict := _verdict(keyword, node, server)) is not None:
                yield (*way, keyword), verdict


def objections(schema: dict[str, Any], server: Enforcement) -> Iterator[tuple[Way, str]]:
    """Yield why the server would refuse the whole schema: the way to the place, and what to do."""
    if server.needs_properties and "properties" not in schema:
        yield (), "no `properties` at the top: name them there"
    if not server.strict:
        return
    for keyword in {"anyOf", "oneOf"} & schema.keys():
        yield (keyword,), f"`{keyword}` at the top: put it below a property"
    for way, node in _nodes(schema, server):
        names = node.get("properties")
        if not isinstance(names, dict) and "object" not in _types(node):
            continue
        if node.get("additionalProperties") is not False:
            yield way, "an object without `additionalProperties: false`: add it"
        for name in names or {}:
            if name not in node.get("required", ()):
                what = "a property that is not in `required`: add it there; its type can be a list with `null`"
                yield (*way, "properties", name), what


def portable(schema: dict[str, Any], server: Enforcement) -> dict[str, Any]:
    """Return the schema as it is sent: without what the server refuses. Whatever the rest allows is checked here.

    Where `oneOf` is refused, `anyOf` stands in its place, as other servers read it anyway.
    """
    refused = [way for way, verdict in unenforced(schema, server) if verdict == "refused"]
    if not (refused or server.strict or server.typed_only):
        return schema
    sent: dict[str, Any] = orjson.loads(orjson.dumps(schema))
    for way in refused:
        node: Any = sent
        for step in way[:-1]:
            node = node[step]
        del node[way[-1]]
    if server.typed_only:
        for _, node in list(_nodes(sent, server)):
            if not node.keys() & _TELLING:
                node["type"] = [*_TYPES]
    if server.strict:
        for _, node in list(_nodes(sent, server)):
            if "oneOf" in node:
                branches = node.pop("oneOf")
                node.setdefault("anyOf", branches)
    return sent


def _verdict(keyword: str, node: dict[str, Any], server: Enforcement) -> Verdict | None:
    if keyword in server.refused or _is_refused(keyword, node, server):
        return "refused"
    if keyword in server.ignored or _is_shadowed(keyword, node, server):
        return "ignored"
    if keyword == "format" and node[keyword] not in server.formats:
        return server.other_formats
    return _of_bounds(node, server) if keyword in _BOUNDS else None


def _is_refused(keyword: str, node: dict[str, Any], server: Enforcement) -> bool:
    """Whether the keyword is refused for its value, or for what stands beside it."""
    value = node[keyword]
    match keyword:
        case "allOf":
            return (server.lone_all_of and not _is_lone(node)) or (server.merged_all_of and not _is_merged(node))
        case "pattern":
            return server.patterns is not None and server.patterns.fullmatch(value) is None
        case "items":
            return isinstance(value, bool) and not server.schema_booleans
        case "minLength" | "maxLength" | "minItems" | "maxItems":
            return bool(value > server.most_repeats)
    return False


def _is_shadowed(keyword: str, node: dict[str, Any], server: Enforcement) -> bool:
    others = server.shadowed.get(keyword, frozenset())
    return any(_verdict(other, node, server) is None for other in others & node.keys())


def _is_lone(node: dict[str, Any]) -> bool:
    return len(node["allOf"]) == 1 and not node.keys() - {"allOf", "$defs", "definitions"} - _WORDS


def _is_merged(node: dict[str, Any]) -> bool:
    known = {"properties", "enum", "anyOf", "$ref"}
    whole = _types(node) in (set(), {"object"})
    return whole and all(isinstance(one, dict) and known & one.keys() for one in node["allOf"])


def _of_bounds(node: dict[str, Any], server: Enforcement) -> Verdict | None:
    if _types(node) != {"integer"}:
        return server.number_bounds
    least = max(node.get("minimum", -inf), node.get("exclusiveMinimum", -inf) + 1)
    is_open = not node.keys() & {"maximum", "exclusiveMaximum"}
    return server.open_below_zero if is_open and -inf < least < 0 else None


def _types(node: dict[str, Any]) -> set[str]:
    said = node.get("type")
    return {said} if isinstance(said, str) else set(said or ()) - {"null"}


def _nodes(schema: dict[str, Any], server: Enforcement) -> Iterator[tuple[Way, dict[str, Any]]]:
    """Yield the schema and those inside it, as far as the server looks at them, each with the way to it."""
    waiting: list[tuple[Way, Any]] = [((), schema)]
    while waiting:
        way, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield way, node
        for keyword, held in node.items():
            if _verdict(keyword, node, server) is not None:
                continue
            if keyword in _SCHEMA:
                waiting.append(((*way, keyword), held))
            elif keyword in _NAMED and isinstance(held, dict):
                waiting += [((*way, keyword, name), one) for name, one in held.items()]
            elif keyword in _LISTED and isinstance(held, list):
                waiting += [((*way, keyword, place), one) for place, one in enumerate(held)]

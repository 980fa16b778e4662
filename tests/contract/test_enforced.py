"""What a real llama-server enforces of a schema is what the table says, and dry-run sees that it enforces any."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.llama_server import LlamaServer
from tests.support.llm_settings import client_for
from tests.support.settings_files import SOUND, patient, write_sound
from workers.answers import compile_schema
from workers.cli.dry_run_models import model_findings
from workers.portable import BY_DIALECT, unenforced
from workers.ports import Ask
from workers.settings.source import load

MODEL = {"dialect": "llamacpp"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A real server with a random model, which breaks whatever is not enforced."""
    with LlamaServer(tmp_path_factory.mktemp("llama")) as running:
        yield running


# Schemas of one property. The random model writes small numbers, empty lists and long texts when nothing holds it.
SCHEMAS: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 100, "maximum": 120},
    {"type": "number", "minimum": 100},
    {"type": "integer", "exclusiveMinimum": 41},
    {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6},
    {"type": "string", "pattern": "^a{2,3}$"},
    {"type": "string", "pattern": "zq"},
    {"type": "string", "pattern": "^[a-z ]+$", "maxLength": 1},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "uniqueItems": True, "maxItems": 2},
    {"type": "array", "items": {"enum": [2]}, "maxItems": 2, "contains": {"const": 1}},
    {"enum": [17]},
    {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}]},
    {"type": "object", "properties": {"a": {"const": 1}}, "minProperties": 2},
    {"anyOf": [{"const": 3}, {"const": 4}], "not": {"enum": [3, 4]}},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
    {"type": "string", "pattern": "^\\d{4}$"},
    {"type": "string", "pattern": "^.{9}$"},
    {"type": "string", "format": "date", "maxLength": 9},
    {"type": "string", "format": "uri", "maxLength": 2},
    {"type": "string", "minLength": 2_001},
    {"anyOf": [{"type": "string"}], "maxLength": 1},
    {"type": "integer", "enum": [1, 2], "minimum": 3},
    {"type": "integer", "minimum": 1, "exclusiveMinimum": 41, "maximum": 50},
    {"type": "array", "prefixItems": [{"const": 1}], "minItems": 2, "maxItems": 2},
    {"allOf": [{"type": "string"}, {"maxLength": 0}]},
    {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
]


@pytest.mark.parametrize("inner", SCHEMAS, ids=",".join)
async def test_the_table_of_llama_cpp_is_right(inner: dict[str, Any], server: LlamaServer, tmp_path: Path) -> None:
    """What the table leaves to the server holds in the answer; what it calls ignored the random model breaks."""
    schema = {"type": "object", "properties": {"x": inner}, "required": ["x"], "additionalProperties": False}
    (tmp_path / "schema.json").write_bytes(orjson.dumps(schema))
    client = client_for(server.url, **MODEL)
    await client.start()
    try:
        reply = await client.probe(Ask(name="t", system="", schema=schema, max_tokens=400, temperature=0.0))
    finally:
        await client.close()
    # A text that nothing ends, 400 tokens long, breaks each of these schemas.
    cut = reply.finish_reason == "length"
    broken = cut or compile_schema(tmp_path / "schema.json").check(orjson.loads(reply.text)) is not None
    assert broken == bool(list(unenforced(schema, BY_DIALECT["llamacpp"]))), reply.text


async def test_dry_run_sees_that_it_enforces_the_schema(server: LlamaServer, tmp_path: Path) -> None:
    """Asked for prose, it answers by the schema; and it says how much it works on at a time."""
    text = patient(SOUND).replace("    url: http://localhost:8000\n", f"    url: {server.url}\n    dialect: llamacpp\n")
    settings = load(write_sound(tmp_path, text), {}).settings
    [one] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert "; enforces the answer schema: asked for prose, it answered by the schema" in one.what
    assert "it works on 2 requests at a time, fewer than max_in_flight 64" in one.what

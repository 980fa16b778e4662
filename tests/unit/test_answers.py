"""Compiling an answer schema: what is refused, and that nothing is fetched."""

import socket
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers.answers import SchemaInvalid, compile_schema


def write(path: Path, schema: Any) -> Path:
    """Write a schema and return its path."""
    path.write_bytes(orjson.dumps(schema))
    return path


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"type": "strin"}}}, "properties/a/type: 'strin' is none of what JSON Schema allows"),
        ({"minLength": -1}, "minLength: -1 is less than"),
        ({"$ref": "#/nowhere"}, "Pointer '/nowhere' does not exist"),
        ({"pattern": "(?=a)b"}, "pattern: not a regular expression of the linear-time engine"),
        ({"format": "nosuch"}, "Unknown format"),
        ({"$ref": "other.json"}, "other.json"),
        ({"$ref": "file:///etc/hostname"}, "Retrieval is disabled"),
        ([], "must be an object"),
        (True, "must be an object"),
    ],
)
def test_a_schema_that_cannot_work_is_refused(tmp_path: Path, schema: Any, words: str) -> None:
    """What is wrong with a schema is said in words, with the place in it."""
    with pytest.raises(SchemaInvalid) as caught:
        compile_schema(write(tmp_path / "a.json", schema))
    assert words in str(caught.value)
    assert "a.json" in str(caught.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    """A broken or missing file is named with the place."""
    (tmp_path / "a.json").write_text('{\n"a":,}')
    with pytest.raises(SchemaInvalid, match=r"a\.json\(2,5\) is not JSON"):
        compile_schema(tmp_path / "a.json")
    with pytest.raises(SchemaInvalid, match="cannot be read"):
        compile_schema(tmp_path / "b.json")


def test_remote_references_are_never_fetched(tmp_path: Path) -> None:
    """A reference to another host is an error and no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        with pytest.raises(SchemaInvalid, match="Retrieval is disabled"):
            compile_schema(write(tmp_path / "a.json", {"$ref": f"http://127.0.0.1:{port}/x.json"}))
        with pytest.raises(TimeoutError):
            server.accept()


def test_formats_are_enforced(tmp_path: Path) -> None:
    """`format` is a rule here and no remark."""
    check = compile_schema(write(tmp_path / "a.json", {"properties": {"day": {"format": "date"}}})).check
    assert check({"day": "2026-01-31"}) is None
    assert check({"day": "tomorrow"}) == 'day: the value is not a "date"'


def test_a_pattern_cannot_stall_the_worker(tmp_path: Path) -> None:
    """A pattern that takes exponential time elsewhere answers at once."""
    check = compile_schema(write(tmp_path / "a.json", {"pattern": "^(a+)+$"})).check
    assert check("a" * 65_536 + "!") == 'the answer: the value does not match "^(a+)+$"'


def test_version_follows_the_file(tmp_path: Path) -> None:
    """Another schema, another version."""
    first = compile_schema(write(tmp_path / "a.json", {"type": "object"}))
    assert first.schema == {"type": "object"}
    assert len(first.version) == 12
    assert compile_schema(write(tmp_path / "a.json", {"type": "array"})).version != first.version

"""Any bytes as a record's value: decoded or rejected, as Python's own JSON reader judges, and written back whole."""

import json
from typing import Any

import orjson

from tests.fuzz.shipped import shipped_task
from tests.support.wire import NOW_S, make_record, make_reply, make_task
from topics import enriched
from workers.errors import Reject
from workers.nesting import MAX_DEPTH
from workers.outcome import Enriched
from workers.records import Record, Request
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s5_route import route

TICKETS = shipped_task()
TEXT, SMALL = make_task(input_format="text"), make_task(max_input_bytes=64)
ANSWER = Enriched({"label": "é"}, make_reply())


def one_input(raw: bytes) -> None:
    """Decode `raw` for three tasks; what is accepted makes a sound prompt and an output that holds every byte of it."""
    record = make_record(value=raw, key=raw[:9] or None, headers=[("ce_x", raw[:40]), ("traceparent", raw[:55])])
    for task in (TEXT, SMALL):
        _decoded(record, task)
    request = _decoded(record, TICKETS)
    _agrees_with_python(raw, request)
    if request is None:
        return
    body = orjson.loads(build(request, TICKETS).body)
    assert [said["role"] for said in body["messages"]] == ["system", "user"]
    assert isinstance(body["messages"][1]["content"], str)
    [outgoing] = route(record, ANSWER, make_task(), {}, wall_s=lambda: NOW_S)
    assert outgoing.value is not None
    assert outgoing.value.startswith(b'{"input":' + raw + b',"enrichment":{"label":')
    assert enriched.decode(outgoing.value).input == raw


def _decoded(record: Record, task: Any) -> Request | None:
    value, request, refused = record.value, None, None
    try:
        request = decode(record, task)
    except Reject as error:
        refused = error
    assert record.value is value
    if refused is None:
        assert len(value or b"") <= task.settings.max_input_bytes
    else:
        assert (refused.stage, refused.retryable) == ("decode", False)
        assert len(str(refused)) < 200
    return request


def _agrees_with_python(raw: bytes, request: Request | None) -> None:
    """What one reader takes the other takes too, to the same value; NaN, infinity and half pairs are nobody's JSON."""
    if not raw or len(raw) > TICKETS.settings.max_input_bytes:
        return
    try:
        value = json.loads(
            raw.decode(),
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_refused,
            object_pairs_hook=_every_member,
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be written
    except (ValueError, RecursionError):  # Python gives up at a depth that is far beyond ours
        assert request is None, "only Python refuses it"
        return
    assert (request is not None) == (_depth(value) <= MAX_DEPTH), "the two readers disagree"
    if request is not None:
        assert request.value == _last_members(value)


class _Object(dict[int, Any]):
    """The members of an object by their place, so that duplicate keys are judged too: name, value, name, value."""


def _every_member(pairs: list[tuple[str, Any]]) -> _Object:
    return _Object(enumerate(one for pair in pairs for one in pair))


def _last_members(value: Any) -> Any:
    if isinstance(value, _Object):
        return {value[at]: _last_members(value[at + 1]) for at in range(0, len(value), 2)}
    return [_last_members(one) for one in value] if isinstance(value, list) else value


def _whole(digits: str) -> float | int:
    number = int(digits) if len(digits) < 40 else 1 << 130
    return number if -(2**63) <= number < 2**64 else _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(digits)
    return number


def _refused(name: str) -> float:
    raise ValueError(name)


def _depth(value: Any) -> int:
    """Count levels without recursion."""
    level, deepest = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        deepest += 1
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
    return deepest

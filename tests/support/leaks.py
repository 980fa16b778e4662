"""Looks for a canary in what came out of a worker, in every form in which a secret or a text travels."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.structs import ConsumerRecord

from workers.log.redact import _forms


def leaks(texts: Mapping[str, str | bytes], canaries: Iterable[str]) -> list[str]:
    """Return `<where>: <canary>` for each place that shows one: plain, in JSON, in a URL, in a repr, in base64."""
    forms = {canary: [form.encode("utf-8", "surrogatepass") for form in _forms(canary)] for canary in canaries}
    found = []
    for where, text in texts.items():
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        found += [f"{where}: {canary}" for canary, written in forms.items() if any(form in raw for form in written)]
    return found


def texts_of(name: str, records: Iterable[ConsumerRecord], *, headers_alone: bool = False) -> dict[str, bytes]:
    """Return what records hold, by a name for each place; `headers_alone`: of dead letters only what we added."""
    held: dict[str, bytes] = {}
    for record in records:
        at = f"{name}/{record.partition}/{record.offset}"
        added = [(key, value or b"") for key, value in record.headers if key.startswith("__penstock.")]
        every: list[tuple[str, Any]] = added if headers_alone else list(record.headers)
        held[f"{at} headers"] = b"\n".join(key.encode() + b"=" + (value or b"") for key, value in every)
        if not headers_alone:
            held[f"{at} value"] = (record.key or b"") + b"\n" + (record.value or b"")
    return held

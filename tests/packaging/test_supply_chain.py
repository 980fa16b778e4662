"""What is installed beside our own code: pinned, hashed, from no named host, under licences that may be shipped."""

import re
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {
    "requirements.lock": 20,
    "requirements-dev.lock": 40,
    "requirements-fuzz.lock": 1,
    "requirements-model-servers.lock": 100,
    "requirements-tokenizers.lock": 1,
}
"""Each lock, and at least how many requirements it has."""
PERMISSIVE = (
    "MIT",
    "BSD",
    "Apache",
    "ISC",
    "Python Software Foundation",
    "PSF",
    "Unlicense",
    "CC0-1.0",
    "Zlib",
    "0BSD",
    "Repoze",  # BSD-derived (venusian)
)
COPYLEFT = {
    "orjson": "MPL-2.0: a wheel of its own, installed unchanged beside us; its source is public",
    "pathspec": "MPL-2.0: of the build backend, used unchanged and not part of the wheel",
}
"""Under a licence that asks something of changed copies, and why that is met."""
NEVER = {"litellm", "httpx", "openai"}
"""A model's HTTP interface is small and ours; litellm's releases were once poisoned."""

_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[\w,-]+\])?==(?P<version>[^\s;\\]+)(?P<marker> ;[^\\]+)? \\$")


def pinned(lock: str) -> dict[str, str]:
    """Return name: version of a lock's requirements, each of which is pinned and hashed."""
    found: dict[str, str] = {}
    hashes = 0
    for line in (ROOT / lock).read_text().splitlines():
        if line.startswith("    --hash=sha256:"):
            hashes += 1
            continue
        if re.match(r"\s*#", line) or not line.strip():
            continue
        requirement = _REQUIREMENT.match(line)
        assert requirement, f"{lock}: not `name==version` with hashes: {line}"
        assert hashes or not found, f"{lock}: {list(found)[-1]} has no hash"
        found[requirement["name"].lower()] = requirement["version"]
        hashes = 0
    assert hashes
    return found


RUNTIME = pinned("requirements.lock")


@pytest.mark.parametrize(("lock", "at_least"), LOCKS.items())
def test_every_requirement_is_pinned_and_hashed_and_no_host_is_named(lock: str, at_least: int) -> None:
    """`pip install --require-hashes` takes the lock as it is, from whatever index a machine is told to use."""
    assert len(pinned(lock)) >= at_least
    text = (ROOT / lock).read_text()
    assert not re.search(r"https?://|^\s*--?(index|extra|find|trusted)|@ ", text, re.MULTILINE)


@pytest.mark.parametrize(
    "line", ["aiohttp>=3", "aiohttp==3", "git+https://example.invalid/x", "-i https://example.invalid"]
)
def test_a_requirement_that_is_not_pinned_and_hashed_is_found(line: str) -> None:
    """A range, a version without hashes, a URL and an index are none of what a lock may hold."""
    assert not _REQUIREMENT.match(line)


def test_both_locks_agree_and_pin_what_was_measured() -> None:
    """The tests run on the versions that are shipped; the three whose inner workings count are exact in pyproject."""
    everything = pinned("requirements-dev.lock")
    assert RUNTIME.items() <= everything.items()
    pyproject = (ROOT / "pyproject.toml").read_text()
    for name in ("faust-streaming", "aiokafka", "pybreaker"):
        assert re.search(rf'"{name}(\[[\w,]+\])?=={re.escape(RUNTIME[name])}"', pyproject), name
    major, minor, patch = map(int, RUNTIME["aiohttp"].split("."))
    assert (major, minor, patch) >= (3, 13, 4)  # CVE-2026-22815, CVE-2026-34516


def test_no_client_library_that_we_refuse_is_anywhere_in_the_tree() -> None:
    """Neither in a lock nor installed."""
    installed = {one.metadata["Name"].lower() for one in distributions()}
    assert not NEVER & (RUNTIME.keys() | pinned("requirements-dev.lock").keys() | installed)


def licence_of(one: Distribution) -> str:
    """Return what a distribution says of its licence: the expression (PEP 639), classifiers, or the old field."""
    told = one.metadata.get("License-Expression")
    classifiers = [line.split("::")[-1].strip() for line in one.metadata.get_all("Classifier", []) if "License" in line]
    named = [text for text in classifiers if text != "OSI Approved"]
    return told or ", ".join(named) or (one.metadata.get("License") or "").strip().split("\n")[0]


def _installed() -> dict[str, Distribution]:
    return {one.metadata["Name"].lower(): one for one in distributions() if one.metadata["Name"].lower() in RUNTIME}


def test_every_licence_may_be_shipped() -> None:
    """Runtime packages are permissive, or named with the reason why they are fine."""
    licences = {name: licence_of(one) for name, one in _installed().items()}
    assert len(licences) > 20
    unclear = {
        name: licence for name, licence in licences.items() if name not in COPYLEFT and not _is_permissive(licence)
    }
    assert not unclear
    assert {name for name, licence in licences.items() if re.search("GPL|MPL", licence)} == COPYLEFT.keys()


def _is_permissive(licence: str) -> bool:
    parts = re.split(r"\s+(?:AND|and)\s+|,\s*", licence.strip("()"))
    return bool(licence) and all(
        any(known.lower() in part.lower() for known in PERMISSIVE) and not re.search(r"GPL|MPL|Mozilla", part)
        for part in parts
    )


def test_the_licence_check_tells_them_apart() -> None:
    """Permissive, both of two, unknown and copyleft."""
    assert _is_permissive("MIT")
    assert _is_permissive("Apache-2.0 AND BSD-3-Clause")
    assert not _is_permissive("Apache-2.0 AND LGPL-2.1")
    assert not _is_permissive("GPL-3.0")
    assert not _is_permissive("")


def test_we_are_what_we_say() -> None:
    """Our own distribution has its licence too."""
    assert distribution("penstock").metadata["License-Expression"] == "Apache-2.0"

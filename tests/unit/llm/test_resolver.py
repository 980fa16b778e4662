"""What a host name may lead to: looked at where the connection is made (nothing here connects)."""

import pytest

from tests.support.scripted_resolver import ScriptedResolver
from workers.llm.resolver import CheckedResolver, ForbiddenAddress
from workers.llm.transport import target

FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1%2",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:102:304:0:0:5601:5601",  # Teredo: the client's address has its bits turned over
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
]
ALLOWED = ["127.0.0.1", "10.0.0.5", "100.64.0.7", "::1", "::", "fd00::5", "2a00::1", "64:ff9b::a00:5", "8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("others", [(), ("10.0.0.5",)])
async def test_a_name_that_leads_to_a_metadata_service_is_refused(address: str, others: tuple[str, ...]) -> None:
    """I11: alone or beside a good address, in any IPv6 dress."""
    with pytest.raises(ForbiddenAddress):
        await CheckedResolver(ScriptedResolver(*others, address)).resolve("llm.example.com", 80)


@pytest.mark.parametrize("address", ["not an address", ""])
async def test_what_cannot_be_read_is_refused(address: str) -> None:
    """What this check cannot judge is not connected to."""
    with pytest.raises(ForbiddenAddress):
        await CheckedResolver(ScriptedResolver(address)).resolve("llm.example.com", 80)


async def test_other_addresses_pass_unchanged() -> None:
    """Private ranges are where models are served; the inner resolver is closed with ours."""
    inner = ScriptedResolver(*ALLOWED)
    resolver = CheckedResolver(inner)
    found = await resolver.resolve("llm.example.com", 8000)
    assert [(each["host"], each["port"]) for each in found] == [(address, 8000) for address in ALLOWED]
    await resolver.close()
    assert inner.closed


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[64:ff9b::a9fe:a9fe]",
        "2852039166",
        "\uff11\uff16\uff19.254.169.254",
        "169\u3002254\u3002169.254",
    ],
)
def test_an_address_in_place_of_a_name_is_looked_at_as_well(host: str) -> None:
    """No resolver is asked about an address, however it is spelt: it is refused when the client is made."""
    with pytest.raises(ValueError, match="metadata"):
        target(f"http://{host}:80", "/v1/chat/completions")

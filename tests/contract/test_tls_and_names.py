"""E20-E22 and where connections may go: certificates, host names, and the addresses behind them."""

import asyncio
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support import fault_server as http
from tests.support.certificates import make_authority, serving
from tests.support.llm_settings import Serve, Start, ask
from tests.support.scripted_resolver import ScriptedResolver
from workers.errors import BreakerOpen, ConnectFailed, Misconfigured
from workers.llm import transport
from workers.settings.servers import ModelSettings

NAME = "http://llm.example.com:8000"
PATIENT = {"timeout_s": 20.0, "connect_timeout_s": 20.0}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that nobody trusts by default; its certificate's file."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.fault("E20")
@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        pytest.param({}, "self-signed certificate in certificate chain|unable to get local issuer", id="own ca"),
        pytest.param({"name": "DNS:other.example.com"}, "IP address mismatch", id="other name"),
        pytest.param({"days": -1}, "certificate has expired", id="expired"),
    ],
)
async def test_a_bad_certificate_is_refused_and_the_breaker_opens(
    serve: Serve, start: Start, authority: Path, *, certificate: dict[str, Any], why: str
) -> None:
    """Nothing is sent to a server that cannot prove its name; the error says what is wrong with the certificate."""
    server = await serve(tls=serving(authority.parent, **certificate))
    ca_file = {"ca_file": str(authority)} if certificate else {}
    client = await start(server.url, **ca_file, **PATIENT, breaker={"connect_failures": 1, "reset_timeout_s": 60})
    with pytest.raises(ConnectFailed, match=f"certificate of {server.url} refused: .*({why})"):
        await ask(client)
    with pytest.raises(BreakerOpen, match="certificate"):
        await ask(client)
    assert server.requests == []


@pytest.mark.fault("E20")
async def test_ca_file_is_how_an_authority_of_ones_own_is_trusted(serve: Serve, start: Start, authority: Path) -> None:
    """The same certificate passes with the authority in `ca_file`, by address and by name."""
    server = await serve(tls=serving(authority.parent))
    assert (await ask(await start(server.url, ca_file=str(authority), **PATIENT))).text == "ok"
    named = await serve(tls=serving(authority.parent, name="DNS:llm.example.com"))
    resolver = ScriptedResolver("127.0.0.1", port=named.port)
    client = await start("https://llm.example.com", ca_file=str(authority), resolver=resolver, **PATIENT)
    assert (await ask(client)).text == "ok"


@pytest.mark.fault("E20")
async def test_plain_http_on_a_tls_port_is_refused(start: Start) -> None:
    """A server that answers the handshake in plain text: the error asks whether it speaks https."""
    plain = await asyncio.start_server(_plain_answer, "127.0.0.1", 0)
    async with plain:
        client = await start(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}", **PATIENT)
        with pytest.raises(ConnectFailed, match="does it speak https"):
            await ask(client)


async def _plain_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


@pytest.mark.fault("E20")
def test_no_setting_turns_the_checks_off(authority: Path) -> None:
    """Of all settings of a model only `ca_file` is about TLS, and it says whom to trust, not whether to check."""
    names = set(re.findall(r'"(\w+)": ?{', str(ModelSettings.model_json_schema()).replace("'", '"')))
    assert "ca_file" in names
    assert [name for name in names if re.search("verif|insecure|ssl|tls|cert|host|trust|check|proxy", name)] == []
    for ca_file in (None, str(authority)):
        settings = ModelSettings.model_validate({"model": "tiny", "url": "https://llm", "ca_file": ca_file})
        context = transport.tls_of(settings)
        if isinstance(context, ssl.SSLContext):
            assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
            assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        else:
            assert context is True  # aiohttp's default context, which checks the same


@pytest.mark.fault("E21")
async def test_a_handshake_that_hangs_is_no_connection(serve: Serve, start: Start) -> None:
    """A server that never answers the handshake costs `connect_timeout_s`, and then the next endpoint is asked."""
    silent, good = await serve(), await serve()
    https = silent.url.replace("http:", "https:")
    with pytest.raises(ConnectFailed, match=r"in 0\.3 s"):
        await ask(await start(https, timeout_s=20.0, connect_timeout_s=0.3))
    both = await start(https, good.url, timeout_s=20.0, connect_timeout_s=1.5, max_attempts=2)  # the good one's, too
    assert (await ask(both)).text == "ok"


@pytest.mark.fault("E22")
async def test_a_name_that_does_not_resolve_is_a_refused_connection(serve: Serve, start: Start) -> None:
    """The error names the host; it is asked again as a refused connection is, and another endpoint answers at once."""
    good = await serve()
    resolver = ScriptedResolver(error=OSError(-2, "Name or service not known"))
    client = await start(NAME, resolver=resolver, breaker={"connect_failures": 2, "reset_timeout_s": 60})
    for _ in range(2):
        with pytest.raises(ConnectFailed, match=r"host name of http://llm\.example\.com:8000 cannot be resolved"):
            await ask(client)
    with pytest.raises(BreakerOpen):
        await ask(client)
    assert resolver.asked == 2
    both = await start(NAME, good.url, resolver=ScriptedResolver(error=OSError("gone")), max_attempts=2)
    assert (await ask(both)).text == "ok"


@pytest.mark.fault("E22")
async def test_a_service_that_moved_is_found_again(serve: Serve, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is kept for `DNS_TTL_S`, 30 s at most; then the name is resolved again. Here it is kept for less."""
    assert 0 < transport.DNS_TTL_S <= 30
    monkeypatch.setattr(transport, "DNS_TTL_S", 0.2)
    old, new = await serve(default=_closing_answer()), await serve()
    resolver = ScriptedResolver("127.0.0.1", port=old.port)
    client = await start(NAME, resolver=resolver)
    assert (await ask(client)).text == "ok"
    resolver.port = new.port
    async with asyncio.timeout(9):  # aiohttp's own default is 10 s
        while not new.requests:
            await ask(client)
    assert resolver.asked >= 2


def _closing_answer() -> Any:
    """Return an answer that ends its connection: the next request needs a new one."""
    body = http.json.dumps(http.completion()).encode()
    return http.raw(http.http(200, body, "Connection: close"))


@pytest.mark.fault("E22")
async def test_a_name_that_leads_to_a_forbidden_address_is_a_fault_of_configuration(start: Start) -> None:
    """I11: asked once, held with the reason, never tried again and again. What is forbidden: test_resolver.py.

    The address here is one that cannot be read, so that nothing could be dialled if the check were broken.
    """
    resolver = ScriptedResolver("no address")
    client = await start(NAME, resolver=resolver, max_attempts=3, breaker={"reset_timeout_s": 60})
    for _ in range(3):
        with pytest.raises(Misconfigured, match="metadata address: not asked"):
            await ask(client)
    assert resolver.asked == 1
    assert "llm.example.com" in (client.held_reason() or "")


@pytest.mark.fault("E19")
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_reaches_nobody(serve: Serve, start: Start, code: int) -> None:
    """I11: no connection is made to where a server points, with or without the record; a person must act."""
    elsewhere = await serve()
    server = await serve(default=http.status(code, {}, f"Location: {elsewhere.url}/v1/chat/completions"))
    client = await start(server.url, max_attempts=3, breaker={"reset_timeout_s": 60})
    for _ in range(3):
        with pytest.raises(Misconfigured, match=f"{code} .*redirects are not followed"):
            await ask(client)
    assert len(server.requests) == 1
    assert elsewhere.connections == 0

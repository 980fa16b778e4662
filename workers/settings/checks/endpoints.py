"""Model servers: URLs that say where, and nothing else; tasks that name a model."""

import ipaddress
import socket
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from workers.settings import tree
from workers.settings.problems import Problem, did_you_mean, shown
from workers.settings.rungs import ModelRung
from workers.settings.servers import ModelSettings
from workers.settings.source import Loaded

# Cloud metadata services hand out credentials to whoever asks; nobody serves a model there. A host *name* may still
# resolve to one of these: the client's resolver looks at the address when it connects.
_FORBIDDEN = [ipaddress.ip_network(net) for net in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")]
# IPv6 networks whose addresses end in an IPv4 address that a translator or the kernel may deliver to: IPv4-compatible
# (RFC 4291, 2.5.5.1), IPv4-translated (RFC 2765), NAT64 with the well-known and the local prefix (RFC 6052, RFC 8215).
_WITH_IPV4_AT_END = [
    ipaddress.IPv6Network(net) for net in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
]
_FORBIDDEN_NAMES = {"metadata", "metadata.google.internal", "instance-data"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the models, and with the tasks' references to them."""
    models = loaded.settings.models
    for name, model in models.items():
        yield from _urls(loaded, name, model)
    for name, task in loaded.settings.tasks.items():
        at: tree.Path = ("tasks", name)
        named = [((*at, "model"), task.model)]
        named += [
            ((*at, "ladder", place, "model"), rung.model)
            for place, rung in enumerate(task.ladder)
            if isinstance(rung, ModelRung)
        ]
        named += [((*at, "routes", place, "model"), route.model) for place, route in enumerate(task.routes)]
        for way, model_name in named:
            if model_name not in models:
                yield loaded.problem(way, f"no model is called {shown(model_name)}{did_you_mean(model_name, models)}")


def _urls(loaded: Loaded, name: str, model: ModelSettings) -> Iterator[Problem]:
    for place, endpoint in enumerate(model.all_endpoints()):
        at = ("models", name, "url") if model.url is not None else ("models", name, "endpoints", place, "url")
        if what := url_fault(endpoint.url):
            yield loaded.problem(at, what)
        elif model.custom and endpoint.url.rstrip("/").endswith("/v1"):
            yield loaded.problem(at, "a root ends before `/v1`: write that at the beginning of `custom.path`")
        elif model.api_key and _is_exposed(urlsplit(endpoint.url)):
            yield loaded.problem(at, "the API key would cross the network in clear: use https", severity="warning")


def url_fault(url: str) -> str | None:
    """Return why a model server cannot be asked at `url`, without repeating what may be a password in it."""
    if not url.isprintable() or " " in url:
        return "a URL has no spaces"
    try:
        parts = urlsplit(url)
        port_is_wrong = parts.port == 0
    except ValueError:
        return "not a URL: write http://host:port or https://host:port"
    faults = [
        ("@" in parts.netloc, "no user name or password in a URL: it would be logged; use `api_key`"),
        (parts.scheme not in ("http", "https"), "a URL begins with http:// or https://"),
        (not parts.hostname or port_is_wrong, "not a URL: write http://host:port or https://host:port"),
        ("?" in url or "#" in url, "a URL ends with its path: no `?` and no `#`"),
    ]
    for is_so, what in faults:
        if is_so:
            return what
    return _host_fault(str(parts.hostname))


def _host_fault(host: str) -> str | None:
    if _is_forbidden_host(host):
        return f"{shown(host)} is a link-local or cloud metadata address: never a model server"
    if not host.isascii():  # digits of other scripts become an address only in the client, past this check
        return f"the host {shown(host)} is not ASCII: write its xn-- form"
    if host.replace(".", "").isdigit() and not _is_dotted_quad(host):
        return f"{shown(host)} is no IPv4 address in full: write all four numbers, such as 127.0.0.1"
    return None


def _is_dotted_quad(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def literal_address(host: str) -> Address | None:
    """Return the address that `host` spells out, in any way that a resolver takes (`127.1`, `0x7f000001`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def is_forbidden_address(address: Address) -> bool:
    """Return whether an address is link-local or a metadata service's, also inside an IPv6 form of it."""
    inner: list[Address | None] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner += [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(address in net for net in _WITH_IPV4_AT_END):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return any(each in net for each in inner if each is not None for net in _FORBIDDEN if net.version == each.version)


def _is_forbidden_host(host: str) -> bool:
    address = literal_address(host)
    return host.rstrip(".").lower() in _FORBIDDEN_NAMES or (address is not None and is_forbidden_address(address))


def _is_exposed(parts: SplitResult) -> bool:
    address = literal_address(parts.hostname or "")
    is_local = parts.hostname == "localhost" or (address is not None and address.is_loopback)
    return parts.scheme == "http" and not is_local

"""`http-get`: reads a page of one of the hosts that were allowed.

The model chooses the address, so nothing about it is trusted: the host must be on the list, what its name resolves to must be a public
address, the connection goes to just the address that was looked at (a name that resolves otherwise a moment later does not matter), and
each redirect is held to the same.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from foreword.agent.detached import Detached
from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, Tool

MOST_REDIRECTS = 5
MOST_ADDRESS = 2_000
"""Characters of an address."""
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_TEXTUAL = re.compile(r"(text/.*|application/(.*\+)?(json|xml|yaml)|application/(javascript|x-ndjson|toml|rtf))")
_HOST = re.compile(r"(\*\.)?[a-z0-9._-]+(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    hosts: frozenset[str]
    schemes: tuple[str, ...]
    allow_private: bool
    seconds: float
    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """An address that was looked at and found allowed."""

    scheme: str
    host: str
    port: int
    target: str


@dataclass(slots=True)
class _UnderWay:
    """The connection of a call, so that one whose caller is gone can be closed from outside."""

    stopped: bool = False
    sock: socket.socket | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, sock: socket.socket) -> None:
        with self.lock:
            self.sock = sock
            if self.stopped:
                raise TimeoutError

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            if self.sock is not None:
                with suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)


def make(
    *,
    hosts: Sequence[str] | str,
    allow_http: bool = False,
    allow_private: bool = False,
    seconds: float = 10.0,
    most_bytes: int = 1_000_000,
    most_characters: int = MOST_CHARACTERS,
    name: str = "http-get",
) -> Tool:
    """The tool.

    Args:
        hosts: names that may be read: `example.org`, `*.example.org` for all below it, `example.org:8443` where the port is another one.
        allow_http: addresses without TLS too.
        allow_private: hosts whose addresses are not public: this machine, the local network, a cloud's metadata service.
        seconds: for all redirects together.
        most_bytes: that are read of a page.

    Raises:
        ConfigError: no host is given, or one cannot be read.
    """
    listed = [host.strip().lower() for host in ([hosts] if isinstance(hosts, str) else hosts)]
    wrong = [host for host in listed if not _HOST.fullmatch(host)]
    if not listed or wrong:
        raise ConfigError(f"`hosts` must name hosts, such as `example.org` or `*.example.org`; got {', '.join(wrong) or 'none'}.")
    rules = _Rules(
        hosts=frozenset(listed),
        schemes=("https", "http") if allow_http else ("https",),
        allow_private=allow_private,
        seconds=seconds,
        most_bytes=most_bytes,
    )
    threads = Detached(name)

    async def call(arguments: Mapping[str, Any]) -> str:
        address = arguments.get("url")
        if not isinstance(address, str) or set(arguments) != {"url"}:
            raise ToolError(f'`{name}` takes one argument, a text: {{"url": "https://{listed[0].removeprefix("*.")}/"}}.')
        under_way = _UnderWay()
        try:
            return await threads.call(_read, address, rules, under_way)
        finally:
            under_way.stop()

    return Tool(
        name=name,
        description=f"Reads a web page or a file of text by its address. Hosts: {', '.join(listed)}.",
        parameters={
            "type": "object",
            "properties": {"url": {"type": "string", "description": f"Begins with {' or '.join(f'{one}://' for one in rules.schemes)}"}},
            "required": ["url"],
            "additionalProperties": False,
        },
        call=call,
        seconds=seconds + 1,
        most_characters=most_characters,
    )


def _read(address: str, rules: _Rules, under_way: _UnderWay) -> str:
    """The text behind an address. Raises `ToolError`."""
    deadline = time.monotonic() + rules.seconds
    try:
        for _ in range(MOST_REDIRECTS + 1):
            place = _checked(address, rules)
            found = _asked(place, rules, deadline, under_way)
            if isinstance(found, str):
                return found
            address = urljoin(f"{place.scheme}://{_authority(place)}{place.target}", found[0])
    except TimeoutError:
        raise ToolError(f"`{address[:200]}` took longer than {rules.seconds:g} seconds.") from None
    except ssl.SSLError as error:
        raise ToolError(f"`{address[:200]}` cannot be read: its TLS is not right ({error.reason or error}).") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ToolError(f"`{address[:200]}` cannot be read: {type(error).__name__}: {str(error)[:200]}") from None
    raise ToolError(f"There were more than {MOST_REDIRECTS} redirects, the last one to `{address[:200]}`.")


def _checked(address: str, rules: _Rules) -> _Place:
    """The place that an address means, if it is allowed."""
    if len(address) > MOST_ADDRESS or any(ord(character) <= 32 or character in "\\\x7f" for character in address):
        raise ToolError(f"`{address[:200]}` is no address: it has spaces or is longer than {MOST_ADDRESS:,} characters.")
    try:
        parts = urlsplit(address)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii").lower().rstrip(".")
    except (ValueError, UnicodeError):
        raise ToolError(f"`{address[:200]}` is no address.") from None
    if parts.scheme not in rules.schemes:
        raise ToolError(f"`{address[:200]}` cannot be read: only {' and '.join(rules.schemes)} addresses can be.")
    if parts.username is not None or parts.password is not None:
        raise ToolError(f"An address here has no user and no password: write https://{host}/.")
    port = port or _PORTS[parts.scheme]
    if not _is_listed(host, port, parts.scheme, rules.hosts):
        raise ToolError(f"`{host[:200]}` (port {port}) is not on the list of hosts that may be read: {', '.join(sorted(rules.hosts))}.")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    )
    return _Place(scheme=parts.scheme, host=host, port=port, target=target)


def _is_listed(host: str, port: int, scheme: str, hosts: frozenset[str]) -> bool:
    shown = f"[{host}]" if ":" in host else host
    parents = [f"*.{shown.split('.', start)[-1]}" for start in range(1, shown.count(".") + 1)]
    names = [shown, *parents]
    with_port = {f"{name}:{port}" for name in names}
    return bool(with_port & hosts) or (port == _PORTS[scheme] and bool(set(names) & hosts))


def _asked(place: _Place, rules: _Rules, deadline: float, under_way: _UnderWay) -> str | tuple[str]:
    """The text of a page, or where it redirects to."""
    sock = _connected(place, rules, deadline, under_way)
    connection = http.client.HTTPConnection(place.host, place.port)
    connection.sock = sock
    try:
        headers = {"Host": _authority(place), "User-Agent": "foreword", "Accept": "text/*, application/json", "Accept-Encoding": "identity"}
        connection.request("GET", place.target, headers={**headers, "Connection": "close"})
        sock.settimeout(_left(deadline))
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and (location := response.getheader("Location")):
                return (location,)
            _check_kind(response)
            body, is_cut = _body(response, sock, rules.most_bytes, deadline)
            text = body.decode(_charset(response), "replace")
            if response.status >= 400:
                raise ToolError(f"The server answered {response.status} {response.reason}: {text[:500]}")
            return f"{text}\n[cut: only the first {rules.most_bytes:,} bytes are read]" if is_cut else text or "(the page is empty)"
    finally:
        connection.close()


def _connected(place: _Place, rules: _Rules, deadline: float, under_way: _UnderWay) -> socket.socket:
    """A connection to an address of the host's that was looked at."""
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    if not rules.allow_private:
        for *_, address in found:
            if not _is_public(str(address[0])):
                raise ToolError(f"`{place.host}` resolves to an address that is not public, and may not be read.")
    error: OSError = OSError("the name resolves to no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            under_way.hold(sock)
            sock.settimeout(_left(deadline))
            sock.connect(address)
            if place.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=place.host)
                under_way.hold(sock)
            return sock
        except TimeoutError:
            sock.close()
            raise
        except OSError as failed:
            sock.close()
            error = failed
    raise error


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        # An address of the old kind within one of the new kind is judged as what it is.
        teredo = found.teredo[1] if found.teredo else None
        inner = found.ipv4_mapped or found.sixtofour or teredo
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast and not found.is_reserved


def _check_kind(response: http.client.HTTPResponse) -> None:
    kind = response.getheader("Content-Type", "text/plain").partition(";")[0].strip().lower()
    if not _TEXTUAL.fullmatch(kind):
        raise ToolError(f"That is no text: the server says it is `{kind[:80]}`.")
    encoding = response.getheader("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise ToolError(f"The server sent it packed (`{encoding[:40]}`), although that was not asked for.")


def _body(response: http.client.HTTPResponse, sock: socket.socket, most: int, deadline: float) -> tuple[bytes, bool]:
    body = bytearray()
    while len(body) <= most:
        left = _left(deadline)
        with suppress(OSError):  # a response that is read to its end has closed its socket
            sock.settimeout(left)
        piece = response.read1(min(65_536, most + 1 - len(body)))
        if not piece:
            return bytes(body), False
        body += piece
    return bytes(body[:most]), True


def _charset(response: http.client.HTTPResponse) -> str:
    found = response.headers.get_content_charset() or "utf-8"
    try:
        "".encode(found)
    except (LookupError, UnicodeError):
        return "utf-8"
    return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _authority(place: _Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    return host if place.port == _PORTS[place.scheme] else f"{host}:{place.port}"

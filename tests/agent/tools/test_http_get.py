"""Pages of a real server on a socket of this machine, and the addresses that must never be read."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from foreword.agent.tools import http_get
from foreword.agent.tools.http_get import _is_public
from foreword.errors import ConfigError
from foreword.prompting.tool import Observation, Tools


class Pages(BaseHTTPRequestHandler):
    """Answers by the path."""

    protocol_version = "HTTP/1.1"
    released = threading.Event()
    seen: ClassVar[list[str]] = []

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        Pages.seen.append(self.path)
        path = self.path.partition("?")[0]
        getattr(self, f"page_{path.strip('/').replace('/', '_') or 'start'}", self.page_missing)()

    def give(self, body: bytes, kind: str = "text/plain; charset=utf-8", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page_start(self) -> None:
        self.give(f"tea at {self.headers['Host']}, {self.headers['Accept-Encoding']}, {self.path}".encode())

    def page_missing(self) -> None:
        self.give(b"no such tea", status=404)

    def page_latin(self) -> None:
        self.give("thé".encode("latin-1"), "text/plain; charset=latin-1")

    def page_strange(self) -> None:
        self.give(b"tea", "text/plain; charset=klingon")

    def page_json(self) -> None:
        self.give(b'{"tea": 1}', "application/vnd.tea+json")

    def page_image(self) -> None:
        self.give(b"\x89PNG", "image/png")

    def page_packed(self) -> None:
        self.give(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")

    def page_empty(self) -> None:
        self.give(b"")

    def page_large(self) -> None:
        self.give(b"x" * 5_000_000)

    def page_round(self) -> None:
        self.give(b"", status=302, Location="/round")

    def page_moved(self) -> None:
        self.give(b"", status=301, Location="/json")

    def page_away(self) -> None:
        self.give(b"", status=302, Location=f"http://127.0.0.2:{self.server.server_address[1]}/")  # type: ignore[attr-defined]

    def page_secret(self) -> None:
        self.give(b"", status=302, Location="http://169.254.169.254/latest/meta-data/")

    def page_file(self) -> None:
        self.give(b"", status=302, Location="file:///etc/passwd")

    def page_hang(self) -> None:
        Pages.released.wait(30)

    def page_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        while not Pages.released.wait(0.02):
            self.wfile.write(b".")

    def page_broken(self) -> None:
        self.wfile.write(b"tea tea tea\r\n\r\n")
        self.close_connection = True

    def page_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"cut off")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Does not write of clients that went away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is meant to."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    Pages.released.clear()
    server = Server(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1]
    Pages.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def called(url: Any, **settings: Any) -> Observation:
    return asyncio.run(Tools.of([http_get.make(**settings)]).call("http-get", {"url": url}))


def read(port: int, path: str = "/", **settings: Any) -> Observation:
    return called(
        f"http://127.0.0.1:{port}{path}", **{"hosts": [f"127.0.0.1:{port}"], "allow_http": True, "allow_private": True, **settings}
    )


def test_a_page_is_read(port: int) -> None:
    assert read(port, "/?q=green tea".replace(" ", "%20")) == Observation(text=f"tea at 127.0.0.1:{port}, identity, /?q=green%20tea")
    assert read(port, "/latin").text == "thé"
    assert read(port, "/strange").text == "tea"
    assert read(port, "/json").text == '{"tea": 1}'
    assert read(port, "/empty").text == "(the page is empty)"


def test_what_is_beyond_ascii_is_quoted(port: int) -> None:
    assert read(port, "/?q=thé").text.endswith("/?q=th%C3%A9")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nothing", "answered 404 Not Found: no such tea"),
        ("/image", "is `image/png`"),
        ("/packed", "packed (`gzip`)"),
        ("/broken", "BadStatusLine"),
        ("/round", "more than 5 redirects"),
        ("/away", "`127.0.0.2` (port"),
        ("/secret", "`169.254.169.254` (port 80) is not on the list"),
        ("/file", "only https and http addresses"),
    ],
)
def test_what_cannot_be_read_is_told(port: int, path: str, said: str) -> None:
    found = read(port, path)
    assert not found.ok
    assert said in found.text


def test_a_redirect_within_the_list_is_followed(port: int) -> None:
    assert read(port, "/moved").text == '{"tea": 1}'


def test_a_page_that_ends_early_is_told_or_given(port: int) -> None:
    assert "cut off" in read(port, "/short").text or not read(port, "/short").ok


def test_a_large_page_is_cut(port: int) -> None:
    found = read(port, "/large", most_bytes=1_000)
    assert found.text == "x" * 1_000 + "\n[cut: only the first 1,000 bytes are read]"
    assert len(read(port, "/large", most_characters=100).text) < 200


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_a_server_that_takes_its_time_is_given_up(port: int, path: str) -> None:
    found = read(port, path, seconds=0.2)
    assert not found.ok
    assert "longer than 0.2 seconds" in found.text


def test_a_private_address_is_refused_even_on_the_list(port: int) -> None:
    before = len(Pages.seen)
    for host in ("127.0.0.1", "localhost"):
        found = called(f"http://{host}:{port}/", hosts=[f"{host}:{port}"], allow_http=True)
        assert not found.ok
        assert "not public" in found.text
    assert len(Pages.seen) == before


PRIVATE = [
    *(
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
    ),
    *(
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
    ),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address: str) -> None:
    assert not _is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_public_addresses_are_known(address: str) -> None:
    assert _is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("https://example.com/", "https://example.org.evil.com/", "https://evil.com/example.org", "https://evil.com#example.org"),
        *(
            "https://example.org@evil.com/",
            "https://evilexample.org/",
            "https://example.org:8443/",
            "http://example.org/",
            "//example.org/",
        ),
        *(
            "file:///etc/passwd",
            "ftp://example.org/",
            "gopher://example.org/",
            "example.org",
            "",
            "https://",
            "https:///x",
            "https://sub.org/",
        ),
        *(
            "https://example.org\\@evil.com/",
            "https://example.org\r\nHost: evil.com/",
            "https://example.org/ x",
            "https://example.org:99999/",
        ),
        *(
            "https://user:secret@example.org/",
            "https://[::1]/",
            "https://[::1",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://" + "a" * 3_000,
        ),
        *("https://a..b/", "https://xn--\ud800/", "https://evil.com?x=.sub.org", "https://" + "a" * 64 + ".org/"),
    ],
)
def test_no_other_host_is_asked(url: str) -> None:
    found = called(url, hosts=["example.org", "*.sub.org"])
    assert not found.ok
    assert "list" in found.text or "address" in found.text


@pytest.mark.parametrize("url", ["https://example.invalid/", "https://EXAMPLE.invalid./x", "https://deep.down.sub.invalid/"])
def test_hosts_on_the_list_are_asked(url: str) -> None:
    found = called(url, hosts=["example.invalid", "*.sub.invalid"])
    assert not found.ok
    assert "cannot be read" in found.text  # the name resolves to nothing


def test_a_server_without_tls_is_told(port: int) -> None:
    found = called(f"https://127.0.0.1:{port}/", hosts=[f"127.0.0.1:{port}"], allow_private=True)
    assert not found.ok
    assert "TLS is not right" in found.text


def test_a_port_that_nobody_listens_on_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = read(port)
    assert not found.ok
    assert "ConnectionRefusedError" in found.text


def test_a_caller_that_is_gone_closes_the_connection(port: int) -> None:
    async def run() -> None:
        made = http_get.make(hosts=[f"127.0.0.1:{port}"], allow_http=True, allow_private=True, seconds=60)
        under_way = asyncio.ensure_future(Tools.of([made]).call("http-get", {"url": f"http://127.0.0.1:{port}/hang"}))
        await asyncio.sleep(0.2)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        for _ in range(1_000):
            if not any(thread.name == "foreword-tool-http-get" for thread in threading.enumerate()):
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the thread is still reading")

    asyncio.run(run())


@pytest.mark.parametrize("hosts", [[], ["https://example.org"], ["example.org/tea"], ["*"], [""], ["exa mple.org"]])
def test_hosts_that_are_none_are_refused(hosts: list[str]) -> None:
    with pytest.raises(ConfigError, match="`hosts` must name hosts"):
        http_get.make(hosts=hosts)


@pytest.mark.parametrize("url", [None, 3, ["https://example.org"]])
def test_other_arguments_are_refused(url: Any) -> None:
    assert not called(url, hosts="example.org").ok

"""A real server on a real socket with the echo engine, in a thread of its own. Axes of its prefixes: L layer, H head, N position, D dim."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch
from starlette.applications import Starlette

from foreword.engines.echo import EchoServing, load
from foreword.gateway.app import build
from foreword.gateway.server import Stop, serve
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry
from foreword.prefix.store import PrefixStore

PATIENCE = 30.0
"""Seconds after which a test gives up waiting; a busy machine may take long."""
FINGERPRINT = Fingerprint(architecture="LlamaForCausalLM", config="0" * 64, weights="1" * 64, tokenizer="2" * 64, chat_template="3" * 64)
GEOMETRY = Geometry(layers=1, kv_heads=1, head_dim=4, rotary=())


def make_prefix(name: str, *, positions: int = 3) -> Prefix:
    """A small prefix that a store takes."""
    key_LHND = torch.full((1, 1, positions, 4), 0.5)
    return Prefix.make(
        name=name,
        kind="composed" if "+" in name else "learned",
        key_LHND=key_LHND,
        value_LHND=key_LHND,
        fingerprint=FINGERPRINT,
        geometry=GEOMETRY,
        prompt_format="full",
    )


def eventually(true: Callable[[], bool]) -> None:
    """Waits until something holds."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.005)


@dataclass(kw_only=True)
class Running:
    """A server at work.

    Attributes:
        key: what the client fixtures send.
    """

    app: Starlette
    engine: EchoServing
    store: PrefixStore
    url: str = ""
    errors: list[BaseException] = field(default_factory=list)
    _stop: Callable[[], None] = lambda: None
    _thread: threading.Thread | None = None

    def start(self, **options: Any) -> None:
        """Serves in a thread until `stop`."""
        listens = threading.Event()

        def ready(url: str) -> None:
            self.url = url
            listens.set()

        async def main() -> None:
            stop, loop = Stop(), asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(stop)
            await serve(self.app, **{"host": "127.0.0.1", "port": 0, "drain_seconds": 0.0, **options}, ready=ready, stop=stop)

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                self.errors.append(error)
            finally:
                listens.set()

        self._thread = threading.Thread(target=run, name="test-server", daemon=True)
        self._thread.start()
        assert listens.wait(PATIENCE)
        assert not self.errors, self.errors

    def ask_to_stop(self) -> None:
        """What SIGTERM does."""
        self._stop()

    def stop(self) -> None:
        """Stops, and waits for the end."""
        if self._thread is not None and self._thread.is_alive():
            self._stop()
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
        self.engine.close()
        assert not self.errors, self.errors

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": PATIENCE, **options})

    def http(self, key: str | None = None) -> httpx2.Client:
        """A plain HTTP client."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)


Start = Callable[..., Running]


def make_store(root: Path) -> PrefixStore:
    """A store with `support` (two versions, `prod` is the first), `anna` and `ben`."""
    store = PrefixStore(root)
    for name, positions in (("support", 3), ("support", 5), ("anna", 2), ("ben", 4)):
        store.publish(make_prefix(name, positions=positions))
    store.alias("support", "prod", 1)
    return store


def begin(
    store: PrefixStore,
    name: str = "echo",
    *,
    base: str = "echo",
    window: int = 4096,
    max_rows: int = 8,
    queue: int = 256,
    drain_seconds: float = 0.0,
    fails_at: str | None = None,
    **options: Any,
) -> Running:
    """A server that listens; `options` are those of `build`."""
    engine = load(name, window=window, fails_at=fails_at).serve(max_rows=max_rows, queue=queue)
    running = Running(app=build(engine, base=base, store=store, **options), engine=engine, store=store)
    running.start(drain_seconds=drain_seconds)
    return running


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    """A store of the test's own; see `make_store`."""
    return make_store(tmp_path / "prefixes")


@pytest.fixture
def start(store: PrefixStore) -> Iterator[Start]:
    """`start("echo-20ms", max_rows=..., queue=..., drain_seconds=..., keys=...)`: a server of the test's own, on `store`."""
    servers: list[Running] = []

    def started(*arguments: Any, **options: Any) -> Running:
        servers.append(begin(store, *arguments, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that answers at once, for all tests of a file; they leave it as it was."""
    running = begin(make_store(tmp_path_factory.mktemp("store") / "prefixes"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's client for `server`."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[httpx2.Client]:
    """A plain client for `server`."""
    with server.http() as client:
        yield client


@pytest.fixture(scope="session")
def begin_server(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """As `start`, for a test file that keeps a server of its own and stops it itself."""
    return lambda **options: begin(make_store(tmp_path_factory.mktemp("store") / "prefixes"), **options)


@pytest.fixture(scope="session")
def prefix_named() -> Callable[..., Prefix]:
    """`prefix_named("anna", positions=3)`."""
    return make_prefix


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """`wait_until(lambda: ...)` returns once it holds."""
    return eventually

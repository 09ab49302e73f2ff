"""A served path on a real socket, in a thread of its own.

with upstream(answer("Hello.")) as fake, serving_path({"models": {"big": {"url": fake.url, "model": "big"}}}) as path:
    assert path.ask("Hi").status_code == 200
    assert path.one_entry()["status"] == "answered"
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
from sqlalchemy import select
from starlette.applications import Starlette

from foreword.cost.ledger import CHARGES, ENTRIES, SAVINGS, money
from foreword.gateway.path_server import PathServer, build_path
from foreword.gateway.path_settings import build_settings
from foreword.gateway.server import Stop, serve
from foreword.store.database import Database

PATIENCE = 30.0
BARE = ("intake", "route", "infer", "bill")
"""The shortest path that there is."""


@dataclass(kw_only=True, eq=False)
class ServedPath:
    """A path at work.

    Attributes:
        base_url: with `/v1`, as OpenAI's client takes it.
        database: of the ledger.
    """

    base_url: str
    server: PathServer
    database: Database | None

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=self.base_url, api_key=key, **{"max_retries": 0, "timeout": PATIENCE, **options})

    def http(self, key: str | None = None) -> httpx2.Client:
        """A plain client; its paths start with `/v1/...`."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.base_url.removesuffix("/v1"), headers=headers, timeout=PATIENCE, trust_env=False)

    def ask(self, text: str = "Hello.", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """One chat request, answered whole or as the bytes of its stream."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
        with self.http() as http:
            return http.post("/v1/chat/completions", json=body, headers=headers)

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's entries in their order, all that was recorded so far; `amount` is money, `charges` and `savings` are lists."""
        ledger = self.server.state.service.parts.ledger
        assert self.database is not None, "this path writes nothing down"
        ledger.flush()
        with self.database.reading() as connection:
            found = [dict(row) for row in connection.execute(select(ENTRIES).order_by(ENTRIES.c.at)).mappings()]
            for entry in found:
                entry["amount"] = money(entry["amount"])
                for name, table in (("charges", CHARGES), ("savings", SAVINGS)):
                    rows = connection.execute(select(table).where(table.c.entry == entry["id"])).mappings()
                    entry[name] = [{**row, "amount": money(row["amount"])} for row in rows]
        return found

    def one_entry(self) -> dict[str, Any]:
        """The only entry."""
        entries = self.entries()
        assert len(entries) == 1, f"{len(entries)} entries"
        return entries[0]

    def wait_for_entries(self, count: int) -> list[dict[str, Any]]:
        """The entries, once there are so many; those of clients that left come a moment later."""
        for _ in range(int(PATIENCE / 0.02)):
            if len(found := self.entries()) >= count:
                return found
            threading.Event().wait(0.02)
        raise AssertionError(f"{count} entries never came; there are {len(self.entries())}")


def charges_of(entry: dict[str, Any]) -> dict[str, tuple[float, Decimal | None]]:
    """Quantity and amount by meter, summed."""
    summed: dict[str, tuple[float, Decimal | None]] = {}
    for charge in entry["charges"]:
        quantity, amount = summed.get(charge["meter"], (0.0, Decimal(0)))
        both = None if amount is None or charge["amount"] is None else amount + charge["amount"]
        summed[charge["meter"]] = (quantity + charge["quantity"], both)
    return summed


@contextlib.contextmanager
def serving_path(
    settings: dict[str, Any],
    *,
    inside: Starlette | None = None,
    drain_seconds: float = 0.0,
    **options: Any,
) -> Iterator[ServedPath]:
    """Serves a path until the block ends.

    Args:
        settings: the fields of a `foreword.toml`; without `store.ledger`, the ledger lies in a folder that goes with the block.
        inside: the application of the model in this process (`app.build(..., watched=False)`); its engine is the caller's to close.
        options: of `build_path`.
    """
    with tempfile.TemporaryDirectory(prefix="path-") as folder:
        store = {"ledger": str(Path(folder) / "ledger.sqlite"), **settings.get("store", {})}
        built = build_settings({**settings, "store": store}, source="the test's settings")
        server = build_path(built, inside=inside, **options)
        listens = threading.Event()
        urls: list[str] = []
        stops: list[Any] = []
        errors: list[BaseException] = []

        async def main() -> None:
            stop, loop = Stop(), asyncio.get_running_loop()
            stops.append(lambda: loop.call_soon_threadsafe(stop))

            def ready(url: str) -> None:
                urls.append(url)
                listens.set()

            await serve(server, host="127.0.0.1", port=0, drain_seconds=drain_seconds, ready=ready, stop=stop)

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                errors.append(error)
            finally:
                listens.set()

        thread = threading.Thread(target=run, name="test-path", daemon=True)
        thread.start()
        try:
            assert listens.wait(PATIENCE)
            assert not errors, errors
            ledger = server.state.service.parts.ledger
            yield ServedPath(base_url=f"{urls[0]}/v1", server=server, database=None if ledger is None else ledger.database)
        finally:
            if stops:
                stops[0]()
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the path does not stop"
            assert not errors, errors

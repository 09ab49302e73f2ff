"""A path as it is served: names, texts, the report, money, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from echo_inside import NAME, SETTINGS, echo_inside
from foreword.cost.report import cost_report, stage_rows
from foreword.errors import ConfigError
from foreword.gateway.path_server import batches_place, build_path, default_ledger
from foreword.gateway.path_settings import build_settings
from foreword.gateway.tenants import admin_key, parse_keys
from foreword.prefix.store import PrefixStore
from paths import BARE, charges_of, serving_path
from upstreams import FakeUpstream, Seen, answer, cut, refuse, upstream

KEYS = "anna-key-1 anna support*\nben-key-123 ben"
ADMIN = "admin-key-1"
PRICE = {"input_per_million": "1", "output_per_million": "2"}
PATIENCE = 60.0


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with upstream(answer("Hello there, friend.")) as fake:
        yield fake


@pytest.fixture
def prefixes(tmp_path: Path, prefix_named: Callable[..., Any]) -> PrefixStore:
    """`support` (two versions, `prod` is the first) and `anna`."""
    store = PrefixStore(tmp_path / "prefixes")
    for name in ("support", "support", "anna"):
        store.publish(prefix_named(name))
    store.alias("support", "prod", 1)
    return store


@pytest.fixture
def models(fake: FakeUpstream) -> dict[str, Any]:
    return {"small": SETTINGS, "big": {"url": fake.url, "model": "big-1", "price": PRICE, "retries": 0}}


# Names.


def test_models_are_told_with_the_prefixes_that_a_tenant_may_use(models: dict[str, Any], prefixes: PrefixStore) -> None:
    likewise = {**models, "careful": {"like": "small"}}
    with echo_inside(prefixes) as inside, serving_path({"models": likewise}, inside=inside, keys=parse_keys(KEYS, source="x")) as path:
        anna, ben = path.client("anna-key-1"), path.client("ben-key-123")
        of_small = ["small:support", "small:support@prod"]
        assert [one.id for one in anna.models.list()] == [
            *("auto", "small", *of_small, "big"),
            *("careful", "careful:support", "careful:support@prod"),
        ]
        assert {"small:anna", "careful:anna"} < {one.id for one in ben.models.list()}
        for name in ("auto", "big", "small", "small:support@v2", "careful:support"):
            assert anna.models.retrieve(name).id == name
        assert ben.models.retrieve("small:support+anna").id == "small:support+anna"
        for name in ("nope", "small:none", "small:anna", "big:support", "small:", "auto:x", NAME):
            with pytest.raises(openai.NotFoundError):
                anna.models.retrieve(name)
        with pytest.raises(openai.AuthenticationError):
            path.client("nobodys-key").models.list()
        # What is told can be asked for.
        for name in [one.id for one in anna.models.list()]:
            assert anna.chat.completions.create(model=name, messages=[{"role": "user", "content": "Hi."}]).choices


def test_the_ledger_has_the_version_of_the_prefix_that_answered(models: dict[str, Any], prefixes: PrefixStore) -> None:
    with echo_inside(prefixes) as inside, serving_path({"models": models, "stages": list(BARE)}, inside=inside) as path:
        for model in ("small", "small:support", "small:support@prod", "small:support+anna"):
            assert path.ask(model=model).status_code == 200
        assert path.ask(model="small:support", stream=True).status_code == 200
        assert [entry["prefix"] for entry in path.entries()] == ["", "support@v2", "support@v1", "support@v2+anna@v1", "support@v2"]


# Texts.


def test_texts_walk_the_path_too(models: dict[str, Any], prefixes: PrefixStore) -> None:
    with echo_inside(prefixes) as inside, serving_path({"models": models}, inside=inside) as path:
        client = path.client()
        whole = client.completions.create(model="small:support", prompt="one two three", user="u1")
        assert whole.choices[0].text.endswith("one two three") and whole.object == "text_completion"
        streamed = list(client.completions.create(model="small", prompt=["one two", "three"], max_tokens=1, stream=True))
        texts = ["".join(c.choices[0].text for c in streamed if c.choices and c.choices[0].index == index) for index in (0, 1)]
        assert [text.strip() for text in texts] == ["one", "three"] and all(chunk.id == streamed[0].id for chunk in streamed)
        first, second = path.entries()
        assert (first["id"], first["user"], first["prefix"]) == (whole.id, "u1", "support@v2")
        assert (second["id"], second["model"], second["status"]) == (streamed[0].id, "small", "answered")
        for entry in (first, second):
            assert entry["amount"] > 0 and charges_of(entry)["machine-second"][0] > 0


def test_texts_are_held_by_limits_and_budgets(models: dict[str, Any], tmp_path: Path) -> None:
    settings = {"models": models, "limits": {"per_tenant": "2/minute"}}
    with echo_inside(tmp_path) as inside, serving_path(settings, inside=inside) as path, path.http() as http:
        body = {"model": "small", "prompt": "one two"}
        assert [http.post("/v1/completions", json=body).status_code for _ in range(2)] == [200, 200]
        # One count for both kinds of request.
        assert path.ask().status_code == http.post("/v1/completions", json=body).status_code == 429
    settings = {"models": models, "budgets": [{"period": "day", "amount": "0.0001"}]}
    with echo_inside(tmp_path) as inside, serving_path(settings, inside=inside) as path, path.http() as http:
        refused = http.post("/v1/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "big"}, 400, "model"),
        ({"model": "auto"}, 400, "model"),
        ({"model": "nope"}, 404, "model"),
        ({"model": "small:none"}, 404, "model"),
        ({"prompt": [1, 2]}, 400, "prompt"),
        ({"prompt": None}, 400, "prompt"),
        ({"colour": "red"}, 400, "colour"),
        ({"echo": True}, 400, "echo"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ],
)
def test_texts_that_cannot_be_are_refused(models: dict[str, Any], tmp_path: Path, change: Any, status: int, param: str) -> None:
    with echo_inside(tmp_path) as inside, serving_path({"models": models}, inside=inside) as path, path.http() as http:
        refused = http.post("/v1/completions", json={"model": "small", "prompt": "one", **change})
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text


def test_without_a_model_in_this_process_there_is_nothing_to_go_on_from(models: dict[str, Any]) -> None:
    with serving_path({"models": {"big": models["big"]}}) as path, path.http() as http:
        assert http.post("/v1/completions", json={"model": "big", "prompt": "one"}).status_code == 404


def test_embeddings_are_refused_as_without_a_path(models: dict[str, Any], tmp_path: Path) -> None:
    with echo_inside(tmp_path) as inside, serving_path({"models": models}, inside=inside) as path, pytest.raises(openai.NotFoundError):
        path.client().embeddings.create(model="small", input="one")


# The report.


def test_the_report_is_for_the_admin_key(models: dict[str, Any]) -> None:
    only = {"models": {"big": models["big"]}}
    with serving_path(only, admin_key=admin_key(ADMIN), keys=parse_keys(KEYS, source="x")) as path:
        for key, tenant in (("anna-key-1", "anna"), ("ben-key-123", "ben"), ("ben-key-123", "ben")):
            path.client(key).chat.completions.create(model="auto", messages=[{"role": "user", "content": tenant}])
        with path.http(ADMIN) as http:
            told = http.get("/admin/cost", params={"by": "tenant,model"}).json()
            assert told["object"] == "list"
            rows = {row["tenant"]: row for row in told["data"]}
            assert (rows["ben"]["requests"], Decimal(rows["ben"]["cost"]), rows["ben"]["model"]) == (2, Decimal("0.00005"), "big")
            assert http.get("/admin/cost", params={"tenant": "anna"}).json()["data"][0]["requests"] == 1
            (stage,) = http.get("/admin/cost", params={"stages": "true"}).json()["data"]
            assert (stage["stage"], Decimal(stage["cost"])) == ("infer", Decimal("0.000075"))
            assert http.get("/admin/cost", params={"since": "2999-01-01"}).json()["data"] == []
            for wrong in ({"by": "colour"}, {"since": "soon"}, {"colour": "red"}, {"stages": "yes"}, {"since": "999999w"}):
                refused = http.get("/admin/cost", params=wrong)
                assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), wrong
        for key in (None, "anna-key-1"):
            with path.http(key) as http:
                assert http.get("/admin/cost").status_code == 401
    with serving_path(only) as path, path.http() as http:
        assert (refused := http.get("/admin/cost")).status_code == 404 and refused.json()["error"]["code"] == "admin_closed"
    with serving_path({**only, "store": {"ledger": "none"}}, admin_key=admin_key(ADMIN)) as path, path.http(ADMIN) as http:
        assert http.get("/admin/cost").json()["error"]["code"] == "no_ledger"
        assert path.ask().status_code == 200


# Putting it together.


def test_what_is_missing_is_told_before_anything_is_served(models: dict[str, Any], tmp_path: Path) -> None:
    store = {"store": {"ledger": str(tmp_path / "l.sqlite")}}
    with pytest.raises(ConfigError, match="small"):
        build_path(build_settings({"models": models, **store}, source="x"))
    keyed = {"big": {**models["big"], "key_env": "NO_SUCH_KEY"}}
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        build_path(build_settings({"models": keyed, **store}, source="x"), environment={})
    with pytest.raises(ConfigError, match="URL"):
        build_path(build_settings({"models": {"big": models["big"]}, "store": {"ledger": "mysql://x"}}, source="x"))


def test_batches_are_kept_beside_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert default_ledger() == tmp_path / "ledger.sqlite"
    for store, place in (
        ({}, tmp_path / "batches.sqlite"),
        ({"ledger": "/a/b.sqlite"}, Path("/a/batches.sqlite")),
        ({"ledger": "postgresql://a/b"}, "postgresql://a/b"),
        ({"ledger": "none"}, None),
        ({"batches": "none"}, None),
        ({"ledger": "none", "batches": "/c.sqlite"}, "/c.sqlite"),
    ):
        settings = build_settings({"models": {"big": {"url": "http://a", "model": "m"}}, "store": store}, source="x")
        assert batches_place(settings) == place


# Money.


def test_of_many_mixed_requests_every_digit_adds_up(fake: FakeUpstream, models: dict[str, Any], tmp_path: Path) -> None:
    price = {"input_per_million": "0.37", "output_per_million": "1.13", "cached_per_million": "0.031"}
    usage = {"prompt_tokens": 1237, "completion_tokens": 91, "total_tokens": 1328, "prompt_tokens_details": {"cached_tokens": 1001}}
    turns: Counter[str] = Counter()

    def chooses(seen: Seen) -> Any:
        text = seen.body["messages"][-1]["content"]
        turns[text] += 1
        kind = int(text) % 5
        if kind == 0 and turns[text] == 1:
            return refuse(500)
        if kind == 1:
            return refuse(400)
        return cut(usage=usage) if kind == 2 else answer("Eleven words of it.", usage=usage)

    fake.chooses = chooses
    big = {**models["big"], "price": price, "retries": 2, "retry_budget": 1.0, "breaker_failures": 1000, "secondary": "small"}
    settings = {"models": {"small": SETTINGS, "big": big}, "stages": list(BARE)}
    with echo_inside(tmp_path) as inside, serving_path(settings, inside=inside) as path:

        def one(number: int) -> None:
            path.ask(str(number), model="big", stream=number % 2 == 0, user=f"u{number % 7}")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(200)))
        entries = path.wait_for_entries(200)
        assert len(entries) == 200 and {entry["status"] for entry in entries} == {"answered", "refused", "failed"}
        assert any(entry["retries"] for entry in entries) and any(entry["fallbacks"] for entry in entries)
        assert path.database is not None
        for entry in entries:
            assert entry["amount"] == sum((charge["amount"] for charge in entry["charges"]), Decimal(0))
        total = sum((entry["amount"] for entry in entries), Decimal(0))
        stages = stage_rows(path.database)
        assert sum((stage.cost or Decimal(0) for stage in stages), Decimal(0)) == total
        for by in (("status",), ("model", "user"), ()):
            assert sum((row.cost or Decimal(0) for row in cost_report(path.database, by)), Decimal(0)) == total
        # A streamed answer and one that was sent whole cost the same to the last digit.
        like = [entry for entry in entries if entry["status"] == "answered" and entry["model"] == "big"]
        exact = (236 * Decimal("0.37") + 1001 * Decimal("0.031") + 91 * Decimal("1.13")) / 1_000_000
        assert len(like) >= 80 and {entry["amount"] for entry in like} == {exact}
        assert {entry["first_token_seconds"] is None for entry in like} == {True, False}


# A kill.

CONFIGURATION = """\
[models.small]
engine = "echo"
model = "echo-2ms"
price = {{ machine_hour = "1" }}

[store]
ledger = "{folder}/ledger.sqlite"
durable = true
"""


class Killed:
    """`foreword serve --config` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = folder / "foreword.toml"
        config.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
        command = [sys.executable, "-m", "foreword", "serve", "--config", str(config), "--port", "0", "--no-access-log"]
        environment = {**os.environ, "FOREWORD_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        assert self.url.startswith("http://"), self.url

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def load(url: str, answered: list[str], stop: threading.Event) -> None:
    """Asks until the server is gone; notes the id of every answer that came whole."""
    with httpx2.Client(timeout=PATIENCE, trust_env=False) as http:
        number = 0
        while not stop.is_set():
            number += 1
            body = {"model": "small", "messages": [{"role": "user", "content": "one two three"}], "stream": number % 2 == 0}
            try:
                got = http.post(f"{url}/v1/chat/completions", json=body)
            except httpx2.HTTPError:
                return
            if got.status_code == 200 and (not body["stream"] or "[DONE]" in got.text):
                text = got.text if not body["stream"] else got.text.removeprefix("data: ").partition("\n")[0]
                answered.append(json.loads(text)["id"])


def test_a_kill_loses_no_settled_row_and_leaves_none_half_written(tmp_path: Path) -> None:
    server = Killed(tmp_path)
    answered: list[str] = []
    stop = threading.Event()
    asking = [threading.Thread(target=load, args=(server.url, answered, stop)) for _ in range(8)]
    try:
        for thread in asking:
            thread.start()
        end = time.monotonic() + PATIENCE
        while len(answered) < 60:
            assert time.monotonic() < end, f"{len(answered)} answers"
            time.sleep(0.01)
    finally:
        server.kill()
        stop.set()
        for thread in asking:
            thread.join(PATIENCE)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.execute("pragma integrity_check").fetchone() == ("ok",)
        entries = dict(ledger.execute("select id, amount from ledger_entries"))
        charged = dict(ledger.execute("select entry, sum(amount) from ledger_charges group by entry"))
    ledger.close()
    assert set(answered) <= set(entries), "an answer that was sent is not in the ledger"
    # An entry is there with all of its charges, and no charge without its entry.
    assert charged == entries


def test_a_batch_goes_on_after_a_kill_and_asks_nothing_twice_that_was_answered(tmp_path: Path) -> None:
    rows = b"".join(
        json.dumps(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "small", "messages": [{"role": "user", "content": f"say {number} " + "word " * 12}]},
            }
        ).encode()
        + b"\n"
        for number in range(60)
    )
    server = Killed(tmp_path)
    try:
        client = server.client()
        file = client.files.create(file=("rows.jsonl", rows), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        end = time.monotonic() + PATIENCE
        while client.batches.retrieve(made.id).request_counts.completed < 10:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        server.kill()
    with sqlite3.connect(tmp_path / "batches.sqlite") as batches:
        before = dict(batches.execute("select custom_id, request_id from batch_rows where status_code is not null"))
        # Nobody waits for the lease of a process that is gone.
        batches.execute("update batches set lease_until = 0")
    batches.close()
    assert 10 <= len(before) < 60
    server = Killed(tmp_path)
    try:
        client = server.client()
        end = time.monotonic() + PATIENCE
        while (done := client.batches.retrieve(made.id)).status != "completed":
            assert time.monotonic() < end, done
            time.sleep(0.02)
        assert done.output_file_id is not None and done.request_counts.completed == 60
        lines = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    finally:
        server.kill()
    told = {line["custom_id"]: line["response"]["request_id"] for line in lines}
    assert len(lines) == len(told) == 60
    assert {id: told[id] for id in before} == before
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        entries = {row[0] for row in ledger.execute("select id from ledger_entries")}
    ledger.close()
    assert set(told.values()) <= entries
    # Only what was under way when it was killed can have been asked twice.
    assert len(entries) <= 60 + 4

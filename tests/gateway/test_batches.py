"""Batches over real sockets, by OpenAI's own client and without it."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from foreword.gateway.tenants import parse_keys
from paths import serving_path
from upstreams import FakeUpstream as Fake
from upstreams import answer, garbage, refuse, upstream, when

PATIENCE = 30.0
URL = "/v1/chat/completions"
PRICE = {"input_per_million": "1", "output_per_million": "2"}
KEYS = "anna-key-1 anna\nben-key-123 ben"


def line(custom_id: Any, text: str = "Hello.", **fields: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": URL,
        "body": {"model": "big", "messages": [{"role": "user", "content": text}], **fields},
    }


def jsonl(*lines: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


def upload(client: openai.OpenAI, *lines: Any) -> str:
    return client.files.create(file=("rows.jsonl", jsonl(*lines)), purpose="batch").id


def begin(client: openai.OpenAI, *lines: Any, **more: Any) -> Any:
    return client.batches.create(input_file_id=upload(client, *lines), endpoint=URL, completion_window="24h", **more)


def ended(client: openai.OpenAI, id: str, *statuses: str) -> Any:
    """The batch, once it has one of the statuses."""
    end = time.monotonic() + PATIENCE
    while (found := client.batches.retrieve(id)).status not in (statuses or ("completed", "failed", "cancelled", "expired")):
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def lines_of(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    """A result file's lines by their custom id."""
    assert file is not None
    written = [json.loads(one) for one in client.files.content(file).text.splitlines()]
    by_id = {one["custom_id"]: one for one in written}
    assert len(by_id) == len(written)
    return by_id


@pytest.fixture
def fake() -> Iterator[Fake]:
    with upstream(answer("Hello there.")) as fake:
        yield fake


@pytest.fixture
def serve(fake: Fake) -> Callable[..., Any]:
    def serving(batches: dict[str, Any] | None = None, *, model: dict[str, Any] | None = None, **options: Any) -> Any:
        settings = {
            "models": {"big": {"url": fake.url, "model": "big", "price": PRICE, "retries": 0, **(model or {})}},
            "batches": batches or {},
            **options.pop("settings", {}),
        }
        return serving_path(settings, **options)

    return serving


def test_a_batch_is_answered_by_the_official_client(serve: Callable[..., Any], fake: Fake) -> None:
    with serve() as path:
        client = path.client()
        made = begin(client, line("a", "First."), line("b", "Second.", user="u1"), metadata={"run": "nightly"})
        assert (made.status, made.object, made.endpoint, made.metadata) == ("validating", "batch", URL, {"run": "nightly"})
        done = ended(client, made.id)
        assert done.status == "completed" and done.error_file_id is None
        assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (2, 2, 0)
        assert done.in_progress_at <= done.completed_at <= done.expires_at
        answers = lines_of(client, done.output_file_id)
        assert set(answers) == {"a", "b"}
        for one in answers.values():
            assert one["error"] is None and one["response"]["status_code"] == 200
            assert one["response"]["body"]["choices"][0]["message"]["content"] == "Hello there."
        entries = {entry["id"]: entry for entry in path.entries()}
        # Each is in the ledger, under the id that its answer has.
        assert {one["response"]["body"]["id"] for one in answers.values()} == set(entries)
        assert {one["response"]["request_id"] for one in answers.values()} == set(entries)
        assert sorted(entry["user"] for entry in entries.values()) == ["", "u1"]
        assert all(entry["amount"] is not None for entry in entries.values())
    assert [seen.body["messages"][0]["content"] for seen in fake.seen] in (["First.", "Second."], ["Second.", "First."])


def test_what_is_wrong_with_a_request_is_its_answer(serve: Callable[..., Any], fake: Fake) -> None:
    with serve() as path:
        client = path.client()
        bad = [
            line("unknown field", colour="red"),
            line("no model", model="nope"),
            line("stream", stream=True),
            {**line("no messages"), "body": {"model": "big"}},
            {**line("no object"), "body": [1]},
        ]
        done = ended(client, begin(client, line("good"), *bad).id)
        assert done.status == "completed"
        assert (done.request_counts.completed, done.request_counts.failed) == (1, 5)
        assert set(lines_of(client, done.output_file_id)) == {"good"}
        errors = lines_of(client, done.error_file_id)
        told = {id: (one["response"]["status_code"], one["response"]["body"]["error"]["param"]) for id, one in errors.items()}
        assert told == {
            "unknown field": (400, "colour"),
            "no model": (404, "model"),
            "stream": (400, "stream"),
            "no messages": (400, "messages"),
            "no object": (400, None),
        }
        assert len(fake.seen) == 1


@pytest.mark.parametrize(
    ("lines", "code", "place"),
    [
        ([line("a"), b"{not json"], "invalid_json", 2),
        ([line("a"), b"\xff\xfe"], "invalid_json", 2),
        ([line("a"), {**line("b"), "url": "/v1/embeddings"}], "mismatched_url", 2),
        ([line("a"), {**line("b"), "method": "GET"}], "invalid_method", 2),
        ([line("a"), line("a")], "duplicate_custom_id", 2),
        ([line("a"), line(7)], "invalid_value", 2),
        ([line("")], "invalid_value", 1),
        ([{"custom_id": "a"}], "invalid_value", 1),
        ([{**line("a"), "more": 1}], "unknown_parameter", 1),
        ([], "empty_file", None),
        ([b"", b"  "], "empty_file", None),
        ([line("a"), line("b"), line("c"), line("d")], "too_many_requests", 4),
        ([line("a", "x" * 3000)], "line_too_large", 1),
        ([b'{"custom_id": "a", "body": ' + b"[" * 2500], "invalid_json", 1),
    ],
)
def test_a_file_that_is_no_batch_fails_as_a_whole(
    serve: Callable[..., Any], fake: Fake, lines: list[Any], code: str, place: int | None
) -> None:
    with serve({"rows": 3}, body_bytes=2900) as path:
        client = path.client()
        done = ended(client, begin(client, *lines).id)
        assert done.status == "failed" and done.failed_at
        assert [(error.code, error.line) for error in done.errors.data] == [(code, place)]
        assert done.output_file_id is None and done.error_file_id is None
        assert not fake.seen and not path.entries()


def test_lines_end_as_windows_and_as_nothing_ends_them(serve: Callable[..., Any]) -> None:
    with serve() as path:
        client = path.client()
        raw = jsonl(line("a"), line("b")).replace(b"\n", b"\r\n") + b"\r\n" + json.dumps(line("c")).encode()
        file = client.files.create(file=("rows.jsonl", raw), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint=URL, completion_window="24h")
        assert set(lines_of(client, ended(client, made.id).output_file_id)) == {"a", "b", "c"}


def test_tenants_do_not_know_of_each_other(serve: Callable[..., Any]) -> None:
    with serve(keys=parse_keys(KEYS, source="the test")) as path:
        anna, ben = path.client("anna-key-1"), path.client("ben-key-123")
        made = begin(anna, line("a"))
        done = ended(anna, made.id)
        for call in (
            lambda: ben.batches.retrieve(made.id),
            lambda: ben.batches.cancel(made.id),
            lambda: ben.files.retrieve(made.input_file_id),
            lambda: ben.files.content(done.output_file_id),
            lambda: ben.files.delete(done.output_file_id),
            lambda: ben.batches.create(input_file_id=made.input_file_id, endpoint=URL, completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            # Nor can it be told from what does not exist.
            assert "There is no" in str(caught.value)
        assert not ben.batches.list().data and not ben.files.list().data
        assert [one.id for one in anna.batches.list().data] == [made.id]
        assert len(anna.files.list().data) == 2 and len(anna.files.list(purpose="batch").data) == 1
        with pytest.raises(openai.AuthenticationError):
            path.client("wrong-key-9").batches.list()
        assert [entry["tenant"] for entry in path.entries()] == ["anna"]


def test_lists_are_told_page_by_page(serve: Callable[..., Any]) -> None:
    with serve() as path:
        client = path.client()
        files = [upload(client, line(str(number))) for number in range(5)]
        assert [one.id for one in client.files.list(limit=2)] == files[::-1]
        made = [client.batches.create(input_file_id=file, endpoint=URL, completion_window="24h").id for file in files]
        page = client.batches.list(limit=2)
        assert [one.id for one in page.data] == made[:-3:-1] and page.has_more
        assert [one.id for one in client.batches.list(limit=2)] == made[::-1]
        for limit in ("0", "-1", "x", "²"):
            with path.http() as http:
                refused = http.get("/v1/batches", params={"limit": limit})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


def test_a_batch_that_is_cancelled_keeps_what_it_has(serve: Callable[..., Any], fake: Fake) -> None:
    go = threading.Event()
    fake.script(when(go, answer("Hello.")))
    with serve({"at_once": 1}) as path:
        client = path.client()
        made = begin(client, *(line(str(number)) for number in range(5)))
        fake.wait_for(1)
        assert client.batches.cancel(made.id).status == "cancelling"
        go.set()
        done = ended(client, made.id)
        assert done.status == "cancelled" and done.cancelled_at
        assert set(lines_of(client, done.output_file_id)) == {"0"}
        errors = lines_of(client, done.error_file_id)
        assert set(errors) == {"1", "2", "3", "4"}
        assert errors["1"]["response"] is None and errors["1"]["error"]["code"] == "batch_cancelled"
        assert (done.request_counts.completed, done.request_counts.failed) == (1, 4)
        assert len(fake.seen) == 1
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(made.id)


def test_batches_wait_while_clients_do(serve: Callable[..., Any], fake: Fake) -> None:
    go = threading.Event()
    fake.script(when(go, answer("Slow.")), answer("Fast."))
    with serve({"busy_from": 1}) as path:
        client = path.client()
        asking = threading.Thread(target=lambda: path.ask("Wait for me."))
        asking.start()
        fake.wait_for(1)
        made = begin(client, line("a"))
        ended(client, made.id, "in_progress")
        time.sleep(0.3)
        assert len(fake.seen) == 1 and client.batches.retrieve(made.id).request_counts.completed == 0
        go.set()
        asking.join()
        assert ended(client, made.id).request_counts.completed == 1
        assert len(fake.seen) == 2


def test_a_long_batch_keeps_no_other_waiting(serve: Callable[..., Any], fake: Fake) -> None:
    fake.script(answer("Hello.", wait=0.02))
    with serve({"at_once": 1}) as path:
        client = path.client()
        long = begin(client, *(line(str(number)) for number in range(120)))
        ended(client, long.id, "in_progress")
        short = begin(client, line("a"))
        assert ended(client, short.id).status == "completed"
        assert client.batches.retrieve(long.id).status == "in_progress"
        client.batches.cancel(long.id)
        ended(client, long.id)


def test_a_request_that_a_limit_refuses_is_asked_again(serve: Callable[..., Any], fake: Fake) -> None:
    with serve(settings={"limits": {"per_tenant": "2/second"}}) as path:
        client = path.client()
        done = ended(client, begin(client, *(line(str(number)) for number in range(5))).id)
        assert (done.request_counts.completed, done.request_counts.failed) == (5, 0)
        assert len(fake.seen) == 5


@pytest.mark.parametrize(("behaviour", "status"), [(refuse(500), 502), (garbage(), 502)])
def test_a_request_whose_model_fails_is_asked_so_often_and_no_more(
    serve: Callable[..., Any], fake: Fake, behaviour: Any, status: int
) -> None:
    fake.script(behaviour)
    with serve() as path:
        client = path.client()
        done = ended(client, begin(client, line("a")).id)
        assert (done.status, done.request_counts.failed) == ("completed", 1)
        assert lines_of(client, done.error_file_id)["a"]["response"]["status_code"] == status
        assert len(fake.seen) == 3
        assert [entry["status"] for entry in path.entries()] == ["failed"] * 3


def test_a_request_that_fails_once_has_its_answer_in_the_end(serve: Callable[..., Any], fake: Fake) -> None:
    fake.script(refuse(500), answer("Now."))
    with serve() as path:
        client = path.client()
        assert ended(client, begin(client, line("a")).id).request_counts.completed == 1


def test_a_budget_holds_for_batches_too(serve: Callable[..., Any], fake: Fake) -> None:
    budgets = [{"period": "day", "amount": "0.00000001"}]
    with serve(settings={"budgets": budgets}) as path:
        client = path.client()
        made = begin(client, line("a", max_tokens=10))
        ended(client, made.id, "in_progress")
        time.sleep(0.3)
        assert client.batches.retrieve(made.id).status == "in_progress" and not fake.seen
        client.batches.cancel(made.id)
        assert ended(client, made.id).status == "cancelled"


def test_lines_themselves_are_a_file_too(serve: Callable[..., Any]) -> None:
    with serve() as path, path.http() as http:
        query = {"purpose": "batch", "filename": "../../etc/passwd"}
        kept = http.post("/v1/files", params=query, content=jsonl(line("a")), headers={"content-type": "application/jsonl"})
        assert kept.status_code == 200, kept.text
        assert kept.json()["filename"] == "passwd" and kept.json()["purpose"] == "batch"
        content = http.get(f"/v1/files/{kept.json()['id']}/content")
        assert content.content == jsonl(line("a")) and content.headers["content-length"] == str(len(content.content))


def test_a_large_file_comes_back_as_it_was(serve: Callable[..., Any]) -> None:
    content = b"".join(b"%d %s\n" % (number, b"x" * 900) for number in range(2000))
    with serve() as path:
        client = path.client()
        file = client.files.create(file=("large.jsonl", io.BytesIO(content)), purpose="batch")
        assert file.bytes == len(content)
        assert client.files.content(file.id).content == content
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(file.id)


@pytest.mark.parametrize(
    ("post", "status", "param"),
    [
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "fine-tune"}}, 400, "purpose"),
        ({"files": {"file": ("a", b"x")}}, 400, "purpose"),
        ({"data": {"purpose": "batch"}, "files": {"other": ("a", b"x")}}, 400, "other"),
        ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "file"),
        ({"content": b"anything", "headers": {"content-type": "multipart/form-data"}}, 400, None),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 415, None),
        ({"content": b"x", "headers": {"content-type": "application/jsonl"}}, 400, "purpose"),
        ({"files": {"file": ("a", b"x" * 20_000)}, "data": {"purpose": "batch"}}, 413, None),
        ({"content": b"x" * 90_000, "params": {"purpose": "batch"}, "headers": {"content-type": "application/jsonl"}}, 413, None),
        ({"files": {"file": ("a", b"x" * 90_000)}, "data": {"purpose": "batch"}}, 413, None),
    ],
)
def test_uploads_that_cannot_be_are_refused(serve: Callable[..., Any], post: dict[str, Any], status: int, param: str | None) -> None:
    with serve({"file_mb": 0.01}) as path, path.http() as http:
        refused = http.post("/v1/files", **post)
        assert refused.status_code == status, refused.text
        error = refused.json()["error"]
        assert error["param"] == param and error["message"]
        assert not path.client().files.list().data


def test_a_tenant_has_so_much_room(serve: Callable[..., Any]) -> None:
    with serve({"tenant_mb": 0.001}) as path:
        client = path.client()
        file = client.files.create(file=("a", b"x" * 1000), purpose="batch")
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=("b", b"x"), purpose="batch")
        assert caught.value.status_code == 413
        client.files.delete(file.id)
        client.files.create(file=("b", b"x"), purpose="batch")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "999h"}, 400, "completion_window"),
        ({"input_file_id": "file-none"}, 404, "input_file_id"),
        ({"input_file_id": 7}, 400, "input_file_id"),
        ({"metadata": {"a": 1}}, 400, re.compile("metadata")),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_orders_that_cannot_be_are_refused(serve: Callable[..., Any], change: dict[str, Any], status: int, param: Any) -> None:
    with serve() as path, path.http() as http:
        order = {"input_file_id": upload(path.client(), line("a")), "endpoint": URL, "completion_window": "24h", **change}
        refused = http.post("/v1/batches", json=order)
        assert refused.status_code == status, refused.text
        told = refused.json()["error"]["param"]
        assert told == param if isinstance(param, str) else param.match(told)


def test_a_result_is_no_batch_and_so_many_may_be_open(serve: Callable[..., Any], fake: Fake) -> None:
    with serve({"open": 1}) as path:
        client = path.client()
        done = ended(client, begin(client, line("a")).id)
        with pytest.raises(openai.BadRequestError):
            client.batches.create(input_file_id=done.output_file_id, endpoint=URL, completion_window="24h")
        go = threading.Event()
        fake.script(when(go, answer("Hello.")))
        made = begin(client, line("a"))
        with pytest.raises(openai.RateLimitError):
            begin(client, line("a"))
        go.set()
        ended(client, made.id)


def test_nothing_is_kept_where_nothing_is_written_down(serve: Callable[..., Any]) -> None:
    for store in ({"ledger": "none"}, {"batches": "none"}):
        with serve(settings={"store": store}) as path, path.http() as http:
            refused = http.get("/v1/batches")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_route")


def test_a_server_that_stops_lets_the_next_one_go_on(serve: Callable[..., Any], fake: Fake, tmp_path: Path) -> None:
    store = {"store": {"batches": str(tmp_path / "batches.sqlite")}}
    stuck = threading.Event()
    fake.script(answer("First."), when(stuck, answer("Never.")))
    with serve({"at_once": 1}, settings=store) as path:
        made = begin(path.client(), line("a"), line("b"), line("c"))
        while len(fake.seen) < 2:
            time.sleep(0.005)
    fake.script(answer("Later."))
    with serve({"at_once": 1}, settings=store) as path:
        client = path.client()
        done = ended(client, made.id)
        answers = lines_of(client, done.output_file_id)
        texts = {id: one["response"]["body"]["choices"][0]["message"]["content"] for id, one in answers.items()}
        assert texts == {"a": "First.", "b": "Later.", "c": "Later."}

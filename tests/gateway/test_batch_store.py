"""Where batches are kept, and who may work on them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreword.gateway.batch_store import PIECE_BYTES, BatchStore
from foreword.gateway.batch_tables import METADATA, Batch, Row
from foreword.gateway.tenants import EVERYBODY, parse_keys
from foreword.store.database import open_database

ANNA = parse_keys("anna-key-1 anna support* billing", source="x").tenant("Bearer anna-key-1")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BatchStore]:
    database = open_database(tmp_path / "batches.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    store = BatchStore(database)
    yield store
    METADATA.drop_all(database._engine)
    store.close()


def made(store: BatchStore, rows: int = 3, *, seconds: float = 1000.0) -> Batch:
    batch = store.add_batch(ANNA, endpoint="/v1/chat/completions", window="24h", seconds=seconds, input_file="file-1", metadata={"a": "b"})
    store.begin(batch.id, (Row(number=number, custom_id=f"row-{number}", body=b"{}") for number in range(1, rows + 1)))
    return batch


def now(store: BatchStore, batch: Batch) -> Batch:
    found = store.batch("anna", batch.id)
    assert found is not None
    return found


def test_a_batch_is_its_tenants_with_what_the_tenant_may_see(store: BatchStore) -> None:
    batch = now(store, made(store))
    assert (batch.status, batch.total, batch.metadata) == ("in_progress", 3, {"a": "b"})
    assert batch.tenant.name == "anna" and batch.tenant.sees("support-2") and not batch.tenant.sees("other")
    assert store.batch(EVERYBODY.name, batch.id) is None


@pytest.mark.parametrize(
    "content", [b"", b"one", b"one\n", b"one\ntwo", b"\n\none\r\n", b"x" * (PIECE_BYTES - 1) + b"\ny\n" + b"z" * PIECE_BYTES]
)
def test_a_file_is_read_line_by_line_however_it_is_cut(store: BatchStore, content: bytes) -> None:
    kept = store.add_file("anna", filename="f", purpose="batch", content=io.BytesIO(content))
    assert kept.bytes == len(content) == store.stored_bytes("anna")
    lines = list(store.lines(kept.id))
    assert b"\n".join(lines) == content.removesuffix(b"\n")
    assert store.delete_file("anna", kept.id) and store.piece(kept.id, 0) is None and store.stored_bytes("anna") == 0


def test_one_works_on_a_batch_until_it_is_given_back_or_nothing_is_heard(store: BatchStore) -> None:
    batch = made(store)
    taken = store.claim("one", 100)
    assert taken is not None and taken.id == batch.id
    assert store.claim("two", 100) is None
    # Its own it may take again, and nobody else's renew.
    assert store.claim("one", 100) is not None
    assert not store.renew(batch.id, "two", 100) and store.renew(batch.id, "one", 0.01)
    time.sleep(0.05)
    assert store.claim("two", 100) is not None and not store.renew(batch.id, "one", 100)
    store.release(batch.id, "two", not_before=time.time() + 100)
    assert store.claim("one", 100) is None
    store.release(batch.id, "two")
    assert store.claim("one", 100) is not None


def test_one_that_is_to_end_does_not_rest(store: BatchStore) -> None:
    cancelled, late = made(store), made(store, seconds=-1)
    for batch in (cancelled, late):
        store.release(batch.id, "", not_before=time.time() + 1000)
    store.move(cancelled.id, "cancelling", of=("in_progress",))
    found = {one.id for one in (store.claim("one", 100), store.claim("one", 100)) if one is not None}
    assert found == {cancelled.id, late.id}


def test_the_one_that_was_worked_on_longest_ago_is_next(store: BatchStore) -> None:
    first, second = made(store), made(store)
    turns = []
    for _ in range(4):
        taken = store.claim("one", 100)
        assert taken is not None
        turns.append(taken.id)
        store.release(taken.id, "one")
    assert turns == [first.id, second.id, first.id, second.id]


def test_the_first_word_on_a_request_holds(store: BatchStore) -> None:
    batch = made(store)
    store.answered(batch.id, 1, status_code=200, request_id="r1", answer=b'"first"')
    store.answered(batch.id, 1, status_code=500, request_id="r2", answer=b'"second"')
    store.answered(batch.id, 2, status_code=400, request_id="r3", answer=b'"no"')
    store.failed_once(batch.id, 3)
    found = now(store, batch)
    assert (found.completed, found.failed) == (1, 1)
    (left,) = store.waiting(batch.id, limit=10)
    assert (left.number, left.tries) == (3, 1)
    store.finish(found, "expired", answers=lambda row: row.answer if row.status_code == 200 else None, errors=lambda row: None)
    done = now(store, batch)
    assert (done.status, done.completed, done.failed, done.error_file) == ("expired", 1, 2, None)
    assert done.output_file is not None and list(store.lines(done.output_file)) == [b'"first"']
    assert store.file("anna", done.output_file) is not None and store.file("everybody", done.output_file) is None
    assert store.waiting(batch.id, limit=10) == [] and store.claim("one", 100) is None


def test_what_breaks_off_leaves_nothing_half_done(store: BatchStore) -> None:
    batch = store.add_batch(ANNA, endpoint="/v1/chat/completions", window="24h", seconds=100, input_file="file-1", metadata={})

    def breaks() -> Iterator[Row]:
        for number in range(1200):
            yield Row(number=number, custom_id=str(number), body=b"{}")
        raise ValueError

    with pytest.raises(ValueError):
        store.begin(batch.id, breaks())
    assert now(store, batch).status == "validating" and store.waiting(batch.id, limit=1) == []
    store.begin(batch.id, [Row(number=1, custom_id="a", body=b"{}")])
    store.answered(batch.id, 1, status_code=200, request_id="r1", answer=b"{}")

    def fails(row: Row) -> bytes:
        raise ValueError

    with pytest.raises(ValueError):
        store.finish(now(store, batch), "completed", answers=lambda row: row.answer, errors=fails)
    found = now(store, batch)
    assert (found.status, found.output_file) == ("in_progress", None) and store.files("anna", purpose=None, after=None, limit=9) == []


def test_what_is_old_is_forgotten_and_what_is_needed_is_not(store: BatchStore) -> None:
    used, unused = (store.add_file("anna", filename="f", purpose="batch", content=io.BytesIO(b"x")) for _ in range(2))
    open_one = store.add_batch(ANNA, endpoint="/v1/chat/completions", window="24h", seconds=100, input_file=used.id, metadata={})
    done = made(store)
    store.finish(now(store, done), "completed", answers=lambda row: None, errors=lambda row: None)
    store.forget(time.time() - 100)
    assert len(store.files("anna", purpose=None, after=None, limit=9)) == 2
    store.forget(time.time() + 100)
    assert [one.id for one in store.files("anna", purpose=None, after=None, limit=9)] == [used.id]
    assert store.piece(unused.id, 0) is None and store.piece(used.id, 0) == b"x"
    assert store.batch("anna", done.id) is None and store.batch("anna", open_one.id) is not None

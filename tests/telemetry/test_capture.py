"""Captures: written in a thread, unreadable where they must be, read back as they were."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foreword.errors import StoreError
from foreword.store.database import Database, open_database
from foreword.telemetry.capture import CUT, METADATA, MOST_CHARACTERS, Capture, Captured, forget, read, sampled

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def captured(number: int, **fields: object) -> Captured:
    given = {"tenant": "shop", "task": "support", "status": "answered", "at": NOON + timedelta(days=number)}
    return Captured(id=f"id-{number}", **(given | fields))  # type: ignore[arg-type]


def filled(path: Path, *captures: Captured) -> Database:
    capture = Capture(open_database(path), redact=lambda text: text.replace("secret", "[secret]"))
    for each in captures:
        assert capture.take(lambda each=each: each)
    capture.flush()
    capture.close()
    return open_database(path)


def test_what_is_read_is_what_was_taken_with_its_secrets_gone(tmp_path: Path) -> None:
    full = captured(
        1,
        success=True,
        model="small:support",
        prompt="support@v3",
        messages=[{"role": "user", "content": [{"type": "text", "text": "my secret"}]}],
        tools=[{"type": "function", "function": {"name": "find", "description": "secret things"}}],
        called=["find"],
        sources=[("a.md#1", "a secret")],
        answer="secret, too",
        left_out="history -1 dropped",
        input_tokens=12,
        output_tokens=3,
    )
    database = filled(tmp_path / "c.sqlite", full)
    [found] = read(database)
    database.close()
    assert found.messages == [{"role": "user", "content": [{"type": "text", "text": "my [secret]"}]}]
    assert found.tools[0]["function"]["description"] == "[secret] things"
    assert found.sources == (("a.md#1", "a [secret]"),) and found.answer == "[secret], too"
    assert (found.id, found.at, found.success, found.model, found.input_tokens) == ("id-1", full.at, True, "small:support", 12)


def test_they_are_read_in_their_order_by_task_and_day(tmp_path: Path) -> None:
    database = filled(tmp_path / "c.sqlite", captured(3), captured(1), captured(2, task="other"), captured(0, success=False))
    assert [each.id for each in read(database)] == ["id-0", "id-1", "id-2", "id-3"]
    assert [each.id for each in read(database, task="support")] == ["id-0", "id-1", "id-3"]
    assert [each.id for each in read(database, since=NOON + timedelta(days=2))] == ["id-2", "id-3"]
    assert next(iter(read(database))).success is False
    database.close()


def test_a_tenant_and_old_ones_can_be_forgotten(tmp_path: Path) -> None:
    database = filled(tmp_path / "c.sqlite", captured(0), captured(1, tenant="other"), captured(5))
    assert forget(database, tenant="other") == 1
    assert forget(database, before=NOON + timedelta(days=3), tenant="shop") == 1
    assert [each.id for each in read(database)] == ["id-5"]
    with pytest.raises(StoreError, match="Say which"):
        forget(database)
    database.close()


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    database = filled(tmp_path / "c.sqlite", captured(0, answer="x" * (MOST_CHARACTERS + 5)))
    [found] = read(database)
    database.close()
    assert found.answer == "x" * MOST_CHARACTERS + CUT


def test_what_comes_too_fast_is_left_out_and_counted(tmp_path: Path) -> None:
    go = threading.Event()

    def waits() -> Captured:
        assert go.wait(30)
        return captured(0)

    capture = Capture(open_database(tmp_path / "c.sqlite"), redact=str, most_waiting=2)
    assert [capture.take(waits), capture.take(lambda: captured(1)), capture.take(lambda: captured(2))] == [True, True, False]
    go.set()
    capture.flush()
    assert capture.left_out == 1 and capture.take(lambda: captured(3))
    capture.close()


def test_one_that_cannot_be_written_does_not_end_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = filled(tmp_path / "c.sqlite", captured(0, answer=object()), captured(1))
    assert [each.id for each in read(database)] == ["id-1"]
    database.close()
    assert "TypeError" in caplog.text


def test_a_row_of_another_version_is_named(tmp_path: Path) -> None:
    from foreword.telemetry.capture import CAPTURES

    database = open_database(tmp_path / "c.sqlite")
    database.create(METADATA)
    row = {"id": "old", "at": 0.0, "tenant": "t", "task_type": "t", "status": "answered", "success": None, "content": '{"new": 1}'}
    with database.writing() as connection:
        connection.execute(CAPTURES.insert(), row)
    with pytest.raises(StoreError, match="`old` cannot be read"):
        list(read(database))
    database.close()


def test_a_share_is_a_share() -> None:
    ids = [f"chatcmpl-{number}" for number in range(4_000)]
    assert sum(sampled(each, 0.25) for each in ids) == pytest.approx(1_000, abs=150)
    assert not any(sampled(each, 0.0) for each in ids) and all(sampled(each, 1.0) for each in ids)
    assert [sampled(each, 0.5) for each in ids] == [sampled(each, 0.5) for each in ids]

"""Works batches off: their requests walk the path as any other does, but only while hardly anybody waits for an answer.

A server takes a batch on for a few requests and gives it back, the next one in turn, so that a long one keeps no other waiting. A request
that a limit or a busy model refuses waits; one that is wrong, or failed too often, gets the refusal as its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from foreword.errors import StoreError
from foreword.gateway.batch_store import BatchStore
from foreword.gateway.batch_tables import Batch, Row, Status
from foreword.gateway.errors import SERVER, Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path import Path
from foreword.gateway.path_requests import chat_of, passage_of
from foreword.gateway.reading import decode
from foreword.gateway.service import Traffic
from foreword.gateway.shaping import with_id
from foreword.gateway.stage import Parts
from foreword.gateway.wire import Strict

ENDPOINT = "/v1/chat/completions"
LEASE_SECONDS = 10.0
"""For which a batch is a server's that nothing more is heard of."""
SLICE = 32
"""Requests of one batch before the next batch's turn."""
MOST_TRIES = 3
"""Of a request whose models fail."""
MOST_PAUSE = 60.0
"""Seconds for which a batch rests whose next request was refused for the moment."""
POLL_SECONDS, LOOK_AGAIN_SECONDS, LOOK_SECONDS, SWEEP_SECONDS = 0.02, 0.5, 15.0, 3600.0
MOST_ERRORS = 100
"""Of a file that cannot be used, told at most."""
PRIORITY = "-1"
_LATER = frozenset({429, 503})
_AGAIN = frozenset({500, 502, 504})

logger = logging.getLogger(__name__)


class Line(Strict, frozen=True, kw_only=True):
    """A line of a batch's file."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of a request. Attributes: after: seconds until it is worth another try."""

    status_code: int
    body: bytes
    after: float | None = None


class BadFile(Exception):
    """A file that is no batch; `errors` as the batch tells them."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(errors)} lines cannot be used")
        self.errors = errors


class BatchWork:
    """Works off what is in a store, from one event loop."""

    def __init__(
        self, store: BatchStore, path: Path, parts: Parts, traffic: Traffic, *, body_bytes: int, lease: float = LEASE_SECONDS
    ) -> None:
        self._store, self._path, self._parts, self._traffic = store, path, parts, traffic
        self._settings, self._body_bytes, self._lease = parts.settings.batches, body_bytes, lease
        self._task_settings = parts.settings.task("default")
        self._owner = secrets.token_hex(12)
        self._news = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._swept = 0.0

    def start(self) -> None:
        """Begins, in the running loop; does nothing where it has begun."""
        if self._working is None:
            self._working = asyncio.ensure_future(self._work())

    def news(self) -> None:
        """There is something to do."""
        self._news.set()

    async def stop(self) -> None:
        """Gives up what is under way; it is asked again by who goes on."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def close(self) -> None:
        """Stops, and closes the store."""
        await self.stop()
        await asyncio.to_thread(self._store.close)

    async def _work(self) -> None:
        while True:
            self._news.clear()
            try:
                worked = await self._round()
            except StoreError as error:
                logger.warning("batches rest for a while: %s", error)
                worked = False
            except Exception as error:
                # What it says may quote a request, and stays out of the log.
                logger.error("working on a batch failed with %s", type(error).__name__)
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), min(LOOK_SECONDS, self._lease))

    async def _round(self) -> bool:
        """Takes a batch on for a while; False where there is none."""
        if time.monotonic() - self._swept > SWEEP_SECONDS or not self._swept:
            self._swept = time.monotonic()
            await asyncio.to_thread(self._store.forget, time.time() - self._settings.keep_days * 86_400)
        batch = await asyncio.to_thread(self._store.claim, self._owner, self._lease)
        if batch is None:
            return False
        pause = 0.0
        keeping = asyncio.ensure_future(self._keep(batch.id))
        try:
            pause = await self._take_on(batch)
        finally:
            keeping.cancel()
            not_before = time.time() + pause if pause else 0.0
            await asyncio.shield(asyncio.to_thread(self._store.release, batch.id, self._owner, not_before=not_before))
        return True

    async def _keep(self, id: str) -> None:
        """Renews the lease for as long as it is worked on."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await asyncio.to_thread(self._store.renew, id, self._owner, self._lease)
            except StoreError as error:
                logger.warning("the lease on batch %s cannot be renewed: %s", id, error)

    async def _take_on(self, batch: Batch) -> float:
        """One step of a batch; gives the seconds for which it is to rest."""
        if batch.status == "validating":
            await asyncio.to_thread(self._validate, batch)
            return 0.0
        ended = batch.expires_at <= time.time() or batch.status in ("cancelling", "finalizing")
        rows = [] if ended else await asyncio.to_thread(self._store.waiting, batch.id, limit=SLICE)
        if not rows:
            await asyncio.to_thread(self._finish, batch)
            return 0.0
        places = asyncio.Semaphore(self._settings.at_once)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(batch, row, places)) for row in rows]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return max(task.result() for task in tasks)

    # The file.

    def _validate(self, batch: Batch) -> None:
        try:
            self._store.begin(batch.id, _rows(self._store.lines(batch.input_file), batch.endpoint, self._settings.rows, self._body_bytes))
        except BadFile as bad:
            self._store.move(batch.id, "failed", of=("validating",), errors=msgspec.json.encode(bad.errors).decode())

    # Its requests.

    async def _one(self, batch: Batch, row: Row, places: asyncio.Semaphore) -> float:
        """Has a request answered; gives the seconds for which its batch is to rest."""
        async with places:
            if not await self._turn(batch):
                return 0.0
            id, answered = await self._answered(batch, row)
        if answered.status_code in _LATER and time.time() + (answered.after or 1.0) < batch.expires_at:
            return min(answered.after or 1.0, MOST_PAUSE)
        if answered.status_code in _AGAIN and row.tries + 1 < MOST_TRIES:
            await asyncio.to_thread(self._store.failed_once, batch.id, row.number)
            return 1.0
        if self._parts.ledger is not None:
            # What was paid is on the disk before the answer is, so that no answer is there that nobody accounted for.
            await asyncio.to_thread(self._parts.ledger.flush)
        await asyncio.to_thread(
            self._store.answered, batch.id, row.number, status_code=answered.status_code, request_id=id, answer=answered.body
        )
        return 0.0

    async def _turn(self, batch: Batch) -> bool:
        """Waits until hardly anybody else waits for an answer; False where the batch is to end, and none of it is to be begun."""
        looked = time.monotonic()
        while self._traffic.draining or self._traffic.in_flight >= self._settings.busy_from:
            await asyncio.sleep(POLL_SECONDS)
            if time.monotonic() - looked > LOOK_AGAIN_SECONDS:
                looked = time.monotonic()
                if not await asyncio.to_thread(self._store.goes_on, batch.id):
                    return False
        return await asyncio.to_thread(self._store.goes_on, batch.id)

    async def _answered(self, batch: Batch, row: Row) -> tuple[str, Answered]:
        """Walks a request along the path, as its tenant's."""
        try:
            request = chat_of(row.body)
            if request.streams:
                raise Refusal(400, "A batch's requests are answered whole. Leave `stream` out.", code="invalid_value", param="stream")
        except Refusal as refusal:
            return f"req-{secrets.token_hex(12)}", _refused(refusal)
        passage = passage_of(request, tenant=batch.tenant, task=self._task_settings, headers={"foreword-priority": PRIORITY})
        return passage.id, await _walked(self._path, passage)

    # Its end.

    def _finish(self, batch: Batch) -> None:
        to: Status = "completed"
        if batch.status == "cancelling":
            to = "cancelled"
        elif batch.expires_at <= time.time() and self._store.waiting(batch.id, limit=1):
            to = "expired"
        self._store.move(batch.id, "finalizing", of=("in_progress",))
        code, words = ("batch_cancelled", "was cancelled") if to == "cancelled" else ("batch_expired", "ran out of time")
        unanswered = {"code": code, "message": f"The batch {words} before this request had its turn."}
        self._store.finish(batch, to, answers=_answer_line, errors=lambda row: _error_line(row, unanswered))


async def _walked(path: Path, passage: Passage) -> Answered:
    try:
        await path.walk(passage)
        assert passage.reply is not None, "`infer` sets a reply, or refuses"
        return Answered(status_code=200, body=with_id(passage.reply.body, passage.id))
    except Refusal as refusal:
        passage.status = "failed" if refusal.status >= 500 else "refused"
        await path.bill(passage)
        return _refused(refusal)
    except asyncio.CancelledError:
        passage.status = "cancelled"
        await asyncio.shield(path.bill(passage))
        raise
    except Exception as error:
        # What it says may quote the request, and stays out of the log.
        logger.error("request %s of a batch failed with %s", passage.id, type(error).__name__)
        passage.status = "failed"
        await path.bill(passage)
        return _refused(
            Refusal(500, f"The server failed to answer. Its log says more under {passage.id}.", kind=SERVER, code="internal_error")
        )


def _refused(refusal: Refusal) -> Answered:
    after = refusal.headers.get("retry-after", "")
    return Answered(status_code=refusal.status, body=refusal.body, after=float(after) if after.isdecimal() else None)


def _rows(lines: Iterator[bytes], endpoint: str, most: int, most_bytes: int) -> Iterator[Row]:
    """The requests of a file. Raises `BadFile` once all lines have been looked at."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    number = 0
    for place, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        number += 1
        try:
            line = _line(raw, endpoint, seen, most_bytes)
        except Refusal as refusal:
            errors.append({"code": refusal.detail.code, "message": str(refusal), "param": refusal.detail.param, "line": place})
            if len(errors) >= MOST_ERRORS:
                break
            continue
        if number > most:
            errors.append(_whole("too_many_requests", f"A batch holds {most:,} requests at most. Make several of it.", place))
            break
        yield Row(number=number, custom_id=line.custom_id, body=bytes(line.body))
    if not number:
        errors.append(_whole("empty_file", "The file holds no request. Write one in each line.", None))
    if errors:
        raise BadFile(errors)


def _line(raw: bytes, endpoint: str, seen: set[str], most_bytes: int) -> Line:
    """Raises `Refusal`."""
    if len(raw) > most_bytes:
        raise Refusal(413, f"The line is longer than the {most_bytes:,} bytes that this server takes.", code="line_too_large")
    line = decode(_LINE, raw)
    if line.method != "POST":
        raise Refusal(400, f"`method` must be `POST`; got {line.method[:16]!r}.", code="invalid_method", param="method")
    if line.url != endpoint:
        raise Refusal(400, f"`url` must be `{endpoint}`, as the batch's; got {line.url[:80]!r}.", code="mismatched_url", param="url")
    if line.custom_id in seen:
        words = f"`custom_id` {line.custom_id[:64]!r} was used before. Give each request one of its own."
        raise Refusal(400, words, code="duplicate_custom_id", param="custom_id")
    seen.add(line.custom_id)
    return line


def _whole(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _answer_line(row: Row) -> bytes | None:
    return _response(row, error=None) if row.status_code == 200 else None


def _error_line(row: Row, unanswered: dict[str, str]) -> bytes | None:
    if row.status_code == 200:
        return None
    return _response(row, error=unanswered if row.status_code is None else None)


def _response(row: Row, *, error: dict[str, str] | None) -> bytes:
    response = None
    if row.status_code is not None:
        response = {"status_code": row.status_code, "request_id": row.request_id, "body": msgspec.Raw(row.answer or b"null")}
    line = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": row.custom_id, "response": response, "error": error}
    # A model may write its JSON over several lines.
    return msgspec.json.encode(line).replace(b"\r", b" ").replace(b"\n", b" ")


_LINE = msgspec.json.Decoder(Line)

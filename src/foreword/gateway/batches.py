"""`/v1/files` and `/v1/batches`: requests that may wait, handed in as a file and answered as one, as OpenAI's clients know it.

A tenant's files and batches do not exist for any other. They are worked off by `batch_work.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal, cast

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from foreword.gateway.batch_store import BatchStore
from foreword.gateway.batch_tables import INPUT, Batch, StoredFile
from foreword.gateway.batch_work import ENDPOINT, BatchWork
from foreword.gateway.errors import ClientGone, Refusal
from foreword.gateway.path_settings import BatchSettings
from foreword.gateway.reading import read
from foreword.gateway.tenants import Tenant
from foreword.gateway.wire import Strict

MEGABYTE = 1_000_000
MOST_BODY = 64_000
UPLOAD_SECONDS = 600.0
MOST_LISTED, LISTED = 100, 20
MOST_HOURS = 168
_WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
_RAW = frozenset({"application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/octet-stream", "text/plain"})
_FILENAME = re.compile(r"[^\w .()+-]")


class BatchOrder(Strict, frozen=True, kw_only=True):
    """The body of `POST /v1/batches`."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=64)]
    endpoint: str
    completion_window: str
    metadata: Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None = None


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """A file as OpenAI tells of it."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"


_ORDER = msgspec.json.Decoder(BatchOrder)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batches:
    """The routes. Attributes: tenant: whose a request is; raises `Refusal` (401)."""

    store: BatchStore
    work: BatchWork
    settings: BatchSettings
    tenant: Callable[[Request], Tenant]

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.files, methods=["GET"]),
            Route("/v1/files/{id}", self.file, methods=["GET"]),
            Route("/v1/files/{id}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{id}/content", self.content, methods=["GET"]),
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.batches, methods=["GET"]),
            Route("/v1/batches/{id}", self.batch, methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self.cancel, methods=["POST"]),
        ]

    # Files.

    async def upload(self, request: Request) -> Response:
        """Keeps a file: a form with `purpose` and `file`, or the lines themselves as the body, with `?purpose=batch&filename=NAME`."""
        tenant = self.tenant(request)
        most = int(self.settings.file_mb * MEGABYTE)
        left = int(self.settings.tenant_mb * MEGABYTE) - await asyncio.to_thread(self.store.stored_bytes, tenant.name)
        if left <= 0:
            raise Refusal(413, "Your files take all the room that there is for them. Delete some of them.", code="storage_full")
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                async with _uploaded(request, min(most, left)) as (purpose, filename, content):
                    if purpose != INPUT:
                        raise Refusal(400, "`purpose` must be `batch` here.", code="invalid_value", param="purpose")
                    kept = await asyncio.to_thread(
                        self.store.add_file, tenant.name, filename=_plain(filename), purpose=purpose, content=content
                    )
        except TimeoutError:
            raise Refusal(408, f"The file did not arrive within {UPLOAD_SECONDS:.0f} seconds. Send it again.", code="timeout") from None
        return _json(_file(kept))

    async def files(self, request: Request) -> Response:
        """A tenant's files."""
        tenant, (after, limit) = self.tenant(request), _page(request)
        purpose = request.query_params.get("purpose")
        found = await asyncio.to_thread(self.store.files, tenant.name, purpose=purpose, after=after, limit=limit + 1)
        return _listed([_file(one) for one in found], limit)

    async def file(self, request: Request) -> Response:
        """One file."""
        return _json(_file(await self._file(request)))

    async def delete(self, request: Request) -> Response:
        """Removes a file; a batch that has begun does without it."""
        tenant, found = self.tenant(request), await self._file(request)
        if await asyncio.to_thread(self.store.file_in_use, found.id):
            raise Refusal(409, "A batch is about to begin with this file. Delete it a moment later.", code="file_in_use")
        await asyncio.to_thread(self.store.delete_file, tenant.name, found.id)
        return _json({"id": found.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """A file's lines."""
        found = await self._file(request)

        async def pieces() -> AsyncIterator[bytes]:
            number = 0
            while (piece := await asyncio.to_thread(self.store.piece, found.id, number)) is not None:
                yield piece
                number += 1

        headers = {"content-length": str(found.bytes), "x-content-type-options": "nosniff"}
        return StreamingResponse(pieces(), headers=headers, media_type="application/jsonl")

    async def _file(self, request: Request) -> StoredFile:
        tenant, id = self.tenant(request), request.path_params["id"]
        found = await asyncio.to_thread(self.store.file, tenant.name, id)
        if found is None:
            raise Refusal(404, f"There is no file `{id[:64]}`. `GET /v1/files` lists yours.", code="file_not_found", param="id")
        return found

    # Batches.

    async def create(self, request: Request) -> Response:
        """Takes a batch on."""
        tenant = self.tenant(request)
        order = await read(request, _ORDER, most_bytes=MOST_BODY)
        if order.endpoint != ENDPOINT:
            raise Refusal(400, f"`endpoint` must be `{ENDPOINT}`; got {order.endpoint[:80]!r}.", code="invalid_value", param="endpoint")
        seconds = _seconds(order.completion_window)
        found = await asyncio.to_thread(self.store.file, tenant.name, order.input_file_id)
        if found is None or found.purpose != INPUT:
            words = f"There is no file `{order.input_file_id}` with the purpose `batch`. Upload it with `POST /v1/files`."
            raise Refusal(404 if found is None else 400, words, code="file_not_found", param="input_file_id")
        if await asyncio.to_thread(self.store.open_batches, tenant.name) >= self.settings.open:
            words = f"{self.settings.open} of your batches are not finished. Wait for one, or cancel one."
            raise Refusal(429, words, kind="rate_limit_error", code="too_many_batches", headers={"retry-after": "60"})
        made = await asyncio.to_thread(
            self.store.add_batch,
            tenant,
            endpoint=order.endpoint,
            window=order.completion_window,
            seconds=seconds,
            input_file=order.input_file_id,
            metadata=order.metadata or {},
        )
        self.work.news()
        return _json(_told(made))

    async def batches(self, request: Request) -> Response:
        """A tenant's batches."""
        tenant, (after, limit) = self.tenant(request), _page(request)
        found = await asyncio.to_thread(self.store.batches, tenant.name, after=after, limit=limit + 1)
        return _listed([_told(one) for one in found], limit)

    async def batch(self, request: Request) -> Response:
        """One batch."""
        return _json(_told(await self._batch(request)))

    async def cancel(self, request: Request) -> Response:
        """Begins no further request of a batch; those that have their answer keep it."""
        found = await self._batch(request)
        if not await asyncio.to_thread(self.store.move, found.id, "cancelling", of=("validating", "in_progress")):
            found = await self._batch(request)
            if found.status != "cancelling":
                raise Refusal(409, f"The batch is {found.status}, and cannot be cancelled any more.", code="batch_not_cancellable")
        self.work.news()
        return _json(_told(await self._batch(request)))

    async def _batch(self, request: Request) -> Batch:
        tenant, id = self.tenant(request), request.path_params["id"]
        found = await asyncio.to_thread(self.store.batch, tenant.name, id)
        if found is None:
            raise Refusal(404, f"There is no batch `{id[:64]}`. `GET /v1/batches` lists yours.", code="batch_not_found", param="id")
        return found


@contextlib.asynccontextmanager
async def _uploaded(request: Request, most: int) -> AsyncIterator[tuple[str, str, BinaryIO]]:
    """Purpose, name and content of an upload; kept out of memory where it is large. Raises `Refusal`, `ClientGone`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with _form(request, most) as form:
            yield form
        return
    if kind not in _RAW:
        words = "Send the file as a form (`multipart/form-data`), or its lines as the body with `Content-Type: application/jsonl`."
        raise Refusal(415, words, code="unsupported_media_type")
    with tempfile.SpooledTemporaryFile(max_size=MEGABYTE) as held:
        async for piece in _limited(request, most):
            await asyncio.to_thread(held.write, piece)
        held.seek(0)
        yield request.query_params.get("purpose", ""), request.query_params.get("filename", "batch.jsonl"), cast(BinaryIO, held)


@contextlib.asynccontextmanager
async def _form(request: Request, most: int) -> AsyncIterator[tuple[str, str, BinaryIO]]:
    try:
        import python_multipart  # noqa: F401
    except ModuleNotFoundError:
        words = "This server reads no forms. Send the lines as the body, with `Content-Type: application/jsonl` and `?purpose=batch`."
        raise Refusal(415, words, code="unsupported_media_type") from None
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    parser = MultiPartParser(request.headers, _limited(request, most + MOST_BODY), max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it has no boundary"
        raise Refusal(400, f"The form cannot be read: {reason[:200]}. Send `purpose` and `file`.", code="invalid_form") from None
    try:
        unknown = sorted(set(form) - {"purpose", "file"})
        if unknown:
            raise Refusal(400, f"`{unknown[0][:64]}` is not known here. Leave it out.", code="unknown_parameter", param=unknown[0][:64])
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise Refusal(400, "`file` is missing. Send the batch's lines as a file.", code="missing_parameter", param="file")
        if (file.size or 0) > most:
            raise _too_large(most)
        yield purpose if isinstance(purpose, str) else "", file.filename or "batch.jsonl", file.file
    finally:
        await form.close()


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    total, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        total += len(piece)
        if total > most:
            raise _too_large(most)
        more = message.get("more_body", False)
        if piece:
            yield piece


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"The file is larger than the {most:,} bytes that there is room for. Send a smaller one.", code="file_too_large")


def _seconds(window: str) -> float:
    found = _WINDOW.fullmatch(window)
    if found is None or int(found[1]) > MOST_HOURS:
        words = f"`completion_window` must be hours such as `24h`, `{MOST_HOURS}h` at most; got {window[:40]!r}."
        raise Refusal(400, words, code="invalid_value", param="completion_window")
    return int(found[1]) * 3600.0


def _page(request: Request) -> tuple[str | None, int]:
    """`after` and `limit`. Raises `Refusal` (400)."""
    limit = request.query_params.get("limit", str(LISTED))
    if not limit.isascii() or not limit.isdecimal() or len(limit) > 6 or int(limit) < 1:
        raise Refusal(400, f"`limit` must be a number from 1 to {MOST_LISTED}; got {limit[:40]!r}.", code="invalid_value", param="limit")
    return request.query_params.get("after"), min(int(limit), MOST_LISTED)


def _plain(filename: str) -> str:
    return _FILENAME.sub("_", filename.replace("\\", "/").rpartition("/")[2])[:200] or "batch.jsonl"


def _file(kept: StoredFile) -> FileObject:
    return FileObject(id=kept.id, bytes=kept.bytes, created_at=int(kept.at), filename=kept.filename, purpose=kept.purpose)


def _told(batch: Batch) -> dict[str, Any]:
    """As OpenAI tells of a batch."""
    times = {f"{status}_at": int(at) for status, at in batch.times.items()}
    names = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.at),
        "expires_at": int(batch.expires_at),
        **{name: times.get(name) for name in names},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata or None,
    }


def _listed(found: list[Any], limit: int) -> Response:
    shown = found[:limit]
    ids = [one.id if isinstance(one, FileObject) else one["id"] for one in shown]
    told = {
        "object": "list",
        "data": shown,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": len(found) > limit,
    }
    return _json(told)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")

"""An agent behind HTTP: its card, and `message/send`, `tasks/get` and `tasks/cancel` as JSON-RPC. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from foreword.agent.a2a import (
    CARD_PATHS,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MOST_BYTES,
    PARSE_ERROR,
    UNSUPPORTED_OPERATION,
    Card,
    Refused,
    SendParams,
    Skill,
    TaskParams,
    Wire,
    loads,
    problem,
    text_of,
)
from foreword.agent.a2a_tasks import Job, Jobs, Works

EVERYBODY = "everybody"
"""Who asks where no keys are set up."""
BODY_SECONDS = 30.0
WAIT_SECONDS = 60.0
"""How long `message/send` waits for the end; then the task is told of as it is, to be looked for with `tasks/get`."""

Admit = Callable[[str | None], str | None]
"""Whose `Authorization` header it is; None where nobody's."""


def build(
    worker_for: Callable[[str], Works],
    *,
    name: str,
    description: str,
    version: str,
    public_url: str | None = None,
    admit: Admit | None = None,
    at_once: int = 4,
    most_waiting: int = 64,
    wait_seconds: float = WAIT_SECONDS,
) -> Starlette:
    """The application of one agent.

    Args:
        worker_for: who works for a caller, by the caller's name (`everybody` without keys); called for each task.
        public_url: where the agent is reached, for its card; otherwise the address that the card was asked of.
        admit: whose key it is; None lets everybody send tasks. The card is for everybody.
        at_once, most_waiting: tasks that are worked on together, and that wait besides; further ones are rejected.
        wait_seconds: how long a request may wait for its task.
    """
    service = _Service(worker_for, admit=admit, at_once=at_once, most_waiting=most_waiting, wait_seconds=wait_seconds)

    async def card(request: Request) -> Response:
        url = public_url or f"{request.url.scheme}://{request.url.netloc}/"
        answer = _card(name, description, version, url, with_keys=admit is not None).json_object()
        # Made of the request's own address, so it is this client's and nobody else's.
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    routes = [Route(path, card, methods=["GET"]) for path in CARD_PATHS]
    app = Starlette(routes=[*routes, Route("/", service.answer, methods=["POST"])], lifespan=lifespan)
    app.state.service = service
    return app


class _Service:
    def __init__(
        self, worker_for: Callable[[str], Works], *, admit: Admit | None, at_once: int, most_waiting: int, wait_seconds: float
    ) -> None:
        self._worker_for, self._admit, self._wait_seconds = worker_for, admit, wait_seconds
        self._at_once, self._most_waiting = at_once, most_waiting
        self._jobs: Jobs | None = None

    @property
    def jobs(self) -> Jobs:
        """Made with the first request, in the loop that serves."""
        if self._jobs is None:
            self._jobs = Jobs(self._worker_for, at_once=self._at_once, most_waiting=self._most_waiting)
        return self._jobs

    async def close(self) -> None:
        """Ends all tasks."""
        if self._jobs is not None:
            await self._jobs.close()

    async def answer(self, request: Request) -> Response:
        """One JSON-RPC request."""
        owner = EVERYBODY if self._admit is None else self._admit(request.headers.get("authorization"))
        if owner is None:
            return _http_error(401, "The key is missing or not known. Send `Authorization: Bearer KEY`.", {"www-authenticate": "Bearer"})
        # A web page can post text/plain to any address without asking first, and JSON it cannot.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _http_error(415, "The body must be JSON: send it with the header `Content-Type: application/json`.")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except TimeoutError:
            return _http_error(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.")
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _http_error(413, f"The body is larger than {MOST_BYTES:,} bytes.")
        number: Any = None
        try:
            number, method, params = _read(body)
            result = await self._done(owner, method, params)
        except Refused as error:
            return JSONResponse({"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": str(error)}})
        return JSONResponse({"jsonrpc": "2.0", "id": number, "result": result})

    async def _done(self, owner: str, method: str, params: Any) -> dict[str, Any]:
        if method == "message/send":
            return await self._sent(owner, _shaped(SendParams, params))
        if method in ("tasks/get", "tasks/cancel"):
            wanted = _shaped(TaskParams, params)
            job = self.jobs.get(owner, wanted.id)
            if method == "tasks/cancel":
                await self.jobs.cancel(job)
            return job.task(wanted.history_length).json_object()
        raise Refused(METHOD_NOT_FOUND, f"`{method[:64]}` is not done here. Methods: message/send, tasks/get, tasks/cancel.")

    async def _sent(self, owner: str, params: SendParams) -> dict[str, Any]:
        if params.message.task_id is not None:
            self.jobs.get(owner, params.message.task_id)
            raise Refused(UNSUPPORTED_OPERATION, "A task takes no further messages here. Send a new one, without `taskId`.")
        job: Job = self.jobs.add(owner, params.message, text_of(params.message.parts))
        if params.configuration.blocking:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.ended.wait(), self._wait_seconds)
        return job.task(params.configuration.history_length).json_object()


def _read(body: bytes) -> tuple[Any, str, Any]:
    try:
        call = loads(body)
    except ValueError as error:
        raise Refused(PARSE_ERROR, f"The body is no JSON: {error}") from None
    number = call.get("id") if isinstance(call, dict) else None
    if not isinstance(call, dict) or call.get("jsonrpc") != "2.0" or not isinstance(call.get("method"), str):
        raise Refused(INVALID_REQUEST, 'Send one JSON-RPC request: {"jsonrpc": "2.0", "id": 1, "method": ..., "params": ...}.')
    if isinstance(number, bool) or not isinstance(number, str | int):
        raise Refused(INVALID_REQUEST, "A request has an `id`, a text or a number.")
    return number, call["method"], call.get("params")


def _shaped(shape: type[Any], params: Any) -> Any:
    try:
        return shape.model_validate(params)
    except ValidationError as error:
        raise Refused(INVALID_PARAMS, f"The parameters do not fit: {problem(error)}.") from None


async def _body(request: Request) -> bytes | None:
    """The body; None where it is too large."""
    pieces, total = [], 0
    async for piece in request.stream():
        total += len(piece)
        if total > MOST_BYTES:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _http_error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"code": INVALID_REQUEST, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status_code=status, headers=headers)


def _card(name: str, description: str, version: str, url: str, *, with_keys: bool) -> Wire:
    return Card(
        name=name,
        description=description,
        url=url,
        version=version,
        capabilities={"streaming": False, "pushNotifications": False, "stateTransitionHistory": False},
        skills=(Skill(id="work", name=name, description=description, tags=("agent",)),),
        security_schemes={"bearer": {"type": "http", "scheme": "bearer"}} if with_keys else None,
        security=({"bearer": []},) if with_keys else None,
    )

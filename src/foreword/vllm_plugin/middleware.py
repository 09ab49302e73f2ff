"""The ASGI middleware that vLLM loads: `--middleware foreword.vllm_plugin.PrefixMiddleware`.

A client asks for `base:my-prefix` as its model, on any endpoint that has a model. vLLM is asked for `base`, with the prefix named in a
field that clients cannot set. Middlewares named on the command line stand before vLLM's own, the check of API keys included. So nothing
is answered here before vLLM has had its say on the client.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from foreword.errors import ConfigError, PrefixError, PrefixMismatch, StoreError, WindowError
from foreword.prefix.store import PrefixStore
from foreword.vllm_plugin import requests
from foreword.vllm_plugin.files import SoundFiles
from foreword.vllm_plugin.model_facts import ModelFacts
from foreword.vllm_plugin.names import SEPARATOR, Found, ModelName, Names, parse
from foreword.vllm_plugin.requests import ROUTES, TEMPLATE_KEY, Body
from foreword.vllm_plugin.settings import PluginSettings

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MODELS = "/v1/models"


class PrefixMiddleware:
    """Lets clients choose a prefix by model name."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._server: _Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] == "GET" and path == MODELS:
            await self._list_models(scope, receive, send)
        elif scope["method"] == "POST" and not _header(scope, b"content-type").startswith(b"multipart/"):
            await self._take(path, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _take(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await _read(receive)
        if raw is None:
            return
        body = _decoded(raw)
        if body is None:
            await self._app(scope, _replay(raw, receive), send)
            return
        cleaned = requests.without_transfer(body)
        server = self._server_of(scope)
        model = cleaned.get("model")
        name = parse(model, server.served()) if isinstance(model, str) else None
        if name is None or name.prefix is None:
            await self._pass_on(scope, receive, send, raw if cleaned is body else _encoded(cleaned))
            return
        request = _Request(path=path, body=cleaned, size=len(raw), name=name, prefix=name.prefix)
        try:
            new = await self._checked(server, request, scope, receive)
        except _Refusal as refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        await self._pass_on(scope, receive, _Renaming(send, base=name.base, name=str(model)), _encoded(new))

    async def _checked(self, server: _Server, request: _Request, scope: Scope, receive: Receive) -> Body:
        """The body for vLLM; raises `_Refusal`."""
        route = ROUTES.get(request.path)
        if route is None:
            raise _Refusal(
                400, "BadRequestError", f"`{request.path}` does not take a model name with a prefix; ask for `{request.name.base}`."
            )
        found = await server.find(request)
        if (reason := requests.refusal(request.path, request.body)) is not None:
            raise _Refusal(400, "BadRequestError", reason)
        continues = found.header.prompt_format == "continuation"
        if continues and route.templated(request.body) and not server.continues:
            raise _Refusal(
                501,
                "NotImplementedError",
                f"Prefix `{request.prefix}` holds the start of a conversation, and this vLLM was started without a chat template that can "
                "go on from one. Start it with the command line that `foreword serve --engine vllm` prints.",
            )
        new = requests.rewritten(request.path, request.body, base=request.name.base, reference=found.reference, continues=continues)
        if route.generates:
            await self._check_room(server, request, new, found, scope, receive)
        return new

    async def _check_room(self, server: _Server, request: _Request, new: Body, found: Found, scope: Scope, receive: Receive) -> None:
        """Raises `_Refusal` where prefix and prompt fill the window; the engine would find out too late to tell the client why."""
        count = requests.given_tokens(new)
        if count is None and requests.may_be_long(request.size, server.facts.window - found.header.positions):
            mounted_at = scope["path"].removesuffix(request.path)
            count = 0
            for path, body in ROUTES[request.path].counted_by(new) or ():
                answer = await self._ask(mounted_at + path, body, scope, receive)
                # What cannot be counted cannot be answered either, and vLLM says why.
                count = max(count, requests.counted(json.loads(answer.body)) if answer.status == 200 else 0)
        limit = new.get("truncate_prompt_tokens")
        if isinstance(limit, int) and limit > 0:
            count = min(count or 0, limit)
        try:
            server.facts.check_room(found.header, count or 0)
        except WindowError as error:
            raise _Refusal(400, "BadRequestError", str(error)) from None

    async def _refuse(self, refusal: _Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a refusal, unless vLLM refuses this client anyway (a missing key, a server that drains): then with vLLM's."""
        answer = await self._ask(scope["path"], {}, scope, receive)
        if answer.status in (401, 403, 429) or answer.status >= 500:
            await answer.replay(send)
        else:
            await _answer(send, refusal.status, refusal.content)

    async def _ask(self, path: str, body: Body, scope: Scope, receive: Receive) -> _Answer:
        """What vLLM answers to this client for another body. An empty one reaches no engine: every endpoint misses something in it."""
        answer = _Answer()
        scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(*_request(scope, receive, _encoded(body)), answer.send)
        return answer

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, raw: bytes) -> None:
        await self._app(*_request(scope, receive, raw), send)

    async def _list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer()
        await self._app(scope, receive, answer.send)
        listing = _decoded(bytes(answer.body)) if answer.status == 200 else None
        if listing is None or not isinstance(listing.get("data"), list):
            await answer.replay(send)
            return
        server = self._server_of(scope)
        # Reads folders: some milliseconds where there are thousands of names.
        references = await asyncio.to_thread(server.names.listed)
        listing["data"] += server.cards(listing["data"], references)
        await _answer(send, 200, listing)

    def _server_of(self, scope: Scope) -> _Server:
        if self._server is None:
            self._server = _Server.read(scope["app"].state)
        return self._server


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    path: str
    body: Body
    size: int
    name: ModelName
    prefix: str


class _Refusal(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        param = "model" if status == 404 else None
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What is known of the vLLM behind the middleware, from the state of its app.

    Attributes:
        continues: its chat template can go on from a prefix that holds the start of the conversation.
    """

    state: Any
    names: Names
    facts: ModelFacts
    sound: SoundFiles
    continues: bool

    @classmethod
    def read(cls, state: Any) -> _Server:
        config = state.vllm_config
        if config.kv_transfer_config is None:
            raise ConfigError("The middleware of Foreword needs its connector too; start vLLM with `--kv-transfer-config` as well.")
        settings = PluginSettings.read(config.kv_transfer_config.kv_connector_extra_config)
        return cls(
            state=state,
            names=Names(PrefixStore(settings.prefixes)),
            facts=ModelFacts.read(config.model_config, settings.fingerprint),
            sound=SoundFiles(),
            continues=_continues(state.online_renderer),
        )

    def served(self) -> frozenset[str]:
        """Names that vLLM itself answers to, adapters included; those come and go."""
        models = self.state.openai_serving_models
        return frozenset(path.name for path in models.base_model_paths) | frozenset(models.lora_requests)

    async def find(self, request: _Request) -> Found:
        """The prefix a request asks for, sound and made for this model; raises `_Refusal`."""
        unknown = _Refusal(404, "NotFoundError", f"The model `{request.name.base}{SEPARATOR}{request.prefix[:120]}` does not exist.")
        if request.name.base in self.state.openai_serving_models.lora_requests:
            raise unknown
        try:
            found = self.names.find(request.prefix)
            self.facts.check(found.header)
            if found.identity not in self.sound:
                await asyncio.to_thread(self.sound.verify, found)
        except StoreError:
            # The store's own message suggests near names, and those may be somebody else's.
            raise unknown from None
        except PrefixMismatch as error:
            raise _Refusal(409, "ConflictError", str(error)) from None
        except PrefixError as error:
            logger.error("Prefix %s cannot be served: %s", request.prefix, error)
            message = f"Prefix `{request.prefix}` cannot be served: its file is damaged. It has to be published again."
            raise _Refusal(500, "InternalServerError", message) from None
        return found

    def cards(self, known: list[Any], references: tuple[str, ...]) -> list[dict[str, Any]]:
        """Entries of `/v1/models` for prefixes, under the first name that the model is served by."""
        base = self.state.openai_serving_models.base_model_paths[0].name
        card = next((card for card in known if isinstance(card, dict) and card.get("id") == base), {})
        shared = {key: card[key] for key in ("object", "created", "max_model_len") if key in card}
        return [
            shared | {"id": f"{base}{SEPARATOR}{reference}", "owned_by": "foreword", "root": base, "parent": base, "permission": []}
            for reference in references
        ]


def _continues(renderer: Any) -> bool:
    """Some models have their prompts written by code of vLLM's own, which asks no chat template."""
    by_template = not renderer.use_harmony and type(renderer.renderer).__name__ == "HfRenderer"
    return by_template and TEMPLATE_KEY in (renderer.chat_template or "")


class _Answer:
    """Takes in a whole answer."""

    def __init__(self) -> None:
        self.start: Message = {"type": "http.response.start", "status": 500, "headers": []}
        self.body = bytearray()

    @property
    def status(self) -> int:
        return self.start["status"]

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def replay(self, send: Send) -> None:
        await send(self.start)
        await send({"type": "http.response.body", "body": bytes(self.body)})


class _Renaming:
    """Puts the name that the client asked for into the `model` field of answers, whole ones and streamed ones.

    JSON escapes quotes inside texts, so these very bytes are never part of one.
    """

    def __init__(self, send: Send, *, base: str, name: str) -> None:
        self._send = send
        self._old, self._new = (f'"model":{json.dumps(model, ensure_ascii=False)}'.encode() for model in (base, name))
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body = message.get("body", b"").replace(self._old, self._new)
        if self._start is not None:
            start, self._start = self._start, None
            if not message.get("more_body", False):
                start = {**start, "headers": _with_length(start.get("headers", ()), len(body))}
            else:
                start = {**start, "headers": _without_length(start.get("headers", ()))}
            await self._send(start)
        await self._send({**message, "body": body})


def _request(scope: Scope, receive: Receive, raw: bytes) -> tuple[Scope, Receive]:
    """The same request with another body."""
    return {**scope, "headers": _with_length(scope["headers"], len(raw))}, _replay(raw, receive)


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _replay(raw: bytes, receive: Receive) -> Receive:
    """Gives a body once, then what the server has to say (that the client went away)."""
    pending = True

    async def replayed() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": raw, "more_body": False}
        return await receive()

    return replayed


async def _answer(send: Send, status: int, content: object) -> None:
    raw = _encoded(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key.lower() == name), b"")


def _without_length(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in headers if key.lower() not in (b"content-length", b"transfer-encoding")]


def _with_length(headers: Any, length: int) -> list[tuple[bytes, bytes]]:
    return [*_without_length(headers), (b"content-length", str(length).encode())]


def _decoded(raw: bytes) -> Body | None:
    """A JSON object, or None for anything else, which vLLM may refuse in its own words."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _encoded(value: object) -> bytes:
    # In ASCII, so that half a surrogate pair in a client's text reaches vLLM as it came.
    return json.dumps(value, separators=(",", ":")).encode()

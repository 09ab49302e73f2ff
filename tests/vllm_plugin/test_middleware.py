"""The middleware in front of an application that answers as vLLM does: one token per word, keys checked behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from foreword.vllm_plugin.middleware import PrefixMiddleware

KEY = "secret-key"


class HfRenderer:
    """vLLM's name for what renders chat templates."""


@dataclass
class Upstream:
    """What vLLM is to the middleware, and what reached it."""

    state: Any
    key: str | None = None
    counts: bool = True
    seen: list[tuple[str, Any]] = field(default_factory=list)
    disconnected: bool = False

    def __post_init__(self) -> None:
        self.stack = PrefixMiddleware(self.inner)

    async def __call__(self, scope, receive, send) -> None:
        scope["app"] = self
        await self.stack(scope, receive, send)

    async def inner(self, scope, receive, send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        if self.key and path.startswith("/v1") and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            await self.answer(send, 401, {"error": "Unauthorized"})
            return
        if path == "/v1/models":
            await self.answer(send, 200, {"object": "list", "data": [{"id": "base", "object": "model", "created": 7, "max_model_len": 64}]})
            return
        raw = (await receive())["body"]
        assert int(headers[b"content-length"]) == len(raw)
        body = json.loads(raw)
        if body == {}:
            await self.answer(send, 400, {"error": {"message": "messages missing", "code": 400}})
            return
        self.seen.append((path, body))
        await self.handle(path, body, receive, send)

    async def handle(self, path: str, body: Any, receive: Any, send: Any) -> None:
        if body.get("model") not in ("base", "alias", "adapter"):
            error = {"message": f"The model `{body.get('model')}` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
            await self.answer(send, 404, {"error": error})
        elif path.endswith("/tokenize"):
            count = len(" ".join(message["content"] for message in body["messages"]).split())
            await self.answer(send, 200 if self.counts else 501, {"count": count})
        elif body.get("stream"):
            await self.stream(body, send)
        elif body.get("wait_for_disconnect"):
            self.disconnected = (await receive())["type"] == "http.disconnect"
        else:
            text = 'no: "model":"base"'
            await self.answer(send, 200, {"id": "1", "model": body["model"], "choices": [{"message": {"content": text}}]})

    async def stream(self, body: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in ("Hel", "lo"):
            event = {"object": "chat.completion.chunk", "model": body["model"], "choices": [{"delta": {"content": piece}}]}
            await send({"type": "http.response.body", "body": f"data: {compact(event)}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def answer(self, send: Any, status: int, content: Any) -> None:
        raw = compact(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    chunks: list[bytes]

    @property
    def raw(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        assert int(self.headers[b"content-length"]) == len(self.raw)
        return json.loads(self.raw)

    @property
    def message(self) -> str:
        return self.json["error"]["message"]


def ask(
    app: Upstream,
    path: str,
    body: Any = None,
    *,
    method: str = "POST",
    key: str | None = None,
    content_type: bytes = b"application/json",
    pieces: int = 1,
    root_path: str = "",
) -> Answer:
    """One request through the application, its body in as many messages as asked for."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    size = max(-(-len(raw) // pieces), 1)
    parts = [raw[start : start + size] for start in range(0, len(raw), size)] or [b""]
    messages = [{"type": "http.request", "body": part, "more_body": number < len(parts) - 1} for number, part in enumerate(parts)]
    headers = [(b"Content-Type", content_type), (b"content-length", str(len(raw)).encode())]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    scope = {"type": "http", "method": method, "path": root_path + path, "root_path": root_path, "headers": headers, "query_string": b""}
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "headers": [(name.lower(), value) for name, value in headers]}, receive, send))
    if not sent:
        return Answer(0, {}, [])
    return Answer(sent[0]["status"], dict(sent[0]["headers"]), [message["body"] for message in sent[1:]])


def chat(model: str, text: str = "Hello there", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
def upstream(store, make_prefix, model_config) -> Callable[..., Upstream]:
    """`upstream(key=…, template=…)`: an application whose store holds three prefixes."""
    store.publish(make_prefix("support", positions=5, seed=1))
    store.publish(make_prefix("support", positions=5, seed=2))
    store.alias("support", "prod", 1)
    store.publish(make_prefix("started", positions=5, prompt_format="continuation"))
    store.publish(make_prefix("foreign", fingerprint=make_prefix().header.fingerprint.model_copy(update={"weights": "e" * 64})))

    def make(*, template: str | None = "{% if foreword_continuation %}", window: int = 5000, **fields: Any) -> Upstream:
        extra = {"prefixes": str(store.root), "fingerprint": make_prefix().header.fingerprint.model_dump()}
        state = SimpleNamespace(
            vllm_config=SimpleNamespace(
                kv_transfer_config=SimpleNamespace(kv_connector_extra_config=extra), model_config=model_config(max_model_len=window)
            ),
            openai_serving_models=SimpleNamespace(
                base_model_paths=[SimpleNamespace(name="base"), SimpleNamespace(name="alias")], lora_requests={"adapter": object()}
            ),
            online_renderer=SimpleNamespace(use_harmony=False, renderer=HfRenderer(), chat_template=template),
        )
        return Upstream(state, **fields)

    return make


def test_a_prefix_is_asked_for_by_model_name(upstream):
    app = upstream()
    answer = ask(app, "/v1/chat/completions", chat("base:support", temperature=0))
    assert answer.status == 200 and answer.json["model"] == "base:support"
    assert app.seen == [("/v1/chat/completions", chat("base", temperature=0) | {"kv_transfer_params": {"prefix": "support@v2"}})]


def test_an_alias_and_any_served_name_do_as_well(upstream):
    app = upstream()
    assert ask(app, "/v1/chat/completions", chat("alias:support@prod")).json["model"] == "alias:support@prod"
    assert app.seen[0][1]["model"] == "alias" and app.seen[0][1]["kv_transfer_params"] == {"prefix": "support@v1"}


def test_texts_in_answers_are_left_alone(upstream):
    answer = ask(upstream(), "/v1/chat/completions", chat("base:support"))
    assert answer.json["choices"][0]["message"]["content"] == 'no: "model":"base"'


def test_streamed_answers_stay_streams_and_carry_the_name(upstream):
    answer = ask(upstream(), "/v1/chat/completions", chat("base:support", stream=True))
    assert answer.status == 200 and b"content-length" not in answer.headers and len(answer.chunks) == 3
    events = [json.loads(chunk.removeprefix(b"data: ")) for chunk in answer.chunks[:2]]
    assert [event["model"] for event in events] == ["base:support"] * 2
    assert answer.chunks[2] == b"data: [DONE]\n\n"


def test_the_bare_model_is_passed_on_byte_for_byte(upstream):
    app = upstream()
    raw = b'{ "model": "base",\n "messages": [{"content": "\\ud83d h\xc3\xa9"}] }'
    answer = ask(app, "/v1/chat/completions", raw, pieces=5)
    assert answer.json["model"] == "base" and app.seen[0][1] == json.loads(raw)


def test_half_a_character_in_a_clients_text_arrives_as_it_came(upstream):
    app = upstream()
    ask(app, "/v1/chat/completions", chat("base:support", "\ud83d"))
    assert app.seen[0][1]["messages"][0]["content"] == "\ud83d"


def test_clients_cannot_name_a_prefix_past_the_model_field(upstream):
    app = upstream()
    smuggled = chat("base", kv_transfer_params={"prefix": "support"}, vllm_xargs={"kv_transfer_params": "support"})
    ask(app, "/v1/chat/completions", smuggled)
    # Escapes in a key are the same key.
    ask(
        app,
        "/invocations",
        b'{"model": "base", "messages": [], "kv\\u005ftransfer_params": {"prefix": "support"}}',
        content_type=b"text/plain",
    )
    assert app.seen == [("/v1/chat/completions", chat("base", vllm_xargs={})), ("/invocations", {"model": "base", "messages": []})]


def test_a_client_that_names_two_gets_the_one_of_the_model_field(upstream):
    app = upstream()
    ask(app, "/v1/chat/completions", chat("base:support@prod", kv_transfer_params={"prefix": "started"}))
    assert app.seen[0][1]["kv_transfer_params"] == {"prefix": "support@v1"}


@pytest.mark.parametrize("prefix", ["nobody", "", "support@v9", "support@beta", "../../etc", "a b"])
def test_unknown_names_are_not_found(upstream, prefix):
    app = upstream()
    answer = ask(app, "/v1/chat/completions", chat(f"base:{prefix}"))
    assert answer.status == 404
    expected = {"message": f"The model `base:{prefix}` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
    assert answer.json == {"error": expected} and app.seen == []


def test_unknown_models_and_adapters_take_no_prefix(upstream):
    app = upstream()
    assert ask(app, "/v1/chat/completions", chat("nobody:support")).message == "The model `nobody:support` does not exist."
    assert ask(app, "/v1/chat/completions", chat("adapter:support")).status == 404
    assert ask(app, "/v1/chat/completions", chat("adapter")).status == 200


def test_a_client_without_a_key_learns_no_name(upstream):
    app = upstream(key=KEY, window=64)
    answers = [ask(app, "/v1/chat/completions", chat(model)) for model in ("base:support", "base:nobody", "base:foreign")]
    answers.append(ask(app, "/v1/chat/completions", chat("base:support", prompt_logprobs=1)))
    answers.append(ask(app, "/v1/chat/completions", chat("base:support", "word " * 700)))
    answers.append(ask(app, "/v1/models", method="GET"))
    assert {(answer.status, answer.raw) for answer in answers} == {(401, b'{"error":"Unauthorized"}')}
    # As in vLLM, counting tokens asks for no key.
    assert {path for path, _ in app.seen} == {"/tokenize"}
    assert ask(app, "/v1/chat/completions", chat("base:nobody"), key=KEY).status == 404


def test_prompt_log_probabilities_are_refused(upstream):
    app = upstream()
    for fields in ({"prompt_logprobs": 1}, {"echo": True}):
        answer = ask(app, "/v1/chat/completions", chat("base:support", **fields))
        assert answer.status == 400 and "without the prefix" in answer.message
    assert app.seen == []
    assert ask(app, "/v1/chat/completions", chat("base", prompt_logprobs=1)).status == 200


def test_a_prompt_that_does_not_fit_is_refused_before_the_engine_sees_it(upstream):
    app = upstream(window=64)
    answer = ask(app, "/v1/chat/completions", chat("base:support", "word " * 59))
    assert answer.status == 400 and "maximum context length is 64" in answer.message
    assert [path for path, _ in app.seen] == ["/tokenize"] and app.seen[0][1]["model"] == "base"
    assert ask(app, "/v1/chat/completions", chat("base:support", "word " * 58)).status == 200


def test_token_ids_are_counted_as_they_are(upstream):
    app = upstream(window=64)
    body = {"model": "base:support", "token_ids": [1] * 59, "sampling_params": {}}
    assert ask(app, "/inference/v1/generate", body).status == 400
    assert ask(app, "/inference/v1/generate", body | {"token_ids": [1] * 58}).status == 200
    assert [path for path, _ in app.seen] == ["/inference/v1/generate"]


def test_a_server_that_cannot_count_leaves_the_count_to_the_engine(upstream):
    app = upstream(counts=False, window=64)
    assert ask(app, "/v1/chat/completions", chat("base:support", "word " * 700)).status == 200


def test_a_prefix_for_another_model_is_a_conflict(upstream):
    answer = ask(upstream(), "/v1/chat/completions", chat("base:foreign"))
    assert answer.status == 409 and "weights" in answer.message


def test_a_damaged_file_is_the_servers_fault_and_tells_no_path(upstream, store):
    app = upstream()
    path = store.resolve("support").path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = ask(app, "/v1/chat/completions", chat("base:support"))
    assert answer.status == 500 and "damaged" in answer.message and str(store.root) not in answer.message
    assert ask(app, "/v1/chat/completions", chat("base:support@prod")).status == 200


def test_the_start_of_a_conversation_asks_for_a_template_that_can_go_on(upstream):
    app = upstream()
    assert ask(app, "/v1/chat/completions", chat("base:started")).status == 200
    assert app.seen[0][1]["chat_template_kwargs"] == {"foreword_continuation": True}
    ask(app, "/v1/chat/completions", chat("base:support", chat_template_kwargs={"foreword_continuation": True}))
    assert app.seen[1][1]["chat_template_kwargs"] == {}
    for template in (None, "{{ messages }}"):
        answer = ask(upstream(template=template), "/v1/chat/completions", chat("base:started"))
        assert answer.status == 501 and "chat template" in answer.message


def test_endpoints_that_take_no_prefix_say_so(upstream):
    app = upstream()
    answer = ask(app, "/v1/embeddings", {"model": "base:support", "input": "x"})
    assert answer.status == 400 and "does not take a model name with a prefix" in answer.message and app.seen == []


def test_models_are_listed_with_their_prefixes(upstream, store, make_prefix):
    app = upstream()
    listing = ask(app, "/v1/models", method="GET").json
    ids = [card["id"] for card in listing["data"]]
    assert ids == ["base", "base:foreign", "base:started", "base:support", "base:support@prod"]
    expected = {"id": "base:support", "object": "model", "created": 7, "max_model_len": 64, "owned_by": "foreword"}
    assert listing["data"][3] == expected | {"root": "base", "parent": "base", "permission": []}
    store.publish(make_prefix("new"))
    store.remove("foreign", all=True)
    assert [card["id"] for card in ask(app, "/v1/models", method="GET").json["data"]][1:3] == ["base:new", "base:started"]


def test_prefixes_published_later_are_found(upstream, store, make_prefix):
    app = upstream()
    assert ask(app, "/v1/chat/completions", chat("base:late")).status == 404
    store.publish(make_prefix("late"))
    assert ask(app, "/v1/chat/completions", chat("base:late")).status == 200


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_what_is_no_object_is_left_to_vllm(upstream, raw):
    app = upstream()
    reached = []

    async def inner(scope, receive, send):
        reached.append((await receive())["body"])
        await app.answer(send, 422, {})

    app.stack = PrefixMiddleware(inner)
    assert ask(app, "/v1/chat/completions", raw, pieces=3).status == 422
    assert reached == [raw]


def test_uploads_are_not_taken_into_memory(upstream):
    app = upstream()
    messages = []

    async def inner(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            messages.append(message["body"])
        await app.answer(send, 200, {})

    app.stack = PrefixMiddleware(inner)
    ask(app, "/v1/audio/transcriptions", b"abcdef", content_type=b"multipart/form-data; boundary=x", pieces=3)
    assert messages == [b"ab", b"cd", b"ef"]


def test_a_client_that_leaves_is_noticed_behind_the_middleware(upstream):
    app = upstream()
    ask(app, "/v1/chat/completions", chat("base:support", wait_for_disconnect=True))
    assert app.disconnected


def test_a_path_under_which_the_server_is_mounted_is_taken_off(upstream):
    app = upstream(window=64)
    answer = ask(app, "/v1/chat/completions", chat("base:support", "word " * 59), root_path="/llm")
    assert answer.status == 400 and app.seen[0][0] == "/llm/tokenize"


def test_other_protocols_pass(upstream):
    reached = []

    async def inner(scope, receive, send):
        reached.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(PrefixMiddleware(inner)({"type": kind}, None, None))  # type: ignore[arg-type]
    assert reached == ["lifespan", "websocket"]

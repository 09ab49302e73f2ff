"""The OpenAPI document, from the same structs that requests are read with and answers are written from."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any

import msgspec

from foreword.gateway import wire

_REF = "#/components/schemas/{name}"
_BODIES = (
    *(wire.ChatRequest, wire.ChatAnswer, wire.ChatChunk, wire.TextRequest, wire.TextAnswer, wire.ModelList, wire.ModelCard),
    *(wire.PrefixList, wire.PrefixState, wire.LoadOrder, wire.ErrorBody, wire.Health),
)
_REASONS = {
    400: "The request is malformed, or asks for what cannot be.",
    401: "The key is missing or not known.",
    404: "There is no such model, prefix, strategy, prompt or route for this client.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared to be JSON.",
    422: "The prefix does not fit the model, or the strategy ended without an answer.",
    429: "Too many requests wait already; Retry-After says when to come again.",
    503: "The server is about to stop, or the prefix's or prompt's file is damaged.",
}
_BODY_ERRORS = (400, 401, 404, 408, 413, 415, 422, 429, 503)
_LOOK_ERRORS = (401, 404, 503)
_ORDER_ERRORS = (400, 401, 404, 408, 413, 415, 422, 503)


@functools.cache
def document() -> dict[str, Any]:
    """The whole document (OpenAPI 3.1)."""
    _, schemas = msgspec.json.schema_components(_BODIES, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Foreword",
            "version": version("foreword"),
            "description": "OpenAI's endpoints over one frozen model; `base:prefix` as the model puts a prefix before the prompt, "
            "and `strategy:KEY(MODEL)` has a strategy ask it.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A tenant's key, where the server has any."},
                "admin": {"type": "http", "scheme": "bearer", "description": "The admin key."},
            },
        },
    }


def _paths() -> dict[str, Any]:
    model = _in_path("model", "`base`, `base:prefix`, `base:prefix@alias`, `base:one+other` or `strategy:KEY(MODEL)`.")
    name = _in_path("name", "`prefix`, `prefix@alias`, `prefix@v3` or `one+other`.")
    return {
        "/v1/chat/completions": {"post": _asks("chat", "Answer a conversation.", "ChatRequest", "ChatAnswer", chunk="ChatChunk")},
        "/v1/completions": {"post": _asks("complete", "Go on from texts.", "TextRequest", "TextAnswer", chunk="TextAnswer")},
        "/v1/models": {"get": _operation("models", "List what can be asked.", "ModelList", _LOOK_ERRORS)},
        "/v1/models/{model}": {"get": _operation("model", "Look one name up.", "ModelCard", (400, *_LOOK_ERRORS), parameters=[model])},
        "/admin/prefixes": {"get": _operation("prefixes", "What the store and the engine hold.", "PrefixList", _LOOK_ERRORS, key="admin")},
        "/admin/prefixes/{name}/load": {
            "post": _operation(
                "load", "Read a prefix into memory.", "PrefixState", _ORDER_ERRORS, body="LoadOrder", parameters=[name], key="admin"
            )
        },
        "/admin/prefixes/{name}/unload": {
            "post": _operation("unload", "Take a prefix out of memory.", "PrefixState", _LOOK_ERRORS, parameters=[name], key="admin")
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Figures for Prometheus.",
                "responses": {
                    "200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **_errors((401, 404)),
                },
            }
        },
        "/healthz": {"get": _operation("healthz", "Whether the process answers.", "Health", (), key=None)},
        "/readyz": {
            "get": {
                "operationId": "readyz",
                "summary": "Whether requests are taken on.",
                "responses": {"200": _json("Ready.", "Health"), "503": _json("About to stop.", "Health")},
            }
        },
    }


def _asks(name: str, summary: str, body: str, answer: str, *, chunk: str) -> dict[str, Any]:
    operation = _operation(name, summary, answer, _BODY_ERRORS, body=body)
    # Not declared to be JSON, which `[DONE]` is not.
    event: dict[str, Any] = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    event["description"] = f"With `stream`: one event, whose data is a {chunk}; the last one's is `[DONE]`, and a failure's an ErrorBody."
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": event}
    return operation


def _operation(
    name: str,
    summary: str,
    answer: str,
    errors: tuple[int, ...],
    *,
    body: str | None = None,
    parameters: list[dict[str, Any]] | None = None,
    key: str | None = "key",
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _json("Done.", answer), **_errors(errors)},
    }
    if body is not None:
        needed = body != "LoadOrder"
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": _ref(body)}}}
    if parameters:
        operation["parameters"] = parameters
    if key is not None:
        # An empty requirement beside it: a server may have no keys.
        operation["security"] = [{key: []}] if key == "admin" else [{}, {key: []}]
    return operation


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): _json(_REASONS[status], "ErrorBody") for status in statuses}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _in_path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string", "minLength": 1}}

"""Agent to agent: the shapes that agents send each other over HTTP, as the A2A protocol 0.3 has them (JSON-RPC 2.0; Linux Foundation,
a2a-protocol.org). What is sent and answered here is text; structured parts are read as the JSON that they are, and files are refused.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

PROTOCOL_VERSION = "0.3.0"
CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where an agent's card is; the second one is where it was before version 0.3."""
MOST_BYTES = 1 << 20
"""Of a body, in both directions."""
MOST_PARTS = 64

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
TASK_NOT_FOUND, TASK_NOT_CANCELABLE, UNSUPPORTED_OPERATION, CONTENT_TYPE_NOT_SUPPORTED = -32001, -32002, -32004, -32005

TaskState = Literal["submitted", "working", "input-required", "completed", "canceled", "failed", "rejected", "auth-required", "unknown"]
UNDER_WAY: tuple[TaskState, ...] = ("submitted", "working")


class Wire(BaseModel):
    """What comes over the wire; names there are in camelCase, and what a later version adds is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    def json_object(self) -> dict[str, Any]:
        """The object as it is sent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Part(Wire):
    """A piece of a message: `text`, or `data` as JSON; `file` is known and refused."""

    kind: Literal["text", "data", "file"] = "text"
    text: str | None = None
    data: dict[str, JsonValue] | None = None


class A2aMessage(Wire):
    """What one side says."""

    kind: Literal["message"] = "message"
    role: Literal["user", "agent"]
    parts: tuple[Part, ...] = Field(min_length=1, max_length=MOST_PARTS)
    message_id: str = Field(min_length=1, max_length=256)
    task_id: str | None = Field(default=None, max_length=256)
    context_id: str | None = Field(default=None, max_length=256)


class Artifact(Wire):
    """Something that a task made."""

    artifact_id: str
    name: str | None = None
    parts: tuple[Part, ...] = ()


class TaskStatus(Wire):
    """Where a task is. Attributes: timestamp: since when, ISO 8601."""

    state: TaskState
    message: A2aMessage | None = None
    timestamp: str | None = None


class Task(Wire):
    """A piece of work that one agent does for another."""

    kind: Literal["task"] = "task"
    id: str
    context_id: str
    status: TaskStatus
    artifacts: tuple[Artifact, ...] | None = None
    history: tuple[A2aMessage, ...] | None = None
    metadata: dict[str, JsonValue] | None = None


class SendConfiguration(Wire):
    """How an answer is wanted."""

    blocking: bool = True
    history_length: int | None = Field(default=None, ge=0)


class SendParams(Wire):
    """What `message/send` takes."""

    message: A2aMessage
    configuration: SendConfiguration = SendConfiguration()


class TaskParams(Wire):
    """What `tasks/get` and `tasks/cancel` take."""

    id: str = Field(max_length=256)
    history_length: int | None = Field(default=None, ge=0)


class Interface(Wire):
    """Another address of an agent."""

    url: str
    transport: str


class Skill(Wire):
    """Something that an agent can do."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...] = ()


class Card(Wire):
    """What an agent says of itself."""

    name: str
    description: str
    url: str
    version: str
    protocol_version: str = PROTOCOL_VERSION
    preferred_transport: str = "JSONRPC"
    capabilities: dict[str, JsonValue] = {}
    default_input_modes: tuple[str, ...] = ("text/plain", "application/json")
    default_output_modes: tuple[str, ...] = ("text/plain",)
    skills: tuple[Skill, ...] = ()
    security_schemes: dict[str, JsonValue] | None = None
    security: tuple[dict[str, JsonValue], ...] | None = None


class Refused(Exception):
    """A request that is answered with an error; for within this room. Attributes: code: of JSON-RPC or of A2A."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def new_message(role: Literal["user", "agent"], text: str, *, task_id: str | None = None, context_id: str | None = None) -> A2aMessage:
    """A message of one text."""
    return A2aMessage(role=role, parts=(Part(text=text),), message_id=secrets.token_hex(16), task_id=task_id, context_id=context_id)


def text_of(parts: Sequence[Part]) -> str:
    """The parts as one text. Raises `Refused` where there is a file, or nothing."""
    texts = []
    for part in parts:
        if part.kind == "file":
            raise Refused(CONTENT_TYPE_NOT_SUPPORTED, "Files are not taken here. Send text, or data as JSON.")
        texts.append(json.dumps(part.data, ensure_ascii=False) if part.kind == "data" else part.text or "")
    text = "\n".join(text for text in texts if text)
    if not text.strip():
        raise Refused(INVALID_PARAMS, "The message says nothing. Send a part of kind `text`.")
    return text


def problem(error: ValidationError) -> str:
    """What is wrong with a shape, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"


def loads(body: bytes) -> Any:
    """JSON out of bytes. Raises `ValueError`, whatever is wrong with them."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": secrets.token_hex(8), "method": method, "params": dict(params)}

"""OpenAI's requests and answers as they travel. Types are strict, and a field that is not listed is refused by its name.

A field of type `Any` is taken and has no effect: OpenAI's clients send these, and no answer depends on them. A field of type `None` may be
sent as null, which is how clients send back a turn that they received.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MOST_CHOICES = 128
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
MOST_PROMPTS = 128
MOST_MODEL = 512
"""Characters of a model's name."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes from a client."""


# Requests


class TextPart(Strict, frozen=True, kw_only=True):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str


class InMessage(Strict, frozen=True, kw_only=True):
    """One turn. Empty lists and nulls that OpenAI's own answers carry are taken back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None
    name: None = None


class TextFormat(Strict, frozen=True, kw_only=True, tag="text", tag_field="type"):
    """Any text."""


class ObjectFormat(Strict, frozen=True, kw_only=True, tag="json_object", tag_field="type"):
    """Some JSON object."""


class SchemaSpec(Strict, frozen=True, kw_only=True):
    """A named JSON schema. It is followed whether or not `strict` is set."""

    name: Annotated[str, Meta(max_length=64)]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Strict, frozen=True, kw_only=True, tag="json_schema", tag_field="type"):
    """JSON that follows a schema."""

    json_schema: SchemaSpec


class StreamOptions(Strict, frozen=True, kw_only=True):
    """What a stream holds besides pieces of text."""

    include_usage: bool | None = None
    include_obfuscation: Any = None


class Drawing(Strict, frozen=True, kw_only=True):
    """What both kinds of request can say about how answers are drawn."""

    model: Annotated[str, Meta(min_length=1, max_length=MOST_MODEL)]
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # What OpenAI does not have, under vLLM's names.
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    guided_regex: Annotated[str, Meta(min_length=1)] | None = None
    guided_choice: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=1024)] | None = None
    guided_json: dict[str, Any] | str | None = None
    # Without effect here.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None


class PromptCall(Strict, frozen=True, kw_only=True):
    """A stored prompt, as OpenAI's Responses API asks for one.

    `id` is `name`, `name@alias` or `name@v3`; `version` may stand in the place of what is behind the `@`.
    """

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    version: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    variables: dict[str, Any] | None = None


class ChatRequest(Drawing, frozen=True, kw_only=True):
    """The body of `POST /v1/chat/completions`. `messages` come after those of `prompt`, and may be absent where these end with the user."""

    messages: Annotated[list[InMessage], Meta(max_length=4096)] = []
    prompt: PromptCall | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: Any = None


class TextRequest(Drawing, frozen=True, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=4096)]
    logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    echo: bool | None = None
    suffix: str | None = None


class LoadOrder(Strict, frozen=True, kw_only=True):
    """The body of `POST /admin/prefixes/{name}/load`; an absent one is `{}`."""

    pinned: bool = False


# Answers


class PromptDetails(Struct, frozen=True, kw_only=True):
    """`prefix_positions` is Foreword's own: virtual positions before the prompt, which `prompt_tokens` does not count."""

    cached_tokens: int = 0
    prefix_positions: int = 0


class UsageOut(Struct, frozen=True, kw_only=True):
    """What a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopEntry(Struct, frozen=True, kw_only=True):
    """A token that could have stood in another's place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenEntry(Struct, frozen=True, kw_only=True):
    """A token of a chat answer. `bytes` is null where the token is no whole character."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopEntry]


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probabilities in the shape of the chat endpoint."""

    content: list[TokenEntry]
    refusal: None = None


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probabilities in the shape of the completions endpoint."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class OutMessage(Struct, frozen=True, kw_only=True):
    """The model's turn."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One of the answers."""

    index: int
    message: OutMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class StrategyOut(Struct, frozen=True, kw_only=True):
    """How a strategy came to its answer.

    `final` is the short answer in it, `candidates` the short answers that it chose from; `reason` says why it ended early, `note` how it
    ended otherwise.
    """

    name: str
    status: Literal["answered", "budget", "failed"]
    calls: int
    final: str
    candidates: list[str]
    reason: str
    note: str


class ChatAnswer(Struct, frozen=True, kw_only=True):
    """A chat answer as a whole. `strategy` is there where one was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageOut
    strategy: StrategyOut | UnsetType = UNSET
    object: Literal["chat.completion"] = "chat.completion"


class OutDelta(Struct, frozen=True, kw_only=True):
    """What a chunk adds."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """One of the answers, as it grows."""

    index: int
    delta: OutDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed chat answer. `strategy` is in the piece that ends the answer of one."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageOut | UnsetType | None = UNSET
    strategy: StrategyOut | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class TextChoice(Struct, frozen=True, kw_only=True):
    """One of the answers, whole or a piece of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class TextAnswer(Struct, frozen=True, kw_only=True):
    """A text completion, whole or a piece of it."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageOut | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"


class ModelCard(Struct, frozen=True, kw_only=True):
    """A name that requests can give as their model. `parent` is the frozen model of a prefix."""

    id: str
    created: int
    parent: str | None = None
    owned_by: str = "foreword"
    object: Literal["model"] = "model"


class ModelList(Struct, frozen=True, kw_only=True):
    """Every name that the client may use."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True, kw_only=True):
    """An error as OpenAI writes one."""

    error: ErrorDetail


class StoredVersion(Struct, frozen=True, kw_only=True):
    """One version of a prefix: bytes of its file, whether the engine holds it, and whether an administrator pinned it."""

    version: int
    bytes: int
    resident: bool
    pinned: bool


class StoredPrefix(Struct, frozen=True, kw_only=True):
    """One name of the store."""

    name: str
    versions: list[StoredVersion]
    aliases: dict[str, int]


class PrefixList(Struct, frozen=True, kw_only=True):
    """The store, and what the engine holds in memory; `compositions` are those that several prefixes make up."""

    prefixes: list[StoredPrefix]
    compositions: list[list[str]]
    resident_bytes: int


class PrefixState(Struct, frozen=True, kw_only=True):
    """One reference after it was loaded or unloaded."""

    name: str
    resident: bool
    pinned: bool


class Health(Struct, frozen=True, kw_only=True):
    """How the server is."""

    status: Literal["ok", "draining"]

"""Chat requests as the path takes them, and what it reads of the answers that models give.

A request is decoded strictly and sent on with what the path changed in it. Of an answer only what the path needs is decoded; the bytes
themselves go through.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from foreword.gateway.wire import Count, Penalty, PromptCall, StreamOptions, Strict, TextRequest

Content = str | list[dict[str, Any]] | None


class PathMessage(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """One turn, tool calls and their results included."""

    role: Annotated[str, Meta(pattern="^(system|developer|user|assistant|tool)$")]
    content: Content | UnsetType = UNSET
    name: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType = UNSET
    refusal: str | UnsetType | None = UNSET
    annotations: Any = UNSET
    audio: Any = UNSET
    function_call: Any = UNSET
    reasoning_content: Any = UNSET

    @property
    def text(self) -> str:
        """Its words; parts that are no text are left out."""
        if isinstance(self.content, str):
            return self.content
        if isinstance(self.content, list):
            return "".join(part.get("text", "") for part in self.content if part.get("type") == "text")
        return ""


class PathRequest(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/chat/completions`. What the path knows nothing of, but models do, is sent on."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    messages: Annotated[tuple[PathMessage, ...], Meta(max_length=4096)] = ()
    prompt: PromptCall | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    stream_options: StreamOptions | UnsetType | None = UNSET
    max_tokens: Count | UnsetType | None = UNSET
    max_completion_tokens: Count | UnsetType | None = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType | None = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType | None = UNSET
    n: Annotated[int, Meta(ge=1, le=128)] | UnsetType | None = UNSET
    stop: str | Annotated[list[str], Meta(max_length=16)] | UnsetType | None = UNSET
    seed: int | UnsetType | None = UNSET
    presence_penalty: Penalty | UnsetType | None = UNSET
    frequency_penalty: Penalty | UnsetType | None = UNSET
    logit_bias: dict[str, float] | UnsetType | None = UNSET
    logprobs: bool | UnsetType | None = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType | None = UNSET
    response_format: dict[str, Any] | UnsetType | None = UNSET
    tools: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning_effort: str | UnsetType | None = UNSET
    # What an own engine has besides, under vLLM's names.
    top_k: int | UnsetType | None = UNSET
    min_p: float | UnsetType | None = UNSET
    repetition_penalty: float | UnsetType | None = UNSET
    guided_regex: str | UnsetType = UNSET
    guided_choice: list[str] | UnsetType = UNSET
    guided_json: dict[str, Any] | str | UnsetType = UNSET
    # Read here, and not sent on.
    user: str | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType | None = UNSET
    store: Any = UNSET
    service_tier: Any = UNSET

    @property
    def streams(self) -> bool:
        """Whether the client wants a stream."""
        return self.stream is True

    def output_limit(self) -> int | None:
        """Tokens at most of the answer, as the client says."""
        for given in (self.max_completion_tokens, self.max_tokens):
            if isinstance(given, int):
                return given
        return None


class TextCall(PathRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/completions` as the stages see it, its texts as a turn; `texts` is what the model is sent."""

    texts: TextRequest


class TokenDetails(Struct, frozen=True):
    """Parts of a count."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    prefix_positions: int | None = None
    reasoning_tokens: int | None = None


class UsageIn(Struct, frozen=True):
    """What a model says that it took. Not all servers put the tokens of their cache where OpenAI does: Anthropic's names for them are read
    too (`cache_read_input_tokens`), DeepSeek's (`prompt_cache_hit_tokens`) and Moonshot's (`cached_tokens`).
    """

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None


class ReplyMessage(Struct, frozen=True):
    """The model's turn."""

    content: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None


class ReplyChoice(Struct, frozen=True):
    """One of a model's answers; one that goes on from a text has a `text`."""

    message: ReplyMessage = ReplyMessage()
    text: str = ""
    finish_reason: str | None = None


class ReplyBody(Struct, frozen=True):
    """What the path reads of a whole answer."""

    choices: list[ReplyChoice]
    id: str = ""
    model: str = ""
    usage: UsageIn | None = None


class ChunkDelta(Struct, frozen=True):
    """What a chunk adds."""

    content: Any = None
    tool_calls: Any = None


class ChunkPart(Struct, frozen=True):
    """One of the answers, as it grows; one that goes on from a text has a `text`."""

    delta: ChunkDelta = ChunkDelta()
    text: str = ""
    index: int = 0
    finish_reason: str | None = None


class ChunkBody(Struct, frozen=True):
    """What the path reads of a chunk."""

    choices: list[ChunkPart] = []
    usage: UsageIn | None = None
    error: Any = None


REQUEST = msgspec.json.Decoder(PathRequest)
REPLY = msgspec.json.Decoder(ReplyBody)
CHUNK = msgspec.json.Decoder(ChunkBody)

"""What a prefix file says about itself, readable without torch. `preamble.py` reads and writes it.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from foreword.errors import PrefixError

Kind = Literal["learned", "text", "compacted", "distilled", "composed"]
PromptFormat = Literal["full", "continuation"]
"""`full`: the request is rendered with the whole chat template after the prefix. `continuation`: the prefix already holds the
start of the conversation (BOS, system turn, examples) and only what follows is rendered."""
Dtype = Literal["float32", "bfloat16", "float16", "int8"]

FORMAT_VERSION = 1

_TAGS: Mapping[str, str] = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8"}
SIZES: Mapping[str, int] = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1}
"""Bytes of one number by safetensors dtype."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_COMPOSED_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")

Sha256 = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Part = TypeVar("Part", bound=_Frozen)


class Fingerprint(_Frozen):
    """What identifies a model, whatever folder it lies in. All but `architecture` are sha256 in hex.

    Attributes:
        architecture: the class name in the model's config, e.g. `LlamaForCausalLM`.
        config: of the settings that change the model's function.
        weights: of the weights.
        tokenizer: of the vocabulary, merges and special tokens.
        chat_template: of the template's text; of the empty string where a model has none.
    """

    architecture: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    config: Sha256
    weights: Sha256
    tokenizer: Sha256
    chat_template: Sha256

    def differences(self, other: Fingerprint) -> dict[str, tuple]:
        """Each differing field with (own value, other's value)."""
        return _differences(self, other)


class RotaryGroup(_Frozen):
    """Layers that share one rotary position encoding, in the half-split (`rotate_half`) layout.

    Attributes:
        layers: indices of the layers.
        rotary_dim: how many leading head dimensions rotate; dimension i turns with dimension i + rotary_dim / 2.
        inverse_frequencies: radians per position, one for each of the rotary_dim / 2 pairs.
    """

    layers: tuple[Count, ...]
    rotary_dim: Positive
    inverse_frequencies: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _consistent(self) -> RotaryGroup:
        if self.rotary_dim % 2:
            raise ValueError(f"rotary_dim must be even; got {self.rotary_dim}")
        if len(self.inverse_frequencies) != self.rotary_dim // 2:
            raise ValueError(f"rotary_dim {self.rotary_dim} needs {self.rotary_dim // 2} frequencies; got {len(self.inverse_frequencies)}")
        return self


class Geometry(_Frozen):
    """Shape of one position's keys and values, and how its keys are turned by position.

    Attributes:
        rotary: empty for absolute position embeddings (GPT-2), where a prefix cannot move. A layer in no group, of a model that
            has groups, encodes no position.
    """

    layers: Positive
    kv_heads: Positive
    head_dim: Positive
    rotary: tuple[RotaryGroup, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Geometry:
        seen: set[int] = set()
        for group in self.rotary:
            if group.rotary_dim > self.head_dim:
                raise ValueError(f"rotary_dim {group.rotary_dim} is more than head_dim {self.head_dim}")
            for layer in group.layers:
                if layer >= self.layers or layer in seen:
                    raise ValueError(f"rotary layer {layer} is outside 0..{self.layers - 1} or in two groups")
                seen.add(layer)
        return self

    def differences(self, other: Geometry) -> dict[str, tuple]:
        """Each differing field with (own value, other's value)."""
        return _differences(self, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """How one tensor must lie in the file. `tag` is the safetensors dtype, e.g. `BF16`."""

    tag: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        total = SIZES[self.tag]
        for size in self.shape:
            total *= size
        return total


class StandsFor(_Frozen):
    """The leading messages of a conversation whose exact keys and values a prefix holds.

    Attributes:
        messages: their hash, as `foreword.prefix.stands_for` computes it.
        count: how many they are.
        prompt: the stored prompt that they come from, such as `support@v3`.
    """

    messages: Sha256
    count: Positive
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class RelevancePart(_Frozen):
    """What a detector knows of one text; `foreword.prefix.relevance` explains how it is used.

    Attributes:
        passages: rows that are its own in `relevance_passage_ND`.
        words: entries that are its own in `relevance_word_W`.
        threshold: the least score of a query that is its business.
        level: the share of its own queries that may be missed, as the user set it.
        queries: how many queries the threshold was set by, which are rows of its own in `relevance_query_MD`.
        asked_by: whose queries those were: the model's own questions, or a user's.
    """

    passages: Positive
    words: Count
    threshold: FiniteFloat
    level: Annotated[float, Field(gt=0, lt=1)]
    queries: Positive
    asked_by: Literal["model", "user"]


class Relevance(_Frozen):
    """A detector that says whether a query is the prefix's business.

    Attributes:
        embedder: the name of the embedder whose vectors it holds.
        dimensions: of that embedder.
        parts: one, or those of a composition: a query that is any part's business is the composition's.
        digest: sha256 over its tensors, as the header's own is over keys and values.
    """

    embedder: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    dimensions: Annotated[int, Field(ge=1, le=65536)]
    parts: Annotated[tuple[RelevancePart, ...], Field(min_length=1, max_length=256)]
    digest: Sha256

    def tensors(self) -> dict[str, TensorSpec]:
        """The tensors that the file must hold for it, by name in alphabetical order."""
        passages, queries, words = (sum(getattr(part, count) for part in self.parts) for count in ("passages", "queries", "words"))
        return {
            "relevance_center_PD": TensorSpec(tag="F16", shape=(len(self.parts), self.dimensions)),
            "relevance_passage_ND": TensorSpec(tag="F16", shape=(passages, self.dimensions)),
            "relevance_query_MD": TensorSpec(tag="F16", shape=(queries, self.dimensions)),
            "relevance_word_W": TensorSpec(tag="I32", shape=(words,)),
        }


class PrefixHeader(_Frozen):
    """Everything about a prefix but its numbers.

    Attributes:
        sink: how many leading positions serve as attention sink; composition keeps only the first part's.
        first_position: the rotary position of the first key; 0 unless shifted.
        position_policy: `start`: the prefix stands before everything else, and the prompt's positions follow its last.
        parents: digests of the prefixes that this one was made from.
        training_data: sha256 of the data.
        recipe: how it was made, as JSON.
        quality: measured figures by name.
        text_tail: text to render after the prefix, for what KV loses first: numbers, ids, names.
        instruction: the instruction that the prefix was made with.
        stands_for: the messages in whose place it may stand, where its model renders the same tokens with either.
        relevance: the detector that says whether a query is this prefix's business.
        digest: sha256 over name, dtype, shape and bytes of each tensor of keys and values, in alphabetical order of the names. Prefixes
            that differ in their detectors only have one digest: they hold the same positions.
    """

    format_version: int = FORMAT_VERSION
    name: str
    kind: Kind
    fingerprint: Fingerprint
    geometry: Geometry
    positions: Count
    sink: Count = 1
    first_position: Count = 0
    position_policy: Literal["start"] = "start"
    dtype: Dtype
    prompt_format: PromptFormat
    parents: tuple[Sha256, ...] = ()
    training_data: Sha256 | None = None
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    seed: int | None = None
    quality: dict[str, FiniteFloat] = Field(default_factory=dict)
    licence: str | None = None
    created: AwareDatetime
    text_tail: str | None = None
    instruction: str | None = None
    stands_for: StandsFor | None = None
    relevance: Relevance | None = None
    digest: Sha256

    @field_validator("format_version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value != FORMAT_VERSION:
            raise ValueError(f"format version {value} is not known here; this Foreword reads version {FORMAT_VERSION}")
        return value

    @field_validator("created")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(UTC)

    @field_validator("recipe")
    @classmethod
    def _finite(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            json.dumps(value, allow_nan=False)
        except RecursionError:
            raise ValueError("the recipe is nested too deeply") from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PrefixHeader:
        check_name(self.name, composed=self.kind == "composed")
        if self.sink > self.positions:
            raise ValueError(f"sink must be in 0..{self.positions} (the positions); got {self.sink}")
        return self

    def changed(self, **fields: Any) -> PrefixHeader:
        """A validated copy with some fields replaced.

        Raises:
            PrefixError: a field is unknown or its value not allowed.
        """
        return build_header(dict(self) | fields)

    def differences(self, other: PrefixHeader) -> dict[str, tuple]:
        """Each differing field with (own value, other's value)."""
        return _differences(self, other)

    def tensors(self) -> dict[str, TensorSpec]:
        """The tensors of keys and values, by name in alphabetical order."""
        geometry = self.geometry
        full = TensorSpec(tag=_TAGS[self.dtype], shape=(geometry.layers, geometry.kv_heads, self.positions, geometry.head_dim))
        specs = {"key_LHND": full, "value_LHND": full}
        if self.dtype == "int8":
            scale = TensorSpec(tag="F32", shape=(geometry.layers, geometry.kv_heads, self.positions))
            specs |= {"key_scale_LHN": scale, "value_scale_LHN": scale}
        return dict(sorted(specs.items()))

    def file_tensors(self) -> dict[str, TensorSpec]:
        """All tensors that the file must hold, by name in alphabetical order."""
        return self.tensors() if self.relevance is None else dict(sorted((self.tensors() | self.relevance.tensors()).items()))


def build_header(fields: Mapping[str, Any]) -> PrefixHeader:
    """A header from its fields.

    Raises:
        PrefixError: a field is missing, unknown or its value not allowed; the message names each.
    """
    try:
        return PrefixHeader(**fields)
    except ValidationError as error:
        raise PrefixError(f"The prefix's header cannot be made: {describe(error)}.") from None


def digest_of(tensors: Iterable[tuple[str, str, tuple[int, ...], bytes | memoryview]]) -> str:
    """sha256 over each tensor's name, dtype, shape and little-endian bytes in row order, one after the other as they are given."""
    total = hashlib.sha256()
    for name, tag, shape, content in tensors:
        total.update(f"{name} {tag} {'x'.join(map(str, shape))}\n".encode())
        total.update(content)
    return total.hexdigest()


def build_header_part(model: type[Part], fields: Mapping[str, Any]) -> Part:
    """A part of a header from its fields; raises as `build_header`."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise PrefixError(f"The `{model.__name__.lower()}` of a prefix's header cannot be made: {describe(error)}.") from None


def check_name(name: str, *, composed: bool = False) -> None:
    """Raises ValueError unless `name` can name a prefix.

    That is 1 to 64 of `a-z 0-9 . _ -` that start with a letter or digit; a composed prefix may also have `+`.
    """
    pattern = _COMPOSED_NAME if composed else _NAME
    if not pattern.fullmatch(name):
        extra = " +" if composed else ""
        raise ValueError(
            f"a name has 1 to 64 characters of `a-z 0-9 . _ -{extra}` and starts with a letter or digit; got {name[:80]!r}"
            + ("; `+` is kept for composed prefixes" if "+" in name and not composed else "")
        )


def describe(error: ValidationError) -> str:
    """A validation error on one line: field and reason of up to five problems."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [f"`{'.'.join(str(part) for part in problem['loc']) or 'header'}`: {problem['msg']}" for problem in problems[:5]]
    return "; ".join(parts) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")


def read_header(path: str | os.PathLike[str]) -> PrefixHeader:
    """The header of a prefix file, after checking that every tensor it promises lies in the file. No torch is loaded.

    The tensors' bytes are not read: `foreword.prefix.operations.verify` compares them with the digest.

    Raises:
        PrefixFileError: the file is missing, truncated, altered or not a prefix; the message names what is wrong.
    """
    from foreword.prefix import preamble

    return preamble.read(path)


def _differences(left: BaseModel, right: BaseModel) -> dict[str, tuple]:
    pairs = {field: (getattr(left, field), getattr(right, field)) for field in type(left).model_fields}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}

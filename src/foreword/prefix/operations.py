"""What can be done to prefixes: shift, compose, quantise, compare, verify. Each gives a new prefix; none changes its input.

Axes: L layer, H KV head, N virtual position, D head dimension.

There is no padding to a block size. Softmax gives every position a share of attention that depends on the query, so neither an empty
nor a repeated position is without effect, and no key hides itself from all queries. An engine with paged KV serves the prefix's
full blocks from its cache and writes the remaining positions for each request, which is exact.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import JsonValue
from torch import Tensor

from foreword.errors import PrefixError, PrefixMismatch, WindowError
from foreword.prefix.artifact import DTYPES, HeaderFields, Prefix
from foreword.prefix.file import load
from foreword.prefix.header import Dtype, PrefixHeader
from foreword.prefix.relevance import joined
from foreword.prefix.rotary import rotate

_INT8_MAX = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """How two tensors of one layer differ. `cosine` is between the flattened tensors; 1.0 where they are equal."""

    max_abs: float
    mean_abs: float
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixDifference:
    """How two prefixes differ.

    Attributes:
        fields: header field to (value in the first, value in the second), differing fields only.
        keys, values: one entry per layer; None where the shapes differ.
    """

    fields: dict[str, tuple]
    keys: tuple[TensorDifference, ...] | None
    values: tuple[TensorDifference, ...] | None


def shift(prefix: Prefix, start: int) -> Prefix:
    """The same prefix with its first key at rotary position `start`.

    int8 keys are turned in float32 and the prefix becomes float32: quantising anew would add a second rounding.

    Raises:
        PrefixError: `start` is negative, or the model has absolute position embeddings.
    """
    if start < 0:
        raise PrefixError(f"`start` must be 0 or more; got {start}.")
    if start == prefix.header.first_position:
        return prefix
    key_LHND = rotate(prefix.keys(), prefix.header.geometry, start - prefix.header.first_position)
    return _derive(
        prefix, key_LHND=key_LHND, value_LHND=prefix.values(), step=f"shift {start}", first_position=start, quality=prefix.header.quality
    )


def compose(prefixes: Sequence[Prefix], name: str, *, window: int | None = None) -> Prefix:
    """One prefix that holds several, in order, at contiguous positions.

    The first part that has positions keeps its sink and its place; later parts drop their sink positions and their keys are turned to
    follow. Parts do not attend each other, as they did not when they were made. The dtype is the widest of the parts', int8 counting
    as float32. Quality figures are not carried over: the composition has not been measured. A query is the composition's business if
    it is any part's; with a part that has no detector, or parts whose detectors need different embedders, the composition has none.

    Args:
        name: may contain `+`.
        window: positions that the model can attend; the composition must leave room for at least one more.

    Raises:
        PrefixError: no parts; prompt formats differ; or keys would have to move in a model with absolute position embeddings.
        PrefixMismatch: the parts were made for different models.
        WindowError: the composition does not fit the window.
    """
    if not prefixes:
        raise PrefixError("`compose` needs at least one prefix; got none.")
    first, parts = prefixes[0], [part for part in prefixes if part.positions]
    for part in prefixes[1:]:
        _check_composable(first, part)
    lead = parts[0] if parts else first
    dtype = _widest(prefixes)
    keys, values = [], []
    end = lead.header.first_position
    for part in parts or [first]:
        dropped = 0 if part is lead and not keys else part.header.sink
        key_LHND, value_LHND = part.keys()[:, :, dropped:], part.values()[:, :, dropped:]
        keys.append(rotate(key_LHND.float(), part.header.geometry, end - part.header.first_position - dropped).to(dtype))
        values.append(value_LHND.to(dtype))
        end += key_LHND.shape[2]
    if window is not None and end >= window:
        raise WindowError(f"`{name}` would end at position {end}, and the model's window has {window}: no room for a prompt.")
    return Prefix.make(
        name=name,
        kind="composed",
        key_LHND=torch.cat(keys, dim=2),
        value_LHND=torch.cat(values, dim=2),
        fingerprint=first.header.fingerprint,
        geometry=first.header.geometry,
        prompt_format=first.header.prompt_format,
        sink=lead.header.sink,
        **composed_fields(prefixes, lead),
    ).with_detector(joined([part.detector for part in prefixes]))


def quantize(prefix: Prefix) -> Prefix:
    """The prefix with keys and values as int8, symmetric, with one scale per layer, KV head and position: little over a quarter of
    float32's bytes. One scale for all positions of a head would serve those with large numbers, and round the others coarsely.

    A number x with scale s = max|x| / 127 becomes round(x / s), so each is off by at most s / 2. Quality figures are dropped, as they
    were measured before rounding. An int8 prefix is returned as it is.
    """
    if prefix.header.dtype == "int8":
        return prefix
    key_LHND, key_scale_LHN = _to_int8(prefix.keys(torch.float32))
    value_LHND, value_scale_LHN = _to_int8(prefix.values(torch.float32))
    return _derive(
        prefix,
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        key_scale_LHN=key_scale_LHN,
        value_scale_LHN=value_scale_LHN,
        step="quantize int8",
        quality={},
    )


def dequantize(prefix: Prefix, dtype: Dtype = "float32") -> Prefix:
    """An int8 prefix in a floating-point dtype; any other is returned as it is.

    Raises:
        PrefixError: `dtype` is not a floating-point dtype, or too narrow for the numbers.
    """
    if dtype not in DTYPES or dtype == "int8":
        raise PrefixError(f"`dtype` must be float32, bfloat16 or float16; got {dtype!r}.")
    if prefix.header.dtype != "int8":
        return prefix
    wide = DTYPES[dtype]
    return _derive(
        prefix, key_LHND=prefix.keys(wide), value_LHND=prefix.values(wide), step=f"dequantize {dtype}", quality=prefix.header.quality
    )


def diff(first: Prefix, second: Prefix) -> PrefixDifference:
    """Header fields that differ and, where the shapes agree, how far apart each layer's keys and values are."""
    fields = first.header.differences(second.header)
    if first.key_LHND.shape != second.key_LHND.shape:
        return PrefixDifference(fields=fields, keys=None, values=None)
    return PrefixDifference(
        fields=fields,
        keys=_compare(first.keys(torch.float32, "cpu"), second.keys(torch.float32, "cpu")),
        values=_compare(first.values(torch.float32, "cpu"), second.values(torch.float32, "cpu")),
    )


def verify(path: str | os.PathLike[str]) -> PrefixHeader:
    """Reads every byte of a prefix file and returns its header if all is sound.

    Raises:
        PrefixFileError: the message names what is wrong.
    """
    return load(path, verify=True).header


def _derive(
    prefix: Prefix,
    *,
    key_LHND: Tensor,
    value_LHND: Tensor,
    step: str,
    quality: dict[str, float],
    key_scale_LHN: Tensor | None = None,
    value_scale_LHN: Tensor | None = None,
    first_position: int | None = None,
) -> Prefix:
    header = prefix.header
    return Prefix.make(
        name=header.name,
        kind=header.kind,
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        key_scale_LHN=key_scale_LHN,
        value_scale_LHN=value_scale_LHN,
        fingerprint=header.fingerprint,
        geometry=header.geometry,
        prompt_format=header.prompt_format,
        sink=header.sink,
        first_position=header.first_position if first_position is None else first_position,
        parents=(header.digest,),
        training_data=header.training_data,
        recipe=_traced(header.recipe, step),
        seed=header.seed,
        quality=quality,
        licence=header.licence,
        text_tail=header.text_tail,
        instruction=header.instruction,
    ).with_detector(prefix.detector)


def _traced(recipe: dict[str, JsonValue], step: str) -> dict[str, JsonValue]:
    earlier = recipe.get("operations", [])
    return {**recipe, "operations": [*(earlier if isinstance(earlier, list) else [earlier]), step]}


def _check_composable(first: Prefix, part: Prefix) -> None:
    differences = first.header.fingerprint.differences(part.header.fingerprint) | first.header.geometry.differences(part.header.geometry)
    if differences:
        raise PrefixMismatch(first.name, differences)
    if first.header.prompt_format != part.header.prompt_format:
        raise PrefixError(
            f"`{first.name}` has prompt format {first.header.prompt_format} and `{part.name}` {part.header.prompt_format};"
            " a composition has one. Make both with the same."
        )


def composed_fields(prefixes: Sequence[Prefix], lead: Prefix) -> HeaderFields:
    """What the header of a composition says of its parts. Args: lead: the part whose place it takes."""
    headers = [part.header for part in prefixes]
    data = {header.training_data for header in headers}
    licences = [header.licence for header in headers]
    return HeaderFields(
        first_position=lead.header.first_position,
        parents=tuple(header.digest for header in headers),
        training_data=data.pop() if len(data) == 1 else None,
        recipe={"composed": [{"name": header.name, "positions": header.positions, "digest": header.digest} for header in headers]},
        # All licences hold at once; with one unknown, the whole is unknown.
        licence=None if None in licences else " AND ".join(dict.fromkeys(str(licence) for licence in licences)),
        text_tail=_joined(header.text_tail for header in headers),
        instruction=_joined(header.instruction for header in headers),
    )


def _joined(texts) -> str | None:
    return "\n".join(dict.fromkeys(text for text in texts if text)) or None


def _widest(prefixes: Sequence[Prefix]) -> torch.dtype:
    dtypes = [torch.float32 if part.header.dtype == "int8" else DTYPES[part.header.dtype] for part in prefixes]
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


def _to_int8(wide_LHND: Tensor) -> tuple[Tensor, Tensor]:
    # The smallest normal number as floor: a scale of zero could not divide, and one below it would lose precision.
    scale_LHN = (wide_LHND.abs().amax(dim=-1) / _INT8_MAX).clamp(min=torch.finfo(torch.float32).tiny)
    whole_LHND = (wide_LHND / scale_LHN[..., None]).round().clamp(-_INT8_MAX, _INT8_MAX)
    return whole_LHND.to(torch.int8), scale_LHN


def _compare(left_LHND: Tensor, right_LHND: Tensor) -> tuple[TensorDifference, ...]:
    return tuple(_compare_layer(left_HND, right_HND) for left_HND, right_HND in zip(left_LHND, right_LHND, strict=True))


def _compare_layer(left_HND: Tensor, right_HND: Tensor) -> TensorDifference:
    left, right = left_HND.flatten().double(), right_HND.flatten().double()
    if torch.equal(left, right):
        return TensorDifference(max_abs=0.0, mean_abs=0.0, cosine=1.0)
    gap = (left - right).abs()
    norms = float(left.norm() * right.norm())
    return TensorDifference(max_abs=float(gap.max()), mean_abs=float(gap.mean()), cosine=float(left @ right) / norms if norms else 0.0)

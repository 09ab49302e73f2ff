"""The prefix itself: a header and its tensors.

Axes: L layer, H KV head, N virtual position, D head dimension.

Keys are stored *after* rotary position encoding at positions first_position .. first_position + N - 1, values as the model computes
them: what stands in a KV cache, so that every engine with a cache can serve it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor

from foreword.errors import PrefixError, PrefixMismatch
from foreword.prefix.header import Fingerprint, Geometry, Kind, PrefixHeader, PromptFormat, StandsFor, TensorSpec, build_header, digest_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from foreword.prefix.relevance import Detector

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_TAGGED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I8": torch.int8}
_UNSEALED = "0" * 64


class HeaderFields(TypedDict, total=False):
    """Header fields that `Prefix.make` takes as they are; `PrefixHeader` explains each."""

    first_position: int
    parents: tuple[str, ...]
    training_data: str | None
    recipe: dict[str, JsonValue]
    seed: int | None
    quality: dict[str, float]
    licence: str | None
    created: datetime
    text_tail: str | None
    instruction: str | None
    stands_for: StandsFor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """Keys and values for N virtual positions. Make one with `Prefix.make` or `Prefix.load`; never change its tensors in place.

    Attributes:
        key_LHND, value_LHND: of the header's dtype; integers where it is int8.
        key_scale_LHN, value_scale_LHN: float32, only for int8; a number is the integer times the scale of its layer, head and position.
        detector: says whether a query is this prefix's business; None where every query is taken to be.
    """

    header: PrefixHeader
    key_LHND: Tensor
    value_LHND: Tensor
    key_scale_LHN: Tensor | None = None
    value_scale_LHN: Tensor | None = None
    detector: Detector | None = None

    @classmethod
    def make(
        cls,
        *,
        name: str,
        kind: Kind,
        key_LHND: Tensor,
        value_LHND: Tensor,
        fingerprint: Fingerprint,
        geometry: Geometry,
        prompt_format: PromptFormat,
        key_scale_LHN: Tensor | None = None,
        value_scale_LHN: Tensor | None = None,
        sink: int = 1,
        **fields: Unpack[HeaderFields],
    ) -> Prefix:
        """A prefix from tensors, which are copied and detached; positions, dtype, digest and time of creation are filled in.

        Args:
            sink: leading sink positions; no more than there are positions are recorded.

        Raises:
            PrefixError: shapes do not fit the geometry, dtypes differ or are not known, a number is not finite, or a header field is
                not allowed.
        """
        if key_LHND.ndim != 4:
            raise PrefixError(f"`key_LHND` must have 4 axes (layer, KV head, position, head dimension); got {tuple(key_LHND.shape)}.")
        if key_LHND.dtype not in _DTYPE_NAMES:
            raise PrefixError(f"`key_LHND` must be one of {', '.join(DTYPES)}; got {key_LHND.dtype}. Convert it first.")
        positions = key_LHND.shape[2]
        header = build_header(
            {
                "name": name,
                "kind": kind,
                "fingerprint": fingerprint,
                "geometry": geometry,
                "positions": positions,
                "sink": min(sink, positions),
                "dtype": _DTYPE_NAMES[key_LHND.dtype],
                "prompt_format": prompt_format,
                "created": datetime.now(UTC),
                "digest": _UNSEALED,
                **fields,
            }
        )
        tensors = {"key_LHND": key_LHND, "value_LHND": value_LHND, "key_scale_LHN": key_scale_LHN, "value_scale_LHN": value_scale_LHN}
        copies = {label: tensor.detach().clone().contiguous() for label, tensor in tensors.items() if tensor is not None}
        check_tensors(header, copies)
        check_finite(name, copies)
        return cls(header=header.changed(digest=digest(header, copies)), **copies)

    @staticmethod
    def load(path: str | os.PathLike[str], *, verify: bool = True) -> Prefix:
        """Memory-maps a prefix file; see `foreword.prefix.file.load`."""
        from foreword.prefix import file

        return file.load(path, verify=verify)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the prefix to one file, atomically; see `foreword.prefix.file.save`."""
        from foreword.prefix import file

        file.save(self, path)

    @property
    def name(self) -> str:
        """The header's name."""
        return self.header.name

    @property
    def positions(self) -> int:
        """How many virtual positions there are; 0 is a prefix that changes nothing."""
        return self.header.positions

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(spec.nbytes for spec in self.header.tensors().values())

    @property
    def parameters(self) -> int:
        """How many numbers the keys and values have."""
        return self.key_LHND.numel() + self.value_LHND.numel()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Keys and values by name, in alphabetical order."""
        return {label: getattr(self, label) for label in self.header.tensors()}

    def keys(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Keys as floating-point LHND, dequantised where they are int8.

        Args:
            dtype: by default the prefix's own, float32 for int8.
            device: by default where the tensor is.
        """
        return _floating(self.key_LHND, self.key_scale_LHN, dtype, device)

    def values(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Values as floating-point LHND; see `keys`."""
        return _floating(self.value_LHND, self.value_scale_LHN, dtype, device)

    def rename(self, name: str) -> Prefix:
        """The same prefix under another name.

        Raises:
            PrefixError: the name is not allowed.
        """
        return replace(self, header=self.header.changed(name=name))

    def with_detector(self, detector: Detector | None) -> Prefix:
        """The same prefix with another detector, or none. Its digest stays, as its keys and values do."""
        relevance = None if detector is None else detector.relevance()
        return replace(self, header=self.header.changed(relevance=relevance), detector=detector)

    def check(self, fingerprint: Fingerprint) -> None:
        """Raises `PrefixMismatch`, naming each differing field, unless the prefix was made for the model with this fingerprint."""
        differences = self.header.fingerprint.differences(fingerprint)
        if differences:
            raise PrefixMismatch(self.name, differences)


def check_tensors(header: PrefixHeader, tensors: dict[str, Tensor]) -> None:
    """Raises `PrefixError` unless the tensors are those that the header promises, in dtype and shape."""
    specs = header.tensors()
    if set(tensors) != set(specs):
        raise PrefixError(
            f"A {header.dtype} prefix has the tensors {', '.join(specs)}; got {', '.join(sorted(tensors))}."
            " Scales belong to int8 prefixes, and only to them."
        )
    for label, spec in specs.items():
        _check_tensor(label, tensors[label], spec)


def check_finite(name: str, tensors: dict[str, Tensor]) -> None:
    """Raises `PrefixError` when a number is NaN or infinite, or a scale is negative."""
    for label, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PrefixError(f"`{label}` of prefix `{name}` has numbers that are NaN or infinite; make the prefix again.")
        if label.endswith("scale_LHN") and bool((tensor < 0).any()):
            raise PrefixError(f"`{label}` of prefix `{name}` has negative scales; quantise the prefix again.")


def digest(header: PrefixHeader, tensors: dict[str, Tensor]) -> str:
    """sha256 over name, dtype, shape and little-endian bytes of each tensor, in alphabetical order of the names."""
    return digest_of((label, spec.tag, spec.shape, tensor_bytes(tensors[label])) for label, spec in header.tensors().items())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row order, without a copy where it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _check_tensor(label: str, tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.dtype != _TAGGED[spec.tag]:
        raise PrefixError(f"`{label}` must be {_TAGGED[spec.tag]}, as the keys and the format ask; got {tensor.dtype}.")
    if tuple(tensor.shape) != spec.shape:
        raise PrefixError(f"`{label}` must have shape {spec.shape}, after the geometry and the keys' positions; got {tuple(tensor.shape)}.")


def _floating(tensor_LHND: Tensor, scale_LHN: Tensor | None, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    if scale_LHN is None:
        return tensor_LHND.to(device=device, dtype=dtype or tensor_LHND.dtype)
    # Multiplied in float32 on the target device, so that the integers and not the wide numbers cross the bus.
    wide_LHND = tensor_LHND.to(device).float() * scale_LHN.to(device)[..., None]
    return wide_LHND.to(dtype or torch.float32)

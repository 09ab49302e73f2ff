"""A side signal: keys and values that a prompt's tokens consult beside their own attention, not within it.

At each layer and query head the model computes

    out = attention over the prompt's own tokens + gate · attention over the side signal

where the second has a softmax of its own. What a prefix draws away from the prompt's attention, a side signal leaves there; and a gate
of zero leaves the model as it is. Keys are turned as if they stood right before a prompt that begins at position 0.

Axes: L layer, H KV head, Q query head, N position, D head dimension.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from foreword.errors import PrefixError, PrefixFileError, PrefixMismatch
from foreword.prefix.artifact import Prefix, check_finite, tensor_bytes
from foreword.prefix.header import Fingerprint, Sha256, check_name, describe, digest_of
from foreword.prefix.rotary import rotate
from foreword.store.versions import sync_folder, write_temporary

METADATA_KEY = "foreword_side_signal"
LABELS = ("gate_LQ", "key_LHND", "value_LHND")


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    fingerprint: Fingerprint
    digest: Sha256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideSignal:
    """Make one with `SideSignal.of` or `SideSignal.load`.

    Attributes:
        key_LHND: keys after rotary encoding at positions -N..-1.
        gate_LQ: what the side signal's attention is multiplied by, float32.
        fingerprint: of the model that it was made for.
    """

    name: str
    key_LHND: Tensor
    value_LHND: Tensor
    gate_LQ: Tensor
    fingerprint: Fingerprint

    @classmethod
    def of(cls, prefix: Prefix, gate_LQ: Tensor) -> SideSignal:
        """A prefix's keys and values as a side signal.

        Raises:
            PrefixError: the gate's shape does not fit the model, or its keys cannot be turned (absolute position embeddings).
        """
        header = prefix.header
        back = -header.first_position - prefix.positions
        made = cls(
            name=prefix.name,
            key_LHND=rotate(prefix.keys(), header.geometry, back),
            value_LHND=prefix.values(),
            gate_LQ=gate_LQ,
            fingerprint=header.fingerprint,
        )
        _check(made)
        return made

    @property
    def positions(self) -> int:
        """How many keys there are."""
        return self.key_LHND.shape[2]

    def gated(self, gate_LQ: Tensor) -> SideSignal:
        """The same keys and values behind another gate; gradients reach it where it requires them."""
        made = replace(self, gate_LQ=gate_LQ)
        _check(made)
        return made

    def check(self, fingerprint: Fingerprint) -> None:
        """Raises `PrefixMismatch`, naming each differing field, unless it was made for the model with this fingerprint."""
        if differences := self.fingerprint.differences(fingerprint):
            raise PrefixMismatch(self.name, differences)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to one safetensors file, replacing what is there in one step.

        Raises:
            PrefixFileError: the file cannot be written; what was there is untouched.
        """
        from safetensors.torch import save

        target = Path(path)
        tensors = {label: getattr(self, label).detach().cpu().contiguous() for label in LABELS}
        header = _Header(name=self.name, fingerprint=self.fingerprint, digest=_digest(tensors))
        content = save(tensors, metadata={METADATA_KEY: header.model_dump_json()})
        try:
            write_temporary(target, content).replace(target)
        except OSError as error:
            reason = error.strerror or error
            raise PrefixFileError(f"Cannot write side signal {target}: {reason}. Choose a folder that you may write to.") from error
        sync_folder(target.parent)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SideSignal:
        """Reads a file that `save` wrote, every byte of it.

        Raises:
            PrefixFileError: the file is missing, truncated, altered, or no side signal.
        """
        from safetensors import SafetensorError, safe_open

        source = Path(path)
        try:
            with safe_open(source, framework="pt") as file:
                header = _Header.model_validate_json((file.metadata() or {}).get(METADATA_KEY, ""))
                if sorted(file.keys()) != sorted(LABELS):
                    raise PrefixError(f"it has the tensors {', '.join(sorted(file.keys()))}; wanted are {', '.join(LABELS)}.")
                tensors = {label: file.get_tensor(label) for label in LABELS}
            made = cls(name=header.name, fingerprint=header.fingerprint, **tensors)
            _check(made)
            if _digest(tensors) != header.digest:
                raise PrefixError("its tensors do not match the header's digest; the file was altered.")
        except ValidationError as error:
            raise PrefixFileError(f"{source} is no side signal: {describe(error)}.") from None
        except (SafetensorError, OSError, PrefixError) as error:
            raise PrefixFileError(f"{source} is not a sound side signal: {error} Take a fresh copy, or make it again.") from None
        return made


def _check(side: SideSignal) -> None:
    try:
        check_name(side.name, composed=True)
    except ValueError as error:
        raise PrefixError(f"A side signal's name: {error}.") from None
    key, value, gate = side.key_LHND, side.value_LHND, side.gate_LQ
    if key.ndim != 4 or key.shape != value.shape or key.dtype != value.dtype or not key.is_floating_point():
        raise PrefixError(f"Keys and values must be alike: L H N D, floating-point; got {tuple(key.shape)}, {tuple(value.shape)}.")
    if gate.ndim != 2 or not gate.is_floating_point() or len(gate) != len(key) or not gate.shape[1] or gate.shape[1] % key.shape[1]:
        raise PrefixError(
            f"`gate_LQ` must have {len(key)} layers and a multiple of {key.shape[1]} query heads; got shape {tuple(gate.shape)}."
        )
    check_finite(side.name, {label: getattr(side, label).detach() for label in LABELS})


def _digest(tensors: dict[str, Tensor]) -> str:
    return digest_of((label, str(tensors[label].dtype), tuple(tensors[label].shape), tensor_bytes(tensors[label])) for label in LABELS)

"""What vLLM knows of its model, as far as a prefix has to fit it. Reaches neither torch nor vllm: the config is read by attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.errors import PrefixMismatch, WindowError
from foreword.prefix.header import Fingerprint, PrefixHeader

_TOLERANCE = 1e-3
"""Relative; rounding to float32 leaves 1e-6, while another base moves the slowest frequency by far more than this."""
_KNOWN_ROPE = ("default", "linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The model as vLLM loads it.

    Attributes:
        rotary: layer to frequencies, in radians per position; layers whose encoding is scaled in a way not computed here are missing.
        window: positions that a request may take, prefix included.
        fingerprint: where it is known.
    """

    architectures: tuple[str, ...]
    layers: int
    kv_heads: int
    head_dim: int
    rotary: Mapping[int, tuple[float, ...]]
    window: int
    fingerprint: Fingerprint | None

    @classmethod
    def read(cls, model_config: Any, fingerprint: Fingerprint | None) -> ModelFacts:
        """From vLLM's `ModelConfig`."""
        layers, head_dim = model_config.get_total_num_hidden_layers(), model_config.get_head_size()
        return cls(
            architectures=tuple(model_config.architectures),
            layers=layers,
            kv_heads=model_config.get_total_num_kv_heads(),
            head_dim=head_dim,
            rotary=_rotary(model_config.hf_text_config, layers, head_dim),
            window=model_config.max_model_len,
            fingerprint=fingerprint,
        )

    def check(self, header: PrefixHeader) -> None:
        """Raises `PrefixMismatch`, naming each differing field, unless the prefix fits the model."""
        differences = self._shape_differences(header)
        if self.fingerprint is not None:
            differences |= header.fingerprint.differences(self.fingerprint)
        elif header.fingerprint.architecture not in self.architectures:
            differences["architecture"] = (header.fingerprint.architecture, ", ".join(self.architectures))
        if differences:
            raise PrefixMismatch(header.name, differences)

    def check_room(self, header: PrefixHeader, prompt_tokens: int) -> None:
        """Raises `WindowError` unless prefix and prompt leave room for at least one token of an answer."""
        if header.positions + prompt_tokens >= self.window:
            raise WindowError(
                f"Prefix `{header.name}` has {header.positions} positions and the prompt {prompt_tokens} tokens; this model's maximum "
                f"context length is {self.window}, and the answer needs a place too. Shorten the prompt."
            )

    def _shape_differences(self, header: PrefixHeader) -> dict[str, tuple[object, object]]:
        geometry = header.geometry
        pairs = {
            "layers": (geometry.layers, self.layers),
            "kv_heads": (geometry.kv_heads, self.kv_heads),
            "head_dim": (geometry.head_dim, self.head_dim),
        }
        differences: dict[str, tuple[object, object]] = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        for group in geometry.rotary:
            for layer in group.layers:
                ours = self.rotary.get(layer)
                if ours is not None and not _same(group.inverse_frequencies, ours):
                    differences[f"rotary encoding of layer {layer}"] = (_brief(group.inverse_frequencies), _brief(ours))
                    break
        return differences


def _same(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return len(left) == len(right) and all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(left, right, strict=True))


def _brief(frequencies: tuple[float, ...]) -> str:
    return f"{len(frequencies)} frequencies down to {frequencies[-1]:.4g}" if frequencies else "none"


def _rotary(config: Any, layers: int, head_dim: int) -> dict[int, tuple[float, ...]]:
    """Frequencies by layer, for the plain encoding and the linearly scaled one (RoFormer, arXiv:2104.09864, section 3.2.2)."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, Mapping):
        return {}
    kinds = getattr(config, "layer_types", None)
    found = {}
    for layer in range(layers):
        own = parameters if "rope_theta" in parameters or not kinds else parameters.get(kinds[layer])
        if isinstance(own, Mapping) and (frequencies := _frequencies(own, config, head_dim)):
            found[layer] = frequencies
    return found


def _frequencies(parameters: Mapping[str, Any], config: Any, head_dim: int) -> tuple[float, ...]:
    theta = parameters.get("rope_theta")
    if not theta or parameters.get("rope_type", "default") not in _KNOWN_ROPE:
        return ()
    share = parameters.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    rotary_dim = int(head_dim * share)
    factor = parameters.get("factor") or 1.0
    return tuple(theta ** (-index / rotary_dim) / factor for index in range(0, rotary_dim, 2))

"""Reads a model's shape from its config and modules. Axes: L layer, H KV head, D head dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from foreword.errors import ModelError
from foreword.prefix.header import Geometry, RotaryGroup
from foreword.prefix.rotary import rotate

_STEPS = 7
"""Positions by which keys are moved to see how they turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """Layers that see only the last `size` positions.

    Attributes:
        by_type: the model has layers of both kinds and takes one mask for each.
    """

    size: int
    by_type: bool

    def masks(self, full: Any, near: Any) -> Any:
        """What the model's forward takes as its attention mask."""
        return {"full_attention": full, "sliding_attention": near} if self.by_type else near


def geometry_of(module: Any) -> Geometry:
    """Layers, KV heads, head dimension and rotary frequencies of a causal language model.

    Raises:
        ModelError: the model is not a decoder-only transformer with the same KV shape in every layer.
    """
    config = module.config.get_text_config()
    try:
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
    except AttributeError as error:
        raise ModelError(f"`{config.model_type}` is not a decoder-only transformer that Foreword knows: {error}.") from error
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ModelError(f"`{config.model_type}` has layers of kind {', '.join(sorted(kinds))}; a prefix needs attention layers only.")
    return Geometry(layers=layers, kv_heads=kv_heads, head_dim=head_dim, rotary=_rotary_groups(module, config, layers))


def _rotary_groups(module: Any, config: Any, layers: int) -> tuple[RotaryGroup, ...]:
    found = {
        name.rpartition(".")[2]: buffer
        for name, buffer in module.named_buffers()
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq")
    }
    if not found:
        return ()
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    groups = []
    for name, frequencies in sorted(found.items()):
        kind = name.removesuffix("inv_freq").rstrip("_")
        members = tuple(layer for layer in range(layers) if not kind or kinds[layer] == kind)
        if members:
            values = tuple(float(value) for value in frequencies.float().cpu())
            groups.append(RotaryGroup(layers=members, rotary_dim=2 * len(values), inverse_frequencies=values))
    return tuple(groups)


def window_of(config: Any) -> int:
    """Positions that the model was made for.

    Raises:
        ModelError: the config names no number; such a model marks positions in a way that a prefix does not fit (ALiBi).
    """
    text = config.get_text_config()
    size = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if not size:
        raise ModelError(f"The config of `{text.model_type}` has no `max_position_embeddings`; its positions are not ones Foreword knows.")
    return int(size)


def turns_as_described(body: Any, geometry: Geometry, device: torch.device) -> bool:
    """Whether the model's keys turn with position as the geometry says; some models interleave the pairs (Cohere, GPT-J).

    The first layer of each group is looked at: what deeper ones differ by grows with rounding.
    """
    tokens_BT = torch.arange(1, 5, device=device)[None]
    keys = []
    for start in (0, _STEPS):
        cache = DynamicCache()
        with torch.inference_mode():
            body(input_ids=tokens_BT, position_ids=start + torch.arange(4, device=device)[None], past_key_values=cache, use_cache=True)
        keys.append(torch.stack([layer.keys[0] for layer in cache.layers]).float())  # type: ignore[attr-defined]
    turned_LHND = rotate(keys[0], geometry, _STEPS)
    first = [min(group.layers) for group in geometry.rotary]
    return all(bool((turned_LHND[layer] - keys[1][layer]).abs().max() < 0.05 * keys[1][layer].abs().max()) for layer in first)


def sliding_window_of(config: Any) -> SlidingWindow | None:
    """The sliding window, where any layer has one."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    size = getattr(text, "sliding_window", None)
    if not size or (kinds is not None and "sliding_attention" not in kinds) or getattr(text, "use_sliding_window", True) is False:
        return None
    return SlidingWindow(size=int(size), by_type=kinds is not None)


def reach_of(config: Any, layers: int) -> tuple[int | None, ...]:
    """For each layer, how many positions back a token sees, itself counted; None for all."""
    sliding = sliding_window_of(config)
    kinds = getattr(config.get_text_config(), "layer_types", None) or ["sliding_attention" if sliding else "full_attention"] * layers
    return tuple(sliding.size if sliding and kind == "sliding_attention" else None for kind in kinds)

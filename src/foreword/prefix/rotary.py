"""Moving keys to other positions. Axes: L layer, H KV head, N virtual position, D head dimension.

Rotary encoding (Su et al., RoFormer, arXiv:2104.09864, section 3.2.2) turns the pair of dimensions (i, i + R/2) of the key at
position p by p times frequency i. Turns add up, so a key encoded at p and turned by k more is the key encoded at p + k, whatever
constant the model scales its cosines by. This is the half-split layout (`rotate_half`) of Hugging Face's models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.errors import PrefixError
from foreword.prefix.header import Geometry


def rotate(key_LHND: Tensor, geometry: Geometry, by: int) -> Tensor:
    """Keys turned `by` positions further (back where negative), computed in float32 and returned in the given dtype.

    Angles are computed in float64: one rounding of `by` times a frequency to float32 costs 1e-4 radians at position 4,000.
    Gradients flow through. `by` 0 returns the keys themselves.

    Raises:
        PrefixError: the geometry has no rotary encoding and `by` is not 0; the keys' shape does not fit; or keys are integers.
    """
    layers, heads, head_dim = geometry.layers, geometry.kv_heads, geometry.head_dim
    if key_LHND.ndim != 4 or (key_LHND.shape[0], key_LHND.shape[1], key_LHND.shape[3]) != (layers, heads, head_dim):
        raise PrefixError(f"`key_LHND` must have shape ({layers}, {heads}, N, {head_dim}); got {tuple(key_LHND.shape)}.")
    if not key_LHND.is_floating_point():
        raise PrefixError(f"Keys of dtype {key_LHND.dtype} cannot be turned; dequantise the prefix first.")
    if by == 0:
        return key_LHND
    if not geometry.rotary:
        raise PrefixError(f"This model has absolute position embeddings, so its keys cannot move by {by}; compile them at their new place.")
    moved_LHND = key_LHND.float().clone()
    for group in geometry.rotary:
        index = torch.tensor(group.layers, dtype=torch.long, device=key_LHND.device)
        angle_R = by * torch.tensor(group.inverse_frequencies, dtype=torch.float64)
        cos_R = angle_R.cos().to(moved_LHND)
        sin_R = angle_R.sin().to(moved_LHND)
        turned = moved_LHND[index, :, :, : group.rotary_dim]
        first, second = turned.chunk(2, dim=-1)
        moved_LHND[index, :, :, : group.rotary_dim] = torch.cat((first * cos_R - second * sin_R, second * cos_R + first * sin_R), dim=-1)
    return moved_LHND.to(key_LHND.dtype)

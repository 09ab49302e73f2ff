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


def rotate(key_LHND: Tensor, geometry: Geometry, by: int | Tensor) -> Tensor:
    """Keys turned `by` positions further (back where negative), computed in float32 and returned in the given dtype.

    Angles are computed in float64: one rounding of `by` times a frequency to float32 costs 1e-4 radians at position 4,000.
    Gradients flow through. `by` 0 returns the keys themselves.

    Args:
        by: one number of positions for all keys, or integers that broadcast to (L, H, N), a number for each: after positions were
            taken out, `torch.arange(kept) - kept_positions_LHN` closes the gaps.

    Raises:
        PrefixError: the geometry has no rotary encoding and `by` is not 0; the keys' shape does not fit; keys are integers; or `by`
            is not of integers that broadcast.
    """
    layers, heads, head_dim = geometry.layers, geometry.kv_heads, geometry.head_dim
    if key_LHND.ndim != 4 or (key_LHND.shape[0], key_LHND.shape[1], key_LHND.shape[3]) != (layers, heads, head_dim):
        raise PrefixError(f"`key_LHND` must have shape ({layers}, {heads}, N, {head_dim}); got {tuple(key_LHND.shape)}.")
    if not key_LHND.is_floating_point():
        raise PrefixError(f"Keys of dtype {key_LHND.dtype} cannot be turned; dequantise the prefix first.")
    by_LHN = _per_key(by, key_LHND)
    if not by_LHN.any():
        return key_LHND
    if not geometry.rotary:
        farthest = int(by_LHN.abs().max())
        raise PrefixError(
            f"This model has absolute position embeddings, so its keys cannot move by {farthest}; compile them at their new place."
        )
    moved_LHND = key_LHND.float().clone()
    for group in geometry.rotary:
        index = torch.tensor(group.layers, dtype=torch.long, device=key_LHND.device)
        # Keys that go the same way, be they all or one head's, share an angle: a single number stays one along each axis.
        offset_LHN = by_LHN if by_LHN.shape[0] == 1 else by_LHN[index]
        frequency_R = torch.tensor(group.inverse_frequencies, dtype=torch.float64).to(key_LHND.device)
        angle_LHNR = offset_LHN[..., None] * frequency_R
        cos_LHNR = angle_LHNR.cos().to(moved_LHND)
        sin_LHNR = angle_LHNR.sin().to(moved_LHND)
        turned = moved_LHND[index, :, :, : group.rotary_dim]
        first, second = turned.chunk(2, dim=-1)
        moved_LHND[index, :, :, : group.rotary_dim] = torch.cat(
            (first * cos_LHNR - second * sin_LHNR, second * cos_LHNR + first * sin_LHNR), dim=-1
        )
    return moved_LHND.to(key_LHND.dtype)


def _per_key(by: int | Tensor, key_LHND: Tensor) -> Tensor:
    """`by` on the keys' device with three axes, each of the keys' length or 1."""
    by_LHN = torch.as_tensor(by, device=key_LHND.device)
    if by_LHN.is_floating_point() or by_LHN.is_complex() or by_LHN.dtype == torch.bool:
        raise PrefixError(f"`by` must be a whole number of positions, or a tensor of them; got {by_LHN.dtype}.")
    shape = tuple(by_LHN.shape)
    three = (1,) * (3 - len(shape)) + shape
    if len(three) != 3 or any(size not in (1, axis) for size, axis in zip(three, key_LHND.shape[:3], strict=True)):
        raise PrefixError(f"`by` must broadcast to {tuple(key_LHND.shape[:3])} (layer, KV head, position); got shape {shape}.")
    return by_LHN.long().reshape(three)

"""Several token sequences read at once, each behind the same keys and values. Axes: B sequence, H KV head, T token, D head dim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def read(
    body: Any, sequences: Sequence[Sequence[int]], behind: tuple[Tensor, Tensor] | None, *, dtype: torch.dtype, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each sequence's own tokens, L H T D, keys after rotary encoding at the positions that follow `behind`.

    Shorter sequences are padded on the right, where no token of theirs looks.
    """
    longest = max(map(len, sequences))
    token_ids_BT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sequences], device=device)
    before = 0 if behind is None else behind[0].shape[2]
    # A cache told nothing of the config keeps every position of sliding layers too.
    cache = DynamicCache()
    with torch.inference_mode():
        if behind is not None:
            for layer, (key_HND, value_HND) in enumerate(zip(*behind, strict=True)):
                key_BHND, value_BHND = (tensor.to(device, dtype).expand(len(sequences), -1, -1, -1) for tensor in (key_HND, value_HND))
                cache.update(key_BHND, value_BHND, layer)
        body(input_ids=token_ids_BT, past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    return [
        (
            torch.stack([layer.keys[row, :, before : before + len(ids)] for layer in layers]).clone(),
            torch.stack([layer.values[row, :, before : before + len(ids)] for layer in layers]).clone(),
        )
        for row, ids in enumerate(sequences)
    ]

"""Choosing the next token. Axes: V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.types import Sampling


class Sampler:
    """Draws tokens for one request; equal seeds give equal draws whatever shares the batch."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device=device).manual_seed(sampling.seed)

    def draw(self, logits_V: Tensor) -> int:
        """One token from fp32 logits."""
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        logits_V = _nucleus(_largest(logits_V / self._sampling.temperature, self._sampling.top_k), self._sampling.top_p)
        return int(torch.multinomial(logits_V.softmax(-1), 1, generator=self._generator))


def _largest(logits_V: Tensor, count: int) -> Tensor:
    """Keeps the `count` largest; 0 keeps all."""
    if not 0 < count < logits_V.shape[-1]:
        return logits_V
    return logits_V.masked_fill(logits_V < logits_V.topk(count).values[-1], float("-inf"))


def _nucleus(logits_V: Tensor, mass: float) -> Tensor:
    """Keeps the fewest tokens whose probability reaches `mass` (Holtzman et al. 2020, §3.1)."""
    if mass >= 1:
        return logits_V
    ordered, order = logits_V.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits_V.scatter(0, order, ordered.masked_fill(before >= mass, float("-inf")))

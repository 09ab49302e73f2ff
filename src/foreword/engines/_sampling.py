"""Choosing the next token. Axes: V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.errors import ConfigError
from foreword.types import Sampling


def check(sampling: Sampling) -> None:
    """Raises `ConfigError` for a setting from which nothing can be drawn."""
    wrong = {
        f"max_new_tokens must be 1 or more; got {sampling.max_new_tokens}": sampling.max_new_tokens < 1,
        f"temperature must be 0 (greedy) or more, and finite; got {sampling.temperature}": not 0 <= sampling.temperature < float("inf"),
        f"top_p must be above 0 and at most 1; got {sampling.top_p}": not 0 < sampling.top_p <= 1,
        f"top_k must be 0 (all tokens) or more; got {sampling.top_k}": sampling.top_k < 0,
        f"stop must not hold an empty text, which would end every answer at once; got {sampling.stop}": "" in sampling.stop,
    }
    for message, applies in wrong.items():
        if applies:
            raise ConfigError(f"Sampling: {message}.")


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

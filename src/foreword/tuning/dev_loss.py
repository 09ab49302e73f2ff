"""The figure that chooses between candidates and checkpoints. Axes: L layer, H KV head, N position, D head dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword.data.dataset import Dataset
from foreword.engine import Differentiable, Row
from foreword.prefix.header import PromptFormat
from foreword.tuning.rows import OnLong, encode_examples

if TYPE_CHECKING:
    from torch import Tensor

SCORING_TOKENS = 4096


class DevLoss:
    """Mean loss on held-out examples, in nats.

    With labels: cross-entropy between the labels alone, which tells a run that has left the chance plateau from one
    that only learned to write labels. Without: mean negative log-likelihood per target token.
    """

    def __init__(
        self, engine: Differentiable, dev: Dataset, *, prompt_format: PromptFormat, room: int, limit: int, seed: int, on_long: OnLong
    ) -> None:
        self._engine = engine
        examples = dev.shuffled(seed).examples[:limit] if len(dev.examples) > limit else dev.examples
        self._labels = dev.labels
        if dev.labels:
            targets = tuple(engine.answer_ids(label) for label in dev.labels)
            self._lengths = [len(target) for target in targets]
            self._wanted = [dev.labels.index(example.completions[0]) for example in examples]
            self._rows: Sequence[Row] = [
                Row(prompt=engine.render(example.messages, prompt_format=prompt_format), targets=targets) for example in examples
            ]
        else:
            self._rows = encode_examples(engine, examples, prompt_format=prompt_format, room=room, on_long=on_long).rows

    def __call__(self, key_LHND: Tensor, value_LHND: Tensor) -> float:
        """The loss under one prefix."""
        import torch

        total, count = 0.0, 0
        with torch.inference_mode():
            for group in self._engine.batches(self._rows, most_tokens=SCORING_TOKENS):
                flat = self._engine.target_log_probs([self._rows[index] for index in group], key_LHND, value_LHND)
                total += self._label_loss(flat, group) if self._labels else -float(flat.sum())
                count += len(group) if self._labels else len(flat)
        return total / count

    def _label_loss(self, flat: Tensor, group: list[int]) -> float:
        import torch

        scores = torch.stack([row.sum() for part in flat.split(sum(self._lengths)) for row in part.split(self._lengths)])
        log_probs = scores.view(len(group), len(self._lengths)).log_softmax(dim=-1)
        return -sum(float(log_probs[place, self._wanted[index]]) for place, index in enumerate(group))

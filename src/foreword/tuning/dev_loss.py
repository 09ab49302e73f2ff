"""The figure that chooses between candidates and checkpoints. Axes: L layer, H KV head, N position, D head dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from foreword.data.dataset import Dataset
from foreword.engine import Differentiable, Row
from foreword.errors import TuningError
from foreword.prefix.header import PromptFormat
from foreword.tuning.rows import encode_examples

if TYPE_CHECKING:
    from torch import Tensor

SCORING_TOKENS = 2048


class DevLoss:
    """Mean loss on held-out examples, in nats.

    With labels: cross-entropy between the labels alone, which tells a run that has left the chance plateau from one
    that only learned to write labels. Without: mean negative log-likelihood per target token.

    Attributes:
        left_out: examples that take more than `room` positions, and are not judged.

    Raises:
        TuningError: no example fits.
    """

    def __init__(self, engine: Differentiable, dev: Dataset, *, prompt_format: PromptFormat, room: int, limit: int, seed: int) -> None:
        self._engine = engine
        examples = dev.shuffled(seed).examples[:limit] if len(dev.examples) > limit else dev.examples
        self._labels = dev.labels
        if dev.labels:
            targets = tuple(engine.answer_ids(label) for label in dev.labels)
            self._lengths = [len(target) for target in targets]
            rendered = [(example, engine.render(example.messages, prompt_format=prompt_format)) for example in examples]
            fitting = [(example, prompt) for example, prompt in rendered if len(prompt) + max(self._lengths) <= room]
            self._wanted = [dev.labels.index(example.completions[0]) for example, _ in fitting]
            self._rows: Sequence[Row] = [Row(prompt=prompt, targets=targets) for _, prompt in fitting]
            self.left_out = len(rendered) - len(fitting)
        else:
            # One reference each is enough to choose by.
            examples = [replace(example, completions=example.completions[:1]) for example in examples]
            encoded = encode_examples(engine, examples, prompt_format=prompt_format, room=room, on_long="skip")
            self._rows, self.left_out = encoded.rows, len(encoded.long_lines)
        if not self._rows:
            raise TuningError(f"No example of the dev data ({dev.path}) fits into the {room} positions that a prefix may leave.")

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

"""Generation: one prefill, then a token per row and step, finished rows dropped.

Slots of a batch read [prefix | prompts, padded on the right | generated]; padding slots are masked and positions
count real tokens only, so a row's tokens do not depend on its neighbours.

Axes: B row, T token, S slot, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.engines._cache import SlotCache
from foreword.engines._sampling import Sampler
from foreword.types import FinishReason, Sampling

if TYPE_CHECKING:
    from foreword.engines.transformers import TransformersEngine


@dataclass(slots=True, kw_only=True)
class _Row:
    """One answer in the making."""

    index: int
    length: int
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step gave one row: a token (None when it only ended), and why it ended, if it did."""

    index: int
    token: int | None
    finished: FinishReason | None


@torch.inference_mode()  # on the generator, it holds while a step is computed and not while the caller looks at it
def decode(
    engine: TransformersEngine, prompts: Sequence[Sequence[int]], key_LHND: Tensor | None, value_LHND: Tensor | None, sampling: Sampling
) -> Iterator[list[Step]]:
    """Runs a batch to its end, one list of steps at a time.

    Args:
        prompts: token ids per row, none empty.
        key_LHND, value_LHND: the prefix, in the engine's dtype; None for none.
    """
    batch = _Batch(engine, prompts, key_LHND, value_LHND, sampling)
    logits_BV = batch.prefill(prompts)
    while batch.rows:
        steps = batch.choose(logits_BV)
        yield steps
        if batch.drop({step.index for step in steps if step.finished}):
            logits_BV = batch.forward()


class _Batch:
    def __init__(
        self,
        engine: TransformersEngine,
        prompts: Sequence[Sequence[int]],
        key_LHND: Tensor | None,
        value_LHND: Tensor | None,
        sampling: Sampling,
    ) -> None:
        self._engine, self._sampling, self._device = engine, sampling, engine.device
        self._prefix = 0 if key_LHND is None else key_LHND.shape[2]
        self._padded = max(len(prompt) for prompt in prompts)
        self.rows = [_Row(index=index, length=len(prompt), sampler=Sampler(sampling, self._device)) for index, prompt in enumerate(prompts)]
        self._cache = SlotCache(
            layers=engine.geometry.layers,
            rows=len(prompts),
            heads=engine.geometry.kv_heads,
            slots=self._prefix + self._padded + sampling.max_new_tokens,
            head_dim=engine.geometry.head_dim,
            dtype=engine.dtype,
            device=self._device,
        )
        if key_LHND is not None and value_LHND is not None:
            self._cache.put_prefix(key_LHND, value_LHND)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Reads the prompts; logits after each one's last token."""
        tokens_BT = torch.tensor([[*prompt, *[0] * (self._padded - len(prompt))] for prompt in prompts], device=self._device)
        position_T = torch.arange(self._prefix, self._prefix + self._padded, device=self._device)
        lengths_B = torch.tensor([row.length for row in self.rows], device=self._device)
        visible_TS = torch.ones(self._padded, self._prefix + self._padded, dtype=torch.bool, device=self._device).tril(self._prefix)
        position_S = torch.arange(self._prefix + self._padded, device=self._device)
        rows = len(prompts)
        hidden_BTD = self._engine.hidden(
            tokens_BT,
            position_T.expand(rows, -1),
            visible_TS.expand(rows, -1, -1),
            position_S.expand(rows, -1),
            self._cache,
        )
        self._cache.advance(self._padded)
        return self._engine.logits(hidden_BTD[torch.arange(rows, device=self._device), lengths_B - 1])

    def choose(self, logits_BV: Tensor) -> list[Step]:
        """Draws a token for every row and says which rows end."""
        greedy = logits_BV.argmax(-1).tolist() if self._sampling.temperature == 0 else None
        steps = []
        for number, row in enumerate(self.rows):
            token = greedy[number] if greedy is not None else row.sampler.draw(logits_BV[number])
            if token in self._engine.stop_ids:
                steps.append(Step(index=row.index, token=None, finished="stop"))
                continue
            row.tokens.append(token)
            steps.append(Step(index=row.index, token=token, finished=self._ending(row)))
        return steps

    def drop(self, finished: set[int]) -> bool:
        """Takes finished rows out; whether any is left."""
        if finished:
            kept = [number for number, row in enumerate(self.rows) if row.index not in finished]
            self.rows = [self.rows[number] for number in kept]
            if self.rows:
                self._cache.keep_rows(torch.tensor(kept, device=self._device))
        return bool(self.rows)

    def forward(self) -> Tensor:
        """Feeds every row's newest token; logits after it."""
        generated = len(self.rows[0].tokens)
        slots = self._prefix + self._padded + generated
        lengths_B1 = torch.tensor([[row.length] for row in self.rows], device=self._device)
        slot_S = torch.arange(slots, device=self._device)
        is_padding_BS = (slot_S >= self._prefix + lengths_B1) & (slot_S < self._prefix + self._padded)
        position_BS = torch.where(slot_S < self._prefix + self._padded, slot_S, slot_S - self._padded + lengths_B1)
        hidden_BTD = self._engine.hidden(
            torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._device),
            position_BS[:, -1:],
            ~is_padding_BS[:, None],
            position_BS,
            self._cache,
        )
        self._cache.advance(1)
        return self._engine.logits(hidden_BTD[:, -1])

    def _ending(self, row: _Row) -> FinishReason | None:
        if self._sampling.stop and any(text in self._engine.decode_text(row.tokens) for text in self._sampling.stop):
            return "stop"
        return "length" if len(row.tokens) >= self._sampling.max_new_tokens else None

"""A text's keys and values in fewer positions than it has tokens.

The text is read once; each layer and KV head then keeps the positions that matter most to reference queries (`references.py`), and the kept
keys and values are moved until attention over them gives those queries what attention over the whole text gave (`matching.py`). The
result is a plain prefix. Keys keep their distance to whatever follows: the model sees a kept token as far back as it stood in the text.

Axes: L layer, H KV head, N virtual position, T token, M query, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foreword.compiling import matching, references, selection
from foreword.compiling.observer import Observer
from foreword.compiling.settings import CompileSettings
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

LEAST_QUERIES = 512
QUERIES_PER_POSITION = 2
"""Reference tokens kept for each position that is to be fitted, so that its value is not fitted to noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a text that fits the window, in how many positions it is to be, and how many of these a tail may take."""

    token_ids: tuple[int, ...]
    positions: int
    tail: int


def wanted_positions(tokens: int, settings: CompileSettings) -> int:
    """How many positions the settings ask for, the tail's included.

    Raises:
        ConfigError: fewer than two beside the tail: the sink and one more.
    """
    ratio = settings.ratio or 10.0
    positions = settings.positions if settings.positions is not None else round(tokens / ratio)
    if positions < 2:
        asked = f"{positions} positions" if settings.positions is not None else f"{tokens:,} tokens at a ratio of {ratio:g}"
        raise ConfigError(
            f"{asked} leave no room beside the sink, the first position; at least 2 are needed. Choose a lower ratio, or more positions."
        )
    if positions < tokens and settings.tail > positions - 2:
        raise ConfigError(
            f"A tail of {settings.tail} leaves fewer than 2 of {positions} positions for the rest. Choose a smaller tail or more positions."
        )
    return min(positions, tokens)


def split(engine: CompilingEngine, token_ids: Sequence[int], positions: int, *, tail: int = 0) -> list[Part]:
    """The text in as few parts of equal length as fit the window with their reference queries behind them, and each one's positions.

    Each later part is read behind the text's first token, which is the sink that it would have in its place, and gets one position more
    for it: composing the parts drops it.
    """
    most = engine.window - references.room_for_references(engine)
    count = -(-len(token_ids) // most)
    size = -(-len(token_ids) // count)
    stretches = [tuple(token_ids[start : start + size]) for start in range(0, len(token_ids), size)]
    shares = [positions * len(stretch) // len(token_ids) for stretch in stretches]
    shares[0] += positions - sum(shares)
    # A text that is kept whole needs no tail.
    each = tail // count if positions < len(token_ids) else 0
    first = Part(token_ids=stretches[0], positions=shares[0], tail=each)
    later = zip(stretches[1:], shares[1:], strict=True)
    return [first, *(Part(token_ids=(token_ids[0], *stretch), positions=share + 1, tail=each) for stretch, share in later)]


class Reading:
    """A part that was read once, and what the model then asked of it; it can be compacted as often as wanted.

    Attributes:
        whole: the part's exact keys and values.
        heard: the reference queries, once they were needed.
    """

    def __init__(self, engine: CompilingEngine, token_ids: tuple[int, ...], *, name: str, observer: Observer) -> None:
        from foreword.prefix.artifact import Prefix

        self._engine, self._token_ids, self._observer = engine, token_ids, observer
        self._identity: dict[str, Any] = {
            "name": name,
            "fingerprint": engine.fingerprint,
            "geometry": engine.geometry,
            "prompt_format": "continuation",
        }
        observer.stage(f"reading {len(token_ids):,} tokens", 1)
        key_LHTD, value_LHTD = engine.read(token_ids)
        observer.advance(1)
        self.whole = Prefix.make(kind="text", key_LHND=key_LHTD, value_LHND=value_LHTD, **self._identity)
        self.heard: references.References | None = None

    def compact(self, positions: int, settings: CompileSettings) -> Prefix:
        """The part in that many positions; the whole of it where it has no more."""
        from foreword.prefix.artifact import Prefix
        from foreword.prefix.rotary import rotate

        if positions >= self.whole.positions:
            return self.whole
        key_LHTD, value_LHTD = self.whole.key_LHND, self.whole.value_LHND
        if settings.select == "truncate":
            # What a token is does not depend on what follows it.
            start = {"key_LHND": key_LHTD[:, :, :positions], "value_LHND": value_LHTD[:, :, :positions]}
            return Prefix.make(kind="compacted", **start, **self._identity)
        if self.heard is None and (settings.fit or settings.select in ("attention", "kvzip")):
            self.listen(positions, settings)
        chooser = _Chooser(self._engine, self._token_ids, self.whole, positions, settings, self.heard)
        self._observer.stage("fitting" if settings.fit else "choosing", len(key_LHTD))
        layers = []
        for layer in range(len(key_LHTD)):
            layers.append([chooser.head(layer, head) for head in range(key_LHTD.shape[1])])
            self._observer.advance(1)
        key_LHND = torch.stack([torch.stack([key for key, _ in heads]) for heads in layers])
        value_LHND = torch.stack([torch.stack([value for _, value in heads]) for heads in layers])
        if self._engine.geometry.rotary:
            # What follows a prefix stands right behind it; turned back, keys are as far from it as they were in the text.
            key_LHND = rotate(key_LHND, self._engine.geometry, positions - self.whole.positions)
        tensors = {"key_LHND": key_LHND.to(key_LHTD.dtype), "value_LHND": value_LHND.to(value_LHTD.dtype)}
        return Prefix.make(kind="compacted", **tensors, **self._identity)

    def listen(self, positions: int, settings: CompileSettings) -> None:
        """Collects the reference queries, enough for that many positions; `compact` does it where it was not done."""
        self.heard = references.collect(
            self._engine,
            self._token_ids,
            self.whole,
            kept=min(self.whole.positions, max(LEAST_QUERIES, QUERIES_PER_POSITION * positions)),
            questions=settings.questions if settings.fit or settings.select == "attention" else 0,
            seed=settings.seed,
            observer=self._observer,
        )


class _Chooser:
    """Chooses and fits one head at a time; holds what all heads of one text share."""

    def __init__(
        self,
        engine: CompilingEngine,
        token_ids: tuple[int, ...],
        whole: Prefix,
        positions: int,
        settings: CompileSettings,
        heard: references.References | None,
    ) -> None:
        self._whole, self._positions, self._settings = whole, positions, settings
        self._reach = engine.reach
        self._heard = heard
        self._asked = None if heard is None else heard.all
        if settings.select == "heavy-hitter":
            before = len(token_ids) - selection.observed(len(token_ids))
            self._last = engine.asked(
                token_ids[before:], whole.key_LHND[:, :, :before], whole.value_LHND[:, :, :before], kept=range(len(token_ids) - before)
            )

    def head(self, layer: int, head: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one head, N D each."""
        first = self._first_seen(layer)
        key_TD, value_TD = self._whole.key_LHND[layer, head, first:].float(), self._whole.value_LHND[layer, head, first:].float()
        if len(key_TD) == self._positions:
            return key_TD, value_TD
        if self._heard is None or self._asked is None:
            kept_N = selection.kept(self._scores_without_references(layer, head, key_TD), self._positions)
            return key_TD[kept_N], value_TD[kept_N]
        query_MD, beside_M = self._asked.query_LHMD[layer, head], self._asked.beside_LHM[layer, head]
        weights_MT, share_M = matching.attention(query_MD, beside_M, key_TD)
        if self._settings.select == "attention":
            score_T = selection.by_attention(weights_MT, share_M)
        elif self._settings.select == "kvzip":
            reading = self._heard.reading.beside_LHM.shape[2]
            score_T = selection.by_attention(weights_MT[:reading], share_M[:reading])
        else:
            score_T = self._scores_without_references(layer, head, key_TD)
        kept_N = selection.kept(score_T, self._positions)
        if not self._settings.fit:
            return key_TD[kept_N], value_TD[kept_N]
        return matching.fit(query_MD, weights_MT, share_M, key_TD, value_TD, kept_N)

    def _scores_without_references(self, layer: int, head: int, key_TD: Tensor) -> Tensor:
        if self._settings.select == "random":
            return selection.at_random(len(key_TD), seed=self._settings.seed)
        return selection.by_last_tokens(self._last, layer, head, key_TD, selection.observed(self._whole.positions))

    def _first_seen(self, layer: int) -> int:
        """The first position that a token behind the text sees; where a sliding window shows no more than are kept, all seen are kept."""
        reach = self._reach[layer]
        if reach is None:
            return 0
        return max(0, self._whole.positions - max(reach - 1, self._positions))

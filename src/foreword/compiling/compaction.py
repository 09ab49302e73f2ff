"""A text's keys and values in fewer positions than it has tokens.

The text is read once; each layer and KV head then keeps the positions that matter most to reference queries (`references.py`), and the kept
keys and values are moved until attention over them gives those queries what attention over the whole text gave (`matching.py`). The
result is a plain prefix. Keys keep their distance to whatever follows: the model sees a kept token as far back as it stood in the text.

Axes: L layer, H KV head, N virtual position, T token, M query, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foreword.compiling import matching, references, selection
from foreword.compiling.observer import Observer
from foreword.compiling.settings import CompileSettings
from foreword.engine import Asked
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

ROUNDS = 2
"""Fits one after the other: the first to what is asked behind the whole text, the next to what is then asked behind the smaller prefix."""
LEAST_QUERIES = 512
TURNED_AT_A_TIME = 1024
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

        if positions >= self.whole.positions:
            return self.whole
        dtype = self.whole.key_LHND.dtype
        key_LHND, value_LHND = self._smaller(positions, settings)
        return Prefix.make(kind="compacted", key_LHND=key_LHND.to(dtype), value_LHND=value_LHND.to(dtype), **self._identity)

    def listen(self, positions: int, settings: CompileSettings) -> None:
        """Collects the reference queries, enough for that many positions; `compact` does it where it was not done."""
        self.heard = references.collect(
            self._engine,
            self._token_ids,
            self.whole,
            kept=self._kept_queries(positions),
            questions=0 if settings.select == "kvzip" else settings.questions,
            seed=settings.seed,
            observer=self._observer,
        )

    def _kept_queries(self, positions: int) -> int:
        return min(self.whole.positions, max(LEAST_QUERIES, QUERIES_PER_POSITION * positions))

    def _smaller(self, positions: int, settings: CompileSettings) -> tuple[Tensor, Tensor]:
        key_LHTD, value_LHTD = self.whole.key_LHND, self.whole.value_LHND
        if settings.select == "truncate":
            # What a token is does not depend on what follows it.
            return key_LHTD[:, :, :positions], value_LHTD[:, :, :positions]
        # What follows a prefix stands right behind it; turned back, keys are as far from it as they were in the text.
        back = positions - self.whole.positions
        heads = _Heads(self._engine.reach, self._turned(key_LHTD.float(), back), value_LHTD, positions)
        if settings.select == "random":
            score_T = selection.at_random(self.whole.positions, seed=settings.seed)
            return self._each(heads, "choosing", lambda layer, head: heads.best(layer, head, score_T))
        if settings.select == "heavy-hitter":
            last = selection.observed(self.whole.positions)
            before = self.whole.positions - last
            observed = self._engine.asked(self._token_ids[before:], key_LHTD[:, :, :before], value_LHTD[:, :, :before], kept=range(last))
            observed = self._turned_queries(observed, back)
            return self._each(heads, "choosing", lambda layer, head: heads.by_last_tokens(layer, head, observed, last))
        if self.heard is None:
            self.listen(positions, settings)
        assert self.heard is not None
        asked = self._turned_queries(self.heard.reading if settings.select == "kvzip" else self.heard.all, back)
        if settings.select != "fitted":
            return self._each(heads, "choosing", lambda layer, head: heads.by_attention(layer, head, asked))
        found = self._each(heads, "fitting", lambda layer, head: heads.fitted(layer, head, asked))
        for _ in range(ROUNDS - 1):
            asked = references.heard_behind(
                self._engine, self.heard, *found, kept=self._kept_queries(positions), seed=settings.seed, observer=self._observer
            )
            found = self._each(heads, "fitting again", lambda layer, head, asked=asked: heads.fitted(layer, head, asked))
        return found

    def _each(self, heads: _Heads, doing: str, one: Callable[[int, int], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Keys and values of all layers and heads, in the model's dtype."""
        layers, kv_heads = self.whole.key_LHND.shape[:2]
        self._observer.stage(doing, layers)
        found = []
        for layer in range(layers):
            found.append([one(layer, head) for head in range(kv_heads)])
            self._observer.advance(1)
        dtype = self.whole.key_LHND.dtype
        key_LHND = torch.stack([torch.stack([key for key, _ in heads]) for heads in found]).to(dtype)
        return key_LHND, torch.stack([torch.stack([value for _, value in heads]) for heads in found]).to(dtype)

    def _turned(self, tensor_LHND: Tensor, by: int) -> Tensor:
        """Keys or queries moved by so many positions; as they are where nothing turns with position."""
        from foreword.prefix.rotary import rotate

        if not self._engine.geometry.rotary:
            return tensor_LHND
        # Piece by piece: turning takes several times the memory of what is turned, and reference queries are many.
        turned_LHND = torch.empty_like(tensor_LHND)
        pieces = zip(tensor_LHND.split(TURNED_AT_A_TIME, dim=2), turned_LHND.split(TURNED_AT_A_TIME, dim=2), strict=True)
        for piece_LHPD, place_LHPD in pieces:
            place_LHPD.copy_(rotate(piece_LHPD, self._engine.geometry, by))
        return turned_LHND

    def _turned_queries(self, asked: Asked, by: int) -> Asked:
        return Asked(query_LHMD=self._turned(asked.query_LHMD, by), beside_LHM=asked.beside_LHM)


class _Heads:
    """Chooses and fits the positions of one layer and head; holds the keys and values to choose from."""

    def __init__(self, reach_L: Sequence[int | None], key_LHTD: Tensor, value_LHTD: Tensor, positions: int) -> None:
        self._reach_L, self._key_LHTD, self._value_LHTD, self._positions = reach_L, key_LHTD, value_LHTD, positions

    def best(self, layer: int, head: int, score_T: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values with the highest scores, of those that are seen from behind the text: N D each."""
        key_SD, value_SD = self._seen(layer, head)
        kept_N = selection.kept(score_T[len(score_T) - len(key_SD) :], self._positions)
        return key_SD[kept_N], value_SD[kept_N]

    def by_last_tokens(self, layer: int, head: int, asked: Asked, last: int) -> tuple[Tensor, Tensor]:
        """Those that the text's last tokens attend to."""
        key_SD, _ = self._seen(layer, head)
        return self.best(layer, head, selection.by_last_tokens(asked, layer, head, key_SD, last))

    def by_attention(self, layer: int, head: int, asked: Asked) -> tuple[Tensor, Tensor]:
        """Those that reference queries attend to."""
        key_SD, _ = self._seen(layer, head)
        return self.best(layer, head, selection.by_attention(*_attention(asked, layer, head, key_SD)))

    def fitted(self, layer: int, head: int, asked: Asked) -> tuple[Tensor, Tensor]:
        """The same, moved so that attention over them gives what attention over all gave."""
        key_SD, value_SD = self._seen(layer, head)
        if len(key_SD) == self._positions:
            return key_SD, value_SD
        weights_MS, share_M = _attention(asked, layer, head, key_SD)
        kept_N = selection.kept(selection.by_attention(weights_MS, share_M), self._positions)
        return matching.fit(asked.query_LHMD[layer, head], weights_MS, share_M, key_SD, value_SD, kept_N)

    def _seen(self, layer: int, head: int) -> tuple[Tensor, Tensor]:
        """What a token behind the text sees, S D each; where a sliding window shows fewer than are kept, as many last ones as are kept."""
        reach, tokens = self._reach_L[layer], self._key_LHTD.shape[2]
        first = 0 if reach is None else max(0, tokens - max(reach - 1, self._positions))
        return self._key_LHTD[layer, head, first:], self._value_LHTD[layer, head, first:].float()


def _attention(asked: Asked, layer: int, head: int, key_SD: Tensor) -> tuple[Tensor, Tensor]:
    return matching.attention(asked.query_LHMD[layer, head], asked.beside_LHM[layer, head], key_SD)

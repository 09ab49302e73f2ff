"""Near-duplicate texts among many: MinHash signatures, locality-sensitive hashing, then the exact Jaccard index.

Broder, "On the resemblance and containment of documents" (1997), for shingles and min-wise hashing; Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4, for the banding. Hash functions are multiply-shift (Dietzfelbinger et al. 1997).

Two texts are compared as sets of single words and word pairs, case and punctuation aside. Chinese, Japanese, Thai and Korean characters
count as words, because those scripts put no spaces between words or glue particles to them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""Jaccard index from which two texts are near-duplicates: one word more in a sentence of nine, one changed in a sentence of fourteen."""

_BANDS, _ROWS_PER_BAND = 16, 4  # finds a pair at .8 with probability .9998, one at .4 with .34
_SKETCH = 256
_ALL_PAIRS = 8
_BOILERPLATE_SHARE, _BOILERPLATE_MIN_TEXTS = 0.9, 20
_CHUNK = 4_000_000
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_PAIR_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two texts that are alike; `first` < `second` are their positions."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resemblance:
    """Which of many texts are alike.

    Attributes:
        first_equal: for each text the first one with the same words in the same order (itself, where it is the first).
        pairs: near-duplicates among those first ones, in order of position. Among more than a handful of texts that all resemble one
            another not every pair is listed; joined by `groups`, they come together all the same.
    """

    first_equal: tuple[int, ...]
    pairs: tuple[Pair, ...]

    def links(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What connects texts start..stop-1 without the help of any other text, as positions counted from `start`."""
        here: dict[int, int] = {}
        found = []
        for index in range(start, stop):
            anchor = here.setdefault(self.first_equal[index], index)
            if anchor != index:
                found.append((anchor - start, index - start))
        found += [
            (here[pair.first] - start, here[pair.second] - start) for pair in self.pairs if pair.first in here and pair.second in here
        ]
        return found


def resemblance(texts: Sequence[str], *, threshold: float = NEAR) -> Resemblance:
    """Compares all texts; near-duplicates are those whose Jaccard index is at least `threshold`."""
    first_of: dict[tuple[str, ...], int] = {}
    first_equal: list[int] = []
    shingles: list[Hashes] = []
    word_hashes: dict[str, int] = {}
    for index, text in enumerate(texts):
        words = _words(text)
        first_equal.append(first_of.setdefault(words, index))
        if first_equal[-1] == index:
            shingles.append(_shingles(words, word_hashes))
    kept = list(first_of.values())
    pairs: list[Pair] = []
    if len(kept) > 1:
        found = _alike(_Sets.of(shingles), threshold)
        pairs = [Pair(first=kept[a], second=kept[b], similarity=round(float(s), 4)) for a, b, s in zip(*found, strict=True)]
    return Resemblance(first_equal=tuple(first_equal), pairs=tuple(sorted(pairs, key=lambda pair: (pair.first, pair.second))))


def groups(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Positions 0..count-1 joined wherever links connect them (union-find); only groups of two and more, in order of first position."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in links:
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    members: dict[int, list[int]] = {}
    for index in range(count):
        members.setdefault(root(index), []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _words(text: str) -> tuple[str, ...]:
    """Words of a text; for a text without any (emoji, punctuation) the text itself."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return tuple(_WORD.findall(folded)) or (folded.strip(),)


def _shingles(words: Sequence[str], known: dict[str, int]) -> Hashes:
    """Sorted distinct hashes of the words and of each two neighbours."""
    for word in words:
        if word not in known:
            known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    single = np.fromiter((known[word] for word in words), dtype=np.uint64, count=len(words))
    double = (single[:-1] * _PAIR_FACTOR) ^ (single[1:] + (single[:-1] >> np.uint64(7)))
    return np.unique(np.concatenate([single, double]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """Sets of shingles end to end: set i is `ids[starts[i]:starts[i + 1]]`, and `hashes` has the hash of each id."""

    ids: Indices
    starts: Indices
    hashes: Hashes

    @classmethod
    def of(cls, shingles: Sequence[Hashes]) -> _Sets:
        hashes, ids, frequency = np.unique(np.concatenate(shingles), return_inverse=True, return_counts=True)
        sizes = np.array([len(one) for one in shingles], dtype=np.int64)
        if len(shingles) >= _BOILERPLATE_MIN_TEXTS:
            ids, sizes = _without_boilerplate(ids.astype(np.int64), sizes, frequency > _BOILERPLATE_SHARE * len(shingles))
        return cls(ids=ids.astype(np.int64), starts=np.concatenate([[0], np.cumsum(sizes)]), hashes=hashes)

    @property
    def sizes(self) -> Indices:
        return np.diff(self.starts)


def _without_boilerplate(ids: Indices, sizes: Indices, common: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Drops shingles that nearly all texts share (an instruction before each input), unless nothing would be left of a text."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    kept = ~common[ids]
    rest = np.bincount(owner[kept], minlength=len(sizes))
    kept |= (rest == 0)[owner]
    return ids[kept], np.bincount(owner[kept], minlength=len(sizes)).astype(np.int64)


def _alike(sets: _Sets, threshold: float) -> tuple[Indices, Indices, NDArray[np.float64]]:
    count = len(sets.sizes)
    codes = np.unique(np.concatenate([_bucket_pairs(band, count) for band in _bands(sets)]))
    left, right = codes // count, codes % count
    similarity = _jaccard(sets, left, right)
    near = similarity >= threshold
    return left[near], right[near], similarity[near]


def _bands(sets: _Sets) -> list[Hashes]:
    """One bucket number per text and band. Texts with equal numbers in a band are candidates.

    Long texts are cut to the shingles with the smallest hashes first (a bottom-k sketch): the cut is the same for the same shingle in
    every text, so that resemblance survives it.
    """
    values, starts = _sketched(sets)
    random = np.random.default_rng(0x5EED)
    bands = []
    for _ in range(_BANDS):
        bucket = np.zeros(len(starts), dtype=np.uint64)
        for _ in range(_ROWS_PER_BAND):
            factor, shift = random.integers(1, 2**63, size=2, dtype=np.uint64)
            hashed = (values * (factor * np.uint64(2) + np.uint64(1)) + shift) >> np.uint64(32)
            bucket = (bucket ^ np.minimum.reduceat(hashed, starts)) * _PAIR_FACTOR
        bands.append(bucket)
    return bands


def _sketched(sets: _Sets) -> tuple[Hashes, Indices]:
    values, sizes = sets.hashes[sets.ids], sets.sizes
    if sizes.max() <= _SKETCH:
        return values, sets.starts[:-1]
    # Ids are numbered by ascending hash and stand in ascending order within a set, so the smallest hashes come first.
    rank = np.arange(len(values)) - np.repeat(sets.starts[:-1], sizes)
    sizes = np.minimum(sizes, _SKETCH)
    return values[rank < _SKETCH], np.concatenate([[0], np.cumsum(sizes)[:-1]])


def _bucket_pairs(bucket: Hashes, count: int) -> Indices:
    """Candidate pairs of one band as `left * count + right`.

    Small buckets give all their pairs. Large ones pair each member with the first and with the one before it, which keeps the work linear.
    """
    order = np.argsort(bucket, kind="stable")
    edges = np.flatnonzero(np.diff(bucket[order])) + 1
    bounds = np.concatenate([[0], edges, [count]])
    codes: list[Any] = [np.empty(0, dtype=np.int64)]
    for run in np.flatnonzero(np.diff(bounds) > 1):
        members = order[bounds[run] : bounds[run + 1]]
        if len(members) <= _ALL_PAIRS:
            left, right = np.triu_indices(len(members), k=1)
            codes.append(members[left] * count + members[right])
        else:
            codes.append(members[0] * count + members[1:])
            codes.append(members[1:-1] * count + members[2:])
    return np.concatenate(codes)


def _jaccard(sets: _Sets, left: Indices, right: Indices) -> NDArray[np.float64]:
    """Exact Jaccard index of each pair, in chunks of bounded memory."""
    sizes, vocabulary = sets.sizes, len(sets.hashes)
    work = np.cumsum(sizes[left] + sizes[right])
    result = np.empty(len(left), dtype=np.float64)
    start = 0
    while start < len(left):
        done = work[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(work, done + _CHUNK, side="right")))
        a, b = left[start:stop], right[start:stop]
        both = np.concatenate([_coded(sets, a, vocabulary), _coded(sets, b, vocabulary)])
        both.sort()
        twice = both[1:][both[1:] == both[:-1]] // vocabulary
        shared = np.bincount(twice, minlength=len(a))
        result[start:stop] = shared / (sizes[a] + sizes[b] - shared)
        start = stop
    return result


def _coded(sets: _Sets, members: Indices, vocabulary: int) -> Indices:
    """Shingles of `members[k]` as `k * vocabulary + id`."""
    sizes = sets.sizes[members]
    ends = np.cumsum(sizes)
    position = np.arange(int(ends[-1])) - np.repeat(ends - sizes - sets.starts[members], sizes)
    return np.repeat(np.arange(len(members)), sizes) * vocabulary + sets.ids[position]

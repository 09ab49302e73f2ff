"""Whose business a query is: a small detector that rides in a prefix's file. numpy only, so that a gateway can ask it.

A query's score is the sum of three: how like it the most like passage of the prefix's text is; `OVERLAP` times the share of the query's
words that the text has; and `ASKED` times how like it the `NEAREST` most like known queries are, on average. Likeness is a cosine, once
what unrelated requests have in common was taken off both vectors (Mu and Viswanath, "All-but-the-top", 2018, section 3, without the
principal components). In the share a word counts with the square of its length, because short words are everybody's; words are kept as
hashes.

A query is the prefix's business where its score reaches a threshold that conformal calibration set (Vovk et al. 2005): of queries like the
known ones at most the wanted share is missed. The known queries serve twice, as neighbours and to set the threshold by, each scored
without itself. That keeps the promise: one query more can only raise what the nearest are like, so scores that were taken with a
neighbour fewer than a new query has are at most what they would be with as many, and the threshold at most what it might be.

Axes: N passage of the text, M known query, P part, W word, D dimension of the embedder.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from foreword.errors import ConfigError, PrefixError, PrefixFileError
from foreword.prefix import preamble
from foreword.prefix.header import PrefixHeader, Relevance, build_header_part, digest_of

OVERLAP, ASKED, NEAREST = 0.5, 3.0, 5
LONGEST = 8
"""Letters of a word that count."""
MOST_CHARACTERS = 4096
"""Of a query that are looked at: its start and its end, half each."""
AskedBy = Literal["model", "user"]
_STORED = {"F16": np.dtype("<f2"), "I32": np.dtype("<i4")}
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]{2,}")
"""Runs of scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_ENDINGS = ("'s", "’s", "ing", "ed", "es", "s", "ly")


def excerpt(text: str) -> str:
    """What of a long query is looked at."""
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} {text[-half:]}"


def words(text: str) -> set[str]:
    """The words of a text without their commonest endings; pairs of characters where a script puts no blanks between words."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        run = _UNSPACED.search(word)
        found.update((run[0][start : start + 2] for start in range(len(run[0]) - 1)) if run else (_stem(word),))
    return found


def hashes(found: Sequence[str]) -> np.ndarray:
    """One number for each word, W, int32: CRC-32 of its UTF-8."""
    return np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in found], dtype=np.uint32).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """A query as detectors look at it.

    Attributes:
        vector_D: float32, from the detectors' embedder.
        word_W: hashes of its words.
        weight_W: what each of them counts, in sum 1.
    """

    vector_D: np.ndarray
    word_W: np.ndarray
    weight_W: np.ndarray

    @classmethod
    def of(cls, text: str, vector_D: np.ndarray) -> Query:
        """Args: vector_D: of `excerpt(text)`."""
        found = sorted(words(excerpt(text)))
        weight_W = np.array([min(len(word), LONGEST) ** 2 for word in found], dtype=np.float32)
        return cls(vector_D=vector_D, word_W=hashes(found), weight_W=weight_W / max(float(weight_W.sum()), 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What is known of one text. Arrays hold float16's precision, as they do in a file, so that a loaded part scores as the one made.

    Attributes:
        passage_ND, query_MD: of the text and of the known queries, centred and of length 1; float32.
        center_D: the mean of unrelated requests; float32.
        word_W: hashes of the text's words, ascending; int32.
        threshold, level, asked_by: see `RelevancePart`.
    """

    passage_ND: np.ndarray
    query_MD: np.ndarray
    center_D: np.ndarray
    word_W: np.ndarray
    threshold: float
    level: float
    asked_by: AskedBy

    @classmethod
    def calibrated(
        cls, *, passage_ND: np.ndarray, center_D: np.ndarray, known: set[str], queries: Sequence[Query], level: float, asked_by: AskedBy
    ) -> Part:
        """What is known of a text and of queries about it.

        Args:
            passage_ND: vectors of the text's passages.
            center_D: mean of the vectors of unrelated requests.
            known: the text's words.
            queries: all of them the prefix's business.
            level: the share of such queries that may be missed.

        Raises:
            ConfigError: the level is no share, or there are too few queries for it.
        """
        check_enough(len(queries), level)
        center_D = _stored(center_D)
        part = cls(
            passage_ND=_stored(_centred(np.asarray(passage_ND, dtype=np.float32), center_D)),
            query_MD=_stored(_centred(np.stack([query.vector_D for query in queries]), center_D)),
            center_D=center_D,
            word_W=np.unique(hashes(sorted(known))),
            threshold=0.0,
            level=level,
            asked_by=asked_by,
        )
        scores = [part.score(query, left_out=number) for number, query in enumerate(queries)]
        return replace(part, threshold=threshold(scores, level))

    def score(self, query: Query, *, left_out: int | None = None) -> float:
        """How much a query looks like this part's business.

        Args:
            left_out: the known query that does not count, because it is this one.
        """
        vector_D = _centred(query.vector_D, self.center_D)
        known_M = self.query_MD @ vector_D
        if left_out is not None:
            known_M[left_out] = -1.0
        # Where there are fewer, those missing count as unlike as can be, so that one more never lowers the mean.
        nearest = np.sort(np.concatenate([known_M, np.full(NEAREST, -1.0, dtype=known_M.dtype)]))[-NEAREST:]
        shared = float(query.weight_W[np.isin(query.word_W, self.word_W)].sum())
        return float((self.passage_ND @ vector_D).max()) + OVERLAP * shared + ASKED * float(nearest.mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detector:
    """Says whether a query is a prefix's business.

    Attributes:
        embedder: whose vectors it holds and asks for.
        parts: one, or those of a composition.
    """

    embedder: str
    parts: tuple[Part, ...]

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self.parts[0].center_D.shape[0]

    def score(self, query: Query) -> float:
        """By how much a query's score is over the threshold of the part whose business it is most.

        Raises:
            PrefixError: the query's vector has another embedder's number of dimensions.
        """
        if query.vector_D.shape != (self.dimensions,):
            raise PrefixError(
                f"This detector was made with the embedder `{self.embedder}`, whose vectors have {self.dimensions} numbers; got"
                f" {query.vector_D.shape}. Embed the query with that one."
            )
        return max(part.score(query) - part.threshold for part in self.parts)

    def wants(self, query: Query) -> bool:
        """Whether the query is the prefix's business; one without a word never is. Raises as `score`."""
        return bool(len(query.word_W)) and self.score(query) >= 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Its tensors as they lie in a file, by name in alphabetical order."""
        return {
            "relevance_center_PD": np.stack([part.center_D for part in self.parts]).astype(_STORED["F16"]),
            "relevance_passage_ND": np.concatenate([part.passage_ND for part in self.parts]).astype(_STORED["F16"]),
            "relevance_query_MD": np.concatenate([part.query_MD for part in self.parts]).astype(_STORED["F16"]),
            "relevance_word_W": np.concatenate([part.word_W for part in self.parts]).astype(_STORED["I32"]),
        }

    def relevance(self) -> Relevance:
        """What a prefix's header says of it. Raises `PrefixError` for a value that is not allowed there."""
        parts = [
            {"passages": len(part.passage_ND), "queries": len(part.query_MD), "words": len(part.word_W)}
            | {name: getattr(part, name) for name in ("threshold", "level", "asked_by")}
            for part in self.parts
        ]
        fields = {"embedder": self.embedder, "dimensions": self.dimensions, "parts": parts, "digest": _digest(self.arrays())}
        return build_header_part(Relevance, fields)

    @classmethod
    def from_arrays(cls, relevance: Relevance, arrays: Mapping[str, np.ndarray]) -> Detector:
        """The detector that a header describes.

        Raises:
            PrefixError: the arrays are not those that the header means, or hold numbers that are not finite.
        """
        _check(relevance, arrays)
        wide = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}
        sizes = [(part.passages, part.queries, part.words) for part in relevance.parts]
        ends = np.cumsum(sizes, axis=0)[:-1].T
        names = ("relevance_passage_ND", "relevance_query_MD", "relevance_word_W")
        cut = [np.split(wide[name], places) for name, places in zip(names, ends, strict=True)]
        parts = [
            Part(
                passage_ND=passage_ND,
                query_MD=query_MD,
                center_D=center_D,
                word_W=word_W,
                threshold=part.threshold,
                level=part.level,
                asked_by=part.asked_by,
            )
            for passage_ND, query_MD, word_W, center_D, part in zip(*cut, wide["relevance_center_PD"], relevance.parts, strict=True)
        ]
        return cls(embedder=relevance.embedder, parts=tuple(parts))


def joined(detectors: Sequence[Detector | None]) -> Detector | None:
    """The detector of a composition: a query is its business if it is any part's.

    None where a part has no detector, because every query may then be that part's business; and where they need different embedders.
    """
    known = [detector for detector in detectors if detector is not None]
    if not known or len(known) < len(detectors) or len({(one.embedder, one.dimensions) for one in known}) > 1:
        return None
    return Detector(embedder=known[0].embedder, parts=tuple(part for detector in known for part in detector.parts))


def read(path: str | os.PathLike[str]) -> Detector | None:
    """The detector in a prefix file, None where it has none. Keys and values are not read, and no torch is loaded.

    Raises:
        PrefixFileError: the file is missing or not sound.
    """
    from safetensors import SafetensorError, safe_open

    source = Path(path)
    header = preamble.read(source)
    if header.relevance is None:
        return None
    try:
        with safe_open(source, framework="np") as file:
            # The path is opened a second time: another process may have replaced the file in between.
            if PrefixHeader.model_validate_json((file.metadata() or {}).get(preamble.METADATA_KEY, "")) != header:
                raise PrefixFileError(f"{source} was replaced while it was being read; read it again.")
            return Detector.from_arrays(header.relevance, {name: file.get_tensor(name) for name in header.relevance.tensors()})
    except (SafetensorError, OSError, ValueError, PrefixError) as error:
        if isinstance(error, PrefixFileError):
            raise
        raise PrefixFileError(f"The detector in {source} cannot be used: {error} Take a fresh copy, or make the prefix again.") from error


def check_level(level: float) -> None:
    """Raises `ConfigError` unless `level` is a share between 0 and 1, both left out."""
    if not 0 < level < 1:
        raise ConfigError(f"The level is the share of its own queries that a prefix may miss: more than 0, less than 1. Got {level}.")


def least_queries(level: float) -> int:
    """How many queries a threshold of this level needs at least: with fewer, even the lowest score may be missed too often."""
    check_level(level)
    # The margin is for levels such as 0.1, whose inverse in floating point may lie a little over the whole number.
    return max(1, math.ceil(1 / level - 1 - 1e-9))


def check_enough(count: int, level: float) -> None:
    """Raises `ConfigError` where the level is no share, or so many queries are too few for it."""
    needed = least_queries(level)
    if count < needed:
        some = max(1, count)
        raise ConfigError(
            f"A level of {level:g} needs at least {needed} queries to calibrate by; got {count}. Give more, or allow more misses: "
            f"{some} are enough for a level of {math.ceil(1000 / (some + 1)) / 1000:g}."
        )


def threshold(scores: Sequence[float], level: float) -> float:
    """The highest threshold that, of queries exchangeable with those scored, misses at most the share `level` on average.

    It is the k-th lowest score, k = ⌊level · (n + 1)⌋: a new query's score is below it with probability k / (n + 1) at most (Vovk et al.
    2005, proposition 2.3).

    Raises:
        ConfigError: the level is no share, or there are too few scores for it.
    """
    check_enough(len(scores), level)
    k = math.floor(level * (len(scores) + 1) + 1e-9)
    return float(sorted(scores)[k - 1])


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _stored(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def _centred(vectors: np.ndarray, center_D: np.ndarray) -> np.ndarray:
    """Vectors D or N D without the centre, brought to length 1; those of length 0 stay so."""
    said = np.linalg.norm(vectors, axis=-1, keepdims=True) > 0
    moved = np.where(said, vectors - center_D, 0.0)
    lengths = np.linalg.norm(moved, axis=-1, keepdims=True)
    return np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return digest_of(
        (name, "F16" if array.dtype.kind == "f" else "I32", array.shape, np.ascontiguousarray(array).tobytes())
        for name, array in sorted(arrays.items())
    )


def _check(relevance: Relevance, arrays: Mapping[str, np.ndarray]) -> None:
    specs = relevance.tensors()
    if set(arrays) != set(specs):
        raise PrefixError(f"a detector has the tensors {', '.join(specs)}; got {', '.join(sorted(arrays)) or 'none'}.")
    for name, spec in specs.items():
        if arrays[name].dtype != _STORED[spec.tag] or arrays[name].shape != spec.shape:
            raise PrefixError(f"`{name}` must be {spec.tag} of shape {spec.shape}; got {arrays[name].dtype} {arrays[name].shape}.")
    if _digest(arrays) != relevance.digest:
        raise PrefixError("its tensors do not match the detector's digest; the file was altered.")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise PrefixError("its tensors hold numbers that are NaN or infinite.")

"""A data set in memory: examples in order, where they came from, and a hash of what they say."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from foreword.errors import DataError
from foreword.types import Example

Kind = Literal["classification", "generation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A row that was left out, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Examples of one task.

    Attributes:
        examples: the usable rows, in file order.
        labels: every label there is when the rows are `text`+`label`, else None.
        path: the file, the `hf:` name, or `memory`.
        sha256: hash of the examples' content in order. File format, line ends, blank lines and line numbers do not enter it.
        kind: `classification` for `text`+`label` rows, else `generation`.
        skipped: rows that were left out on reading.
    """

    examples: tuple[Example, ...]
    labels: tuple[str, ...] | None
    path: str
    sha256: str
    kind: Kind
    skipped: tuple[Skip, ...] = ()

    @classmethod
    def of(
        cls, examples: Iterable[Example], *, labels: Sequence[str] | None = None, path: str = "memory", skipped: Iterable[Skip] = ()
    ) -> Dataset:
        """A data set of `examples`; it is a classification when `labels` are given."""
        rows = tuple(examples)
        return cls(
            examples=rows,
            labels=None if labels is None else tuple(labels),
            path=path,
            sha256=_content_hash(rows),
            kind="generation" if labels is None else "classification",
            skipped=tuple(skipped),
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def limit(self, count: int) -> Dataset:
        """The first `count` examples (all of them where there are fewer); labels stay as they are.

        Raises:
            DataError: `count` is below 1.
        """
        if count < 1:
            raise DataError(f"A limit must be at least 1 example; got {count}.")
        return self if count >= len(self) else self.with_examples(self.examples[:count])

    def shuffled(self, seed: int) -> Dataset:
        """The same examples in an order that depends on `seed` alone."""
        order = list(self.examples)
        random.Random(seed).shuffle(order)
        return self.with_examples(order)

    def with_examples(self, examples: Iterable[Example]) -> Dataset:
        """This data set with other examples, and the hash that goes with them."""
        rows = tuple(examples)
        return replace(self, examples=rows, sha256=_content_hash(rows))


def _content_hash(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        content = [[[message.role, message.content] for message in example.messages], list(example.completions), example.user]
        digest.update(json.dumps(content, separators=(",", ":")).encode("ascii"))
        digest.update(b"\n")
    return digest.hexdigest()

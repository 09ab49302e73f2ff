"""What to know about data before tuning on them: lengths, labels, duplicates, leakage, truncation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from foreword.data.advice import warn
from foreword.data.dataset import Dataset
from foreword.data.excerpt import excerpt
from foreword.data.report import DataReport, Group, Leak, Lengths, Side, TooLong
from foreword.data.similarity import NEAR, Resemblance, groups, resemblance
from foreword.errors import ConfigError
from foreword.types import Example

CountTokens = Callable[[str], int]


def check(
    train: Dataset,
    dev: Dataset | None = None,
    *,
    count_tokens: CountTokens | None = None,
    window: int | None = None,
    threshold: float = NEAR,
) -> DataReport:
    """Looks at training data, and at dev data beside it.

    Args:
        count_tokens: number of tokens in a text, for lengths in tokens and truncation.
        window: positions that the model can attend; rows with more tokens are named.
        threshold: Jaccard index from which prompts count as near-duplicates, above 0 and at most 1.

    Raises:
        ConfigError: a window without `count_tokens`, or a threshold out of range.
    """
    if window is not None and count_tokens is None:
        raise ConfigError("A `window` is in tokens, so it needs `count_tokens`. Give both, or neither.")
    if not 0 < threshold <= 1:
        raise ConfigError(f"`threshold` must be above 0 and at most 1; got {threshold}.")
    sides = [train] if dev is None else [train, dev]
    everything = [example for side in sides for example in side]
    alike = resemblance([conversation_text(example) for example in everything], threshold=threshold)
    train_report = _side(train, alike.links(0, len(train)), count_tokens, window)
    dev_report = None if dev is None else _side(dev, alike.links(len(train), len(everything)), count_tokens, window)
    leaks = () if dev is None else _leaks(train, dev, alike)
    return DataReport(
        train=train_report,
        dev=dev_report,
        leaks=leaks,
        window=window,
        warnings=warn(train_report, dev_report, leaks, window=window),
    )


def conversation_text(example: Example) -> str:
    """The turns before the answer without the system turn, which rows share by intent."""
    return "\n".join(message.content for message in example.messages if message.role != "system")


def _side(dataset: Dataset, near: Sequence[tuple[int, int]], count_tokens: CountTokens | None, window: int | None) -> Side:
    examples = dataset.examples
    prompts = ["".join(message.content for message in example.messages) for example in examples]
    prompt_tokens = completion_tokens = None
    too_long: tuple[TooLong, ...] = ()
    if count_tokens is not None:
        counted = _TokenCounts(examples, count_tokens)
        prompt_tokens, completion_tokens = _lengths(counted.prompts), _lengths([n for row in counted.completions for n in row])
        too_long = counted.beyond(window)
    by_prompt = _grouped(range(len(examples)), key=lambda index: examples[index].messages)
    return Side(
        path=dataset.path,
        sha256=dataset.sha256,
        kind=dataset.kind,
        rows=len(examples),
        completions=sum(len(example.completions) for example in examples),
        with_user=sum(example.user is not None for example in examples),
        skipped=dataset.skipped,
        prompt_chars=_lengths([len(prompt) for prompt in prompts]),
        completion_chars=_lengths([len(text) for example in examples for text in example.completions]),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        labels=_balance(dataset),
        repeated_prompts=len(by_prompt),
        duplicates=tuple(_group(dataset, rows) for rows in duplicate_rows(examples)),
        conflicts=_conflicts(dataset, by_prompt),
        near_duplicates=_near_groups(dataset, near),
        too_long=too_long,
        nearly_empty=tuple(e.line for e in examples if not any(char.isalnum() for char in conversation_text(e))),
        padded=tuple(e.line for e in examples if any(text != text.strip() for text in e.completions)),
    )


class _TokenCounts:
    """Tokens of prompts and completions, each distinct text counted once."""

    def __init__(self, examples: Sequence[Example], count_tokens: CountTokens) -> None:
        known: dict[str, int] = {}

        def count(text: str) -> int:
            if text not in known:
                known[text] = count_tokens(text)
            return known[text]

        self.lines = [example.line for example in examples]
        self.prompts = [sum(count(message.content) for message in example.messages) for example in examples]
        self.completions = [[count(text) for text in example.completions] for example in examples]

    def beyond(self, window: int | None) -> tuple[TooLong, ...]:
        if window is None:
            return ()
        totals = (prompt + max(answers) for prompt, answers in zip(self.prompts, self.completions, strict=True))
        return tuple(TooLong(line=line, tokens=total) for line, total in zip(self.lines, totals, strict=True) if total > window)


def _lengths(values: Sequence[int]) -> Lengths:
    """Order statistics that are values of the sample themselves (no interpolation)."""
    if not values:
        return Lengths(minimum=0, median=0, p95=0, maximum=0)
    low, middle, high, top = np.percentile(np.asarray(values), [0, 50, 95, 100], method="inverted_cdf")
    return Lengths(minimum=int(low), median=int(middle), p95=int(high), maximum=int(top))


def _balance(dataset: Dataset) -> dict[str, int] | None:
    if dataset.labels is None:
        return None
    counts = Counter({label: 0 for label in dataset.labels})
    counts.update(example.completions[0] for example in dataset)
    return dict(counts.most_common())


def _grouped(indices: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Indices with equal keys together; only groups of two and more, in order of first index."""
    found: dict[Hashable, list[int]] = {}
    for index in indices:
        found.setdefault(key(index), []).append(index)
    return [rows for rows in found.values() if len(rows) > 1]


def duplicate_rows(examples: Sequence[Example]) -> list[list[int]]:
    """Positions of rows that are the same in prompt, completions and user."""
    return _grouped(range(len(examples)), key=lambda index: (examples[index].messages, examples[index].completions, examples[index].user))


def _group(dataset: Dataset, rows: Sequence[int]) -> Group:
    chosen = [dataset.examples[row] for row in rows]
    labels = () if dataset.labels is None else tuple(dict.fromkeys(example.completions[0] for example in chosen))
    return Group(lines=tuple(example.line for example in chosen), excerpt=excerpt(chosen[0].prompt), labels=labels)


def _conflicts(dataset: Dataset, by_prompt: Iterable[Sequence[int]]) -> tuple[Group, ...]:
    """One prompt under several labels of the same user. Generation has none: several answers to one input are references."""
    if dataset.labels is None:
        return ()
    found = []
    for rows in by_prompt:
        same_user = _grouped(rows, key=lambda row: dataset.examples[row].user)
        found += [group for group in (_group(dataset, part) for part in same_user) if len(group.labels) > 1]
    return tuple(found)


def _near_groups(dataset: Dataset, near: Iterable[tuple[int, int]]) -> tuple[Group, ...]:
    """Groups of alike rows in which the prompts are not all the same text (those are repeated prompts already)."""
    joined = groups(len(dataset), near)
    return tuple(_group(dataset, rows) for rows in joined if len({dataset.examples[row].messages for row in rows}) > 1)


def _leaks(train: Dataset, dev: Dataset, alike: Resemblance) -> tuple[Leak, ...]:
    """For each dev row the most similar training row, where one is near enough. Training texts come first in `alike`."""
    exact: dict[Hashable, int] = {}
    for row, example in enumerate(train):
        exact.setdefault(example.messages, row)
    best: dict[int, tuple[float, int]] = {}
    for pair in alike.pairs:
        if pair.first < len(train) <= pair.second:
            best[pair.second] = max(best.get(pair.second, (0.0, 0)), (pair.similarity, pair.first))
    leaks = []
    for row, example in enumerate(dev):
        same = alike.first_equal[len(train) + row]
        found = (1.0, exact.get(example.messages, same)) if same < len(train) else best.get(same)
        if found is not None:
            similarity, source = found
            leaks.append(
                Leak(
                    dev_line=example.line,
                    train_line=train.examples[source].line,
                    similarity=similarity,
                    exact=example.messages in exact,
                    excerpt=excerpt(example.prompt),
                )
            )
    return tuple(leaks)

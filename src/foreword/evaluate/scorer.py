"""What a scorer is: answers and references in, one `Score` out. Concrete ones live in `scorers/`; the file name is the key.

A scorer module has one function and, where they differ from these, two constants:

    score(outcome) -> Score
    NEEDS = ()                optional: fields of `Outcome` that it reads beyond answers, references and prompts
    JUDGES_ROWS = True        optional: whether each row has a number of its own for which more is better

A corpus metric such as BLEU or macro-F1 is not the mean of anything over rows. To bootstrap it quickly, a scorer boils each
row down to its sufficient statistics once, and `Score.statistic` recomputes the metric from those for any choice of rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast

import numpy as np

from foreword import registry
from foreword.errors import EvaluationError

FOLDER = "foreword.evaluate.scorers"

Statistic = Callable[[np.ndarray], float]
"""The metric over the rows whose indices are given; an index may be given more than once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What one contender did on one data set; row i of every field belongs to example i.

    Attributes:
        answers: the texts it produced; for label scoring, the label it ranked first.
        references: the acceptable answers of each example, at least one; the number may differ from row to row.
        prompts: the input of each example, as it stands in the data (no instruction, no few-shot block).
        labels: the label texts of a classification task, in the order of the columns of `label_log_probs`.
        label_log_probs: shape (examples, labels); log-likelihood of each label's tokens, summed, after the prompt. Nats.
        prior_log_probs: shape (labels,); the same after a content-free prompt.
        target_log_probs: for each example, the log-probability of every token of its references. Nats.

    Raises:
        EvaluationError: there are no rows, the fields disagree in length, or a row has no reference.
    """

    answers: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    label_log_probs: np.ndarray | None = None
    prior_log_probs: np.ndarray | None = None
    target_log_probs: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        rows = len(self.answers)
        if rows == 0:
            raise EvaluationError("There is nothing to score: 0 answers were given. Give at least one example.")
        lengths = {"answers": rows, "references": len(self.references), "prompts": len(self.prompts)}
        if self.label_log_probs is not None:
            lengths["label_log_probs"] = len(self.label_log_probs)
        if self.target_log_probs is not None:
            lengths["target_log_probs"] = len(self.target_log_probs)
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{field} {length}" for field, length in lengths.items())
            raise EvaluationError(f"Every field of an outcome needs one row per example; got {given}.")
        bare = [row for row, references in enumerate(self.references) if not references]
        if bare:
            raise EvaluationError(f"Example {bare[0]} has no reference ({len(bare)} such rows). Give each row at least one wanted answer.")
        self._check_labels()

    def _check_labels(self) -> None:
        count = len(self.labels or ())
        if self.label_log_probs is not None and self.label_log_probs.shape != (len(self.answers), count):
            shape = self.label_log_probs.shape
            raise EvaluationError(f"`label_log_probs` needs shape (examples, labels) = ({len(self.answers)}, {count}); got {shape}.")
        if self.prior_log_probs is not None and self.prior_log_probs.shape != (count,):
            raise EvaluationError(f"`prior_log_probs` needs one number for each of the {count} labels; got {self.prior_log_probs.shape}.")

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Score:
    """One metric over one outcome.

    Attributes:
        value: the metric over all rows; equals `statistic` of every row once.
        per_example: one number per row where the metric has one, else None (BLEU, NIST and macro-F1 exist only over a corpus).
        higher_is_better: False for perplexity.
        statistic: the metric over chosen rows, for resampling.
    """

    value: float
    per_example: np.ndarray | None
    higher_is_better: bool
    statistic: Statistic


class Scorer(Protocol):
    """What a module in `scorers/` offers."""

    def score(self, outcome: Outcome) -> Score:
        """Judges one outcome.

        Raises:
            EvaluationError: the outcome lacks what the scorer reads, or a package is missing.
        """
        ...


def names() -> tuple[str, ...]:
    """The keys of all scorers."""
    return registry.names(FOLDER)


def get(name: str) -> Scorer:
    """The scorer called `name`.

    Raises:
        RegistryError: there is none; the message lists those that exist.
    """
    return cast(Scorer, registry.find(FOLDER, name))


def needs(scorers: Iterable[str]) -> frozenset[str]:
    """Fields of `Outcome` beyond answers, references and prompts that these scorers read.

    Raises:
        RegistryError: one of the names is not a scorer.
    """
    return frozenset(field for name in scorers for field in getattr(registry.find(FOLDER, name), "NEEDS", ()))


def judges_rows(name: str) -> bool:
    """Whether the scorer gives each row a number for which more is better; a success rule needs that.

    Raises:
        RegistryError: there is no such scorer.
    """
    return getattr(registry.find(FOLDER, name), "JUDGES_ROWS", True)


def mean_score(per_example: np.ndarray, *, higher_is_better: bool = True) -> Score:
    """The score that is the mean of its rows."""
    values = np.asarray(per_example, dtype=np.float64)
    return Score(
        value=float(values.mean()),
        per_example=values,
        higher_is_better=higher_is_better,
        statistic=lambda rows: float(values[rows].mean()),
    )


def corpus_score(statistic: Statistic, rows: int, *, higher_is_better: bool = True) -> Score:
    """The score that exists only over a corpus of `rows` rows."""
    return Score(value=statistic(np.arange(rows)), per_example=None, higher_is_better=higher_is_better, statistic=statistic)


def require(module: str, *, package: str, scorer: str) -> ModuleType:
    """Imports what a scorer is built on.

    Raises:
        EvaluationError: the package is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"The scorer `{scorer}` needs the package `{package}`, which is not installed (no module `{error.name}`). "
            f"Install it with: pip install 'foreword[compare]'  (or: pip install {package})"
        ) from error

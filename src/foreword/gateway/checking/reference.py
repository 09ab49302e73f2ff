"""An answer against the reference that its request brings along, by a scorer of `foreword.evaluate.scorers`.

Scorers are found by name. They belong to a room beside the gateway, so what they read of an outcome is made here, in their terms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foreword import registry
from foreword.errors import ConfigError, EvaluationError, RegistryError

SCORERS = "foreword.evaluate.scorers"
KEY = "reference"
"""Of a request's `metadata`."""

logger = logging.getLogger(__name__)

ReferenceScorer = Callable[[str, str, str], float | None]
"""Takes the answer, the reference and the question; gives 0 to 1, or None where the reference is none that the scorer can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOutcome:
    """One answer, with the fields that `foreword.evaluate.scorer.Outcome` has for many."""

    answers: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    label_log_probs: Any = None
    prior_log_probs: Any = None
    target_log_probs: Any = None

    def __len__(self) -> int:
        return len(self.answers)


def reference_scorer(name: str, labels: tuple[str, ...] | None = None) -> ReferenceScorer:
    """The scorer called `name`.

    Raises:
        ConfigError: there is none, or it does not judge an answer by its words alone.
    """
    try:
        module = registry.find(SCORERS, name)
    except RegistryError as error:
        raise ConfigError(f"`check.scorer`: {error}") from None
    if getattr(module, "NEEDS", ()) or not getattr(module, "JUDGES_ROWS", True):
        raise ConfigError(f"`check.scorer`: `{name}` does not judge one answer by its words. Take another, such as `exact-match`.")

    def score(answer: str, reference: str, question: str) -> float | None:
        try:
            found = module.score(OneOutcome(answers=(answer,), references=((reference,),), prompts=(question,), labels=labels))
        except EvaluationError:
            # The error's words may hold the reference, which is the client's.
            logger.warning("the scorer %s cannot judge an answer by its request's reference", name)
            return None
        return min(1.0, max(0.0, float(found.value)))

    return score

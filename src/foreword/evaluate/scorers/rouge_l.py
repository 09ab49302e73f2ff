"""ROUGE-L (Lin 2004): F-measure of the longest common subsequence of words, from the `rouge-score` package, without stemming.

With several references the best one counts. The package lower-cases and keeps only the letters a-z and the digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foreword.evaluate.scorer import Outcome, Score, mean_score, require


def score(outcome: Outcome) -> Score:
    """0..1, the mean over rows.

    Raises:
        EvaluationError: rouge-score is not installed.
    """
    package: Any = require("rouge_score.rouge_scorer", package="rouge-score", scorer="rouge-l")
    metric = package.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(outcome.answers, outcome.references, strict=True)
    return mean_score(np.array([metric.score_multi(list(references), answer)["rougeL"].fmeasure for answer, references in pairs]))

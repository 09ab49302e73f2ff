"""The lines of a comparison: what was measured of each contender."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Estimate(Frozen):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(Frozen):
    """A row's primary score less the reference's, on the same dev rows; paired bootstrap.

    Attributes:
        p_value: two-sided, of this comparison alone.
        p_adjusted: the same after Holm's correction (1979) for all rows of the table.
    """

    value: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


class Asking(Frozen):
    """How the rows were asked.

    Attributes:
        first_answer: share of rows whose first answer alone is a success.
        any_of_k: share of rows where any of the answers that came up is one: what a perfect choice among them would reach.
        answers: mean number of answers that it was chosen from.
        calls: mean number of calls of the model.
        statuses: rows by how they ended: `answered`, `budget`, `failed`.
        reasons: why rows did not end with an answer, and how many of them.
    """

    first_answer: Estimate
    any_of_k: Estimate
    answers: float
    calls: float
    statuses: dict[str, int]
    reasons: dict[str, int] = {}


class Measured(Frozen):
    """Everything known of a contender that ran.

    Attributes:
        quality: the task's primary scorer.
        scores: every scorer's value.
        successes, success_rate: by the task's success rule; the interval is Wilson's.
        prompt_tokens, completion_tokens: mean per request.
        prefix_positions: virtual positions before each prompt.
        latency_seconds: median of single requests.
        machine_seconds_per_request: mean over the batched run: what a request takes of a machine that is kept busy.
        machine_seconds_per_success, cost_per_success: failures are paid for; None when nothing succeeded or no price is known.
        training_cost: of the training time at the machine-hour's price.
        against_reference: None for the reference itself.
        sample_answers: to the first dev rows.
        asking: None in results that were written before there was such a thing.
    """

    quality: Estimate
    scores: dict[str, float]
    successes: int
    success_rate: Estimate
    trained_parameters: int
    artifact_bytes: int
    prefix_positions: int
    prompt_tokens: float
    completion_tokens: float
    latency_seconds: float
    training_seconds: float
    training_memory_bytes: int
    peak_memory_bytes: int
    machine_seconds_per_request: float
    machine_seconds_per_success: float | None
    cost_per_request: Decimal | None
    cost_per_success: Decimal | None
    training_cost: Decimal | None
    against_reference: Difference | None
    dtype: str
    notes: tuple[str, ...]
    sample_answers: tuple[str, ...]
    asking: Asking | None = None

    @property
    def prompt_positions(self) -> float:
        """Mean positions attended before the first answer token: prefix and prompt."""
        return self.prefix_positions + self.prompt_tokens

    @property
    def first_answer(self) -> Estimate:
        """The success rate of the first answer."""
        return self.success_rate if self.asking is None else self.asking.first_answer

    @property
    def any_of_k(self) -> Estimate:
        """The success rate of the best answer that came up."""
        return self.success_rate if self.asking is None else self.asking.any_of_k

    @property
    def calls(self) -> float:
        """Mean calls of the model per request."""
        return 1.0 if self.asking is None else self.asking.calls

    @property
    def tokens(self) -> float:
        """Mean tokens per request, prompts' and answers' of all calls."""
        return self.prompt_tokens + self.completion_tokens


class ContenderRow(Frozen):
    """One line of the table: either what was measured, or why it failed.

    Attributes:
        contender: what the line is called; with several models, `cot · smollm2`.
        model: of this line, as it was named; empty in results that were written before lines had one.
        strategy: whether the contender is a strategy.
    """

    contender: str
    model: str = ""
    strategy: bool = False
    measured: Measured | None = None
    failed: str | None = None


class Sample(Frozen):
    """A dev row that the report shows the answers to."""

    prompt: str
    references: tuple[str, ...]

"""One search for a better prompt: what GEPA asks for, and what is kept of what it tries. `optimising.py` says what is sought and why."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from foreword.cost.prices import Price, cost_per_request
from foreword.errors import BudgetSpent, ConfigError, ServingError, WindowError
from foreword.prompting.candidates import Candidate, Space
from foreword.prompting.intervals import Share
from foreword.prompting.judging import Judged
from foreword.prompting.measured import Compared, Measured, compare, measure
from foreword.prompting.model import Model
from foreword.prompting.proposing import Proposer, Records
from foreword.prompting.spending import CHUNK, Purse
from foreword.types import Completion, Example, Message, Sampling, Usage

logger = logging.getLogger(__name__)

IDLE = 60
"""After so many steps in which nothing new was asked, there is nothing left to try."""
UNASKED = 3
"""After so many prompts on end that the model could not be asked with, it is the model that fails."""
MOST_RECORDS = 6
"""Rows that a model is shown when it writes an instruction."""
_NOTHING = Judged(success=False, answer="", calls=0, usage=Usage(prompt_tokens=0, completion_tokens=0), cost=None)


class OptimiseSettings(BaseModel):
    """How to search.

    Attributes:
        strategies: what prompts may be asked with, as texts; the first is what the given prompt is judged with.
        failure_cost: what a failure takes to mend, in the price's currency; it counts as paid, and is not spent from the budget.
        most_examples: that a prompt may have; 0 leaves the examples as they are.
        pool: training rows that are put by as examples, half of all at most; the others show what goes wrong.
        minibatch: training rows on which a new prompt must do better than the one that it comes from before it is judged on the dev rows.
        reflection_tokens: most tokens of an instruction that a model writes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategies: tuple[str, ...] = Field(default=("zero-shot",), min_length=1)
    failure_cost: Decimal = Field(default=Decimal(0), ge=0, allow_inf_nan=False)
    most_examples: int = Field(default=8, ge=0)
    pool: int = Field(default=32, ge=0)
    minibatch: int = Field(default=12, ge=1)
    reflection_tokens: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A prompt that was judged on all dev rows."""

    candidate: Mapping[str, str]
    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a search is. `spent` is the share of the budget, what is set aside included; `best` is on the dev rows."""

    text: str
    spent: float
    tried: int
    best: Share


Observe = Callable[[Step], None]


class Search:
    """Meets `gepa.GEPAAdapter`."""

    propose_new_texts = None
    """GEPA looks whether an adapter proposes; the proposer is given apart."""

    def __init__(
        self,
        space: Space,
        purse: Purse,
        dev: Sequence[Example],
        settings: OptimiseSettings,
        *,
        held_out: Sequence[Example],
        observe: Observe,
    ) -> None:
        self._space, self._purse, self._settings = space, purse, settings
        self._dev, self._held_out, self._observe = list(dev), list(held_out), observe
        self._found: dict[str, tuple[Tried, list[Judged]]] = {}
        self._given_held_out: list[Judged] = []
        self._rate = 0.0
        self._idle, self._unasked, self._last_calls = 0, 0, -1

    def begin(self) -> None:
        """Judges the given prompt, which says what a success costs now.

        Raises:
            ConfigError: the budget does not suffice for that.
        """
        start = self._space.start
        try:
            judged = self._judged(start, self._dev)
            self._given_held_out = self._judged(start, self._held_out) if self._held_out else []
        except BudgetSpent:
            raise ConfigError(
                f"The budget is spent ({self._purse.spent.calls:,} calls) before the given prompt itself was judged on "
                f"{len(self._dev)} dev rows and {len(self._held_out)} held-out rows. Raise it, or give fewer rows."
            ) from None
        total = sum(self._cost(one) for one in judged)
        self._rate = sum(one.success for one in judged) / total if total else 0.0
        self._note(start, judged, "the given prompt")

    def run(self, lessons: Sequence[Example], proposer: Proposer) -> str:
        """Searches until the budget is spent or nothing is left to try; says which."""
        gepa = load_gepa()
        try:
            gepa.optimize(
                seed_candidate=self._space.start,
                trainset=list(lessons),
                valset=self._dev,
                adapter=self,
                custom_candidate_proposer=proposer,
                reflection_minibatch_size=min(self._settings.minibatch, len(lessons)),
                skip_perfect_score=False,
                stop_callbacks=[self._stops],
                logger=_Log(),
                seed=self._settings.seed,
                track_best_outputs=False,
                raise_on_exception=True,
            )
        except BudgetSpent:
            return "the budget is spent"
        return "the budget is spent" if self._purse.share >= 1 else "nothing new was left to try"

    @property
    def tried(self) -> tuple[Tried, ...]:
        """All that was judged on all dev rows, in order; the given prompt first."""
        return tuple(tried for tried, _ in self._found.values())

    @property
    def best(self) -> Tried:
        """The cheapest per success of those with no fewer successes than the given prompt; the first of equals."""
        least = self.tried[0].measured.success.successes
        return min((one for one in self.tried if one.measured.success.successes >= least), key=lambda one: one.measured.dearness)

    def on_dev(self) -> Compared:
        """The given prompt and the best one on the rows that chose it."""
        verdicts = [judged for _, judged in self._found.values()]
        best = self._found[self._space.key(self.best.candidate)][1]
        return compare(verdicts[0], best, failure_cost=self._settings.failure_cost)

    def on_held_out(self) -> Compared | None:
        """The same on the held-out rows, or on as many of them as the budget still buys; None where that is none."""
        self._purse.kept_back_money, self._purse.kept_back_calls = Decimal(0), 0
        after: list[Judged] = []
        try:
            for start in range(0, len(self._held_out), CHUNK):
                after += self._judged(self.best.candidate, self._held_out[start : start + CHUNK])
        except BudgetSpent:
            logger.warning("The budget left room for %d of %d held-out rows.", len(after), len(self._held_out))
        return compare(self._given_held_out[: len(after)], after, failure_cost=self._settings.failure_cost) if after else None

    # --- what GEPA calls ---------------------------------------------------------------------------------------

    def evaluate(self, batch: Sequence[Example], candidate: Candidate, capture_traces: bool = False) -> Any:
        """A score for each row. Raises `BudgetSpent`."""
        judged = self._judged(candidate, batch)
        if list(batch) == self._dev:
            self._note(candidate, judged, "a prompt that did better on some training rows")
        scores = [one.success - self._rate * self._cost(one) for one in judged]
        records = [_record(row, one) for row, one in zip(batch, judged, strict=True)]
        return load_gepa().EvaluationBatch(outputs=records, scores=scores, trajectories=records if capture_traces else None)

    def make_reflective_dataset(self, candidate: Candidate, eval_batch: Any, components_to_update: Sequence[str]) -> dict[str, Records]:
        """What became of some rows, failures first."""
        records = sorted(eval_batch.trajectories, key=lambda record: record["success"])
        return {component: records for component in components_to_update}

    def _stops(self, state: Any) -> bool:
        calls = self._purse.spent.calls
        self._idle = self._idle + 1 if calls == self._last_calls else 0
        self._last_calls = calls
        return self._purse.share >= 1 or self._idle >= IDLE

    # --- judging -----------------------------------------------------------------------------------------------

    def _judged(self, candidate: Mapping[str, str], rows: Sequence[Example]) -> list[Judged]:
        """Verdicts. A prompt that the model cannot be asked with (it is too long for the window) fails on every row, and costs nothing."""
        space = self._space
        try:
            judged = self._purse.judged(space.key(candidate), space.template(candidate), space.strategy(candidate), rows)
        except ServingError:
            self._unasked += 1
            if candidate == space.start or self._unasked >= UNASKED:
                raise
            logger.debug("A prompt could not be asked.", exc_info=True)
            return [_NOTHING] * len(rows)
        self._unasked = 0
        return judged

    def _cost(self, judged: Judged) -> float:
        """What a row counts as: money, with what its failure takes to mend; or tokens where there is no price."""
        if judged.cost is None:
            return float(judged.tokens)
        return float(judged.cost + (0 if judged.success else self._settings.failure_cost))

    def _note(self, candidate: Mapping[str, str], judged: list[Judged], text: str) -> None:
        """Keeps what the dev rows said of a prompt, and sets aside what asking the best one the held-out rows will take."""
        measured = measure(judged, failure_cost=self._settings.failure_cost)
        key = self._space.key(candidate)
        if key in self._found:
            return
        self._found[key] = (Tried(candidate=dict(candidate), measured=measured), judged)
        best = self.best
        verdicts = self._found[self._space.key(best.candidate)][1]
        if best.candidate != self._space.start:
            # One group more: by so much may the search itself overrun.
            share = Decimal(len(self._held_out) + CHUNK) / len(self._dev) if self._held_out else Decimal(0)
            self._purse.kept_back_money = share * sum((one.cost for one in verdicts if one.cost is not None), Decimal(0))
            self._purse.kept_back_calls = round(share * sum(one.calls for one in verdicts))
        self._observe(Step(text=text, spent=self._purse.share, tried=len(self._found), best=best.measured.success))


class Reflection:
    """Has a model write an instruction anew, with GEPA's own wording of that request, within the budget. Meets `proposing.Reflect`."""

    def __init__(self, purse: Purse, model: Model, price: Price | None, settings: OptimiseSettings) -> None:
        self._purse, self._model, self._price, self._settings = purse, model, price, settings
        self._asked = 0

    def __call__(self, instruction: str, records: Records) -> str:
        """The new instruction; the old one where the model could not be asked. Raises `BudgetSpent`."""
        from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

        shown = [
            {"Inputs": record["input"], "Generated Outputs": record["answer"], "Feedback": record["feedback"]}
            for record in records[:MOST_RECORDS]
        ]
        prompt = str(Signature.prompt_renderer({"current_instruction_doc": instruction, "dataset_with_feedback": shown}))
        self._asked += 1
        key = hashlib.sha256(json.dumps([prompt, self._asked]).encode()).hexdigest()[:32]
        try:
            text = self._purse.asked(f"reflection/{key}", lambda: self._answer(prompt))
        except (ServingError, WindowError):
            logger.debug("The instruction could not be written anew.", exc_info=True)
            return instruction
        return Signature.output_extractor(text)["new_instruction"].strip() or instruction

    async def _answer(self, prompt: str) -> tuple[Completion, Decimal | None]:
        sampling = Sampling(max_new_tokens=self._settings.reflection_tokens, temperature=0.8, seed=self._settings.seed + self._asked)
        completion = await self._model.answer([Message(role="user", content=prompt)], sampling)
        return completion, cost_per_request(self._price, completion.usage, completion.seconds)


def load_gepa() -> ModuleType:
    """The package `gepa`. Raises `ConfigError` where it is not installed."""
    try:
        import gepa
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Optimising needs the package `gepa`, which is not installed (no module `{error.name}`): pip install 'foreword[optimise]'"
        ) from error
    return gepa


class _Log:
    """GEPA's own log, which holds prompts, goes nowhere."""

    def log(self, message: str) -> None:
        """Takes a line."""


def _record(row: Example, judged: Judged) -> dict[str, Any]:
    wanted = " or ".join(row.completions)
    return {
        "input": row.prompt,
        "answer": judged.answer,
        "wanted": row.completions,
        "success": judged.success,
        "feedback": "Right." if judged.success else f"Wrong. The answer should have been: {wanted}",
    }

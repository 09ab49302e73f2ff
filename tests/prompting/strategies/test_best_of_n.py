"""`best-of-n`: by a verifier, or by likelihood."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from asking import QUESTION, InLoop, solved
from foreword.engines.echo import EchoEngine
from foreword.errors import ConfigError, RegistryError
from foreword.prompting import model, strategy
from foreword.prompting.strategy import Budget, Resources
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Completion, Message, Sampling, TokenLogprob


async def length(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    """Right from six letters on."""
    return Verdict(score=min(1.0, len(answer) / 6), reason="" if len(answer) >= 6 else f"only {len(answer)} letters")


BY_LENGTH = Resources(verify=length)


class Likely(InLoop):
    """Tells how likely its answers are: the longer, the likelier."""

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        completion = await super().answer(conversation, sampling)
        assert sampling.logprobs == 0
        token = TokenLogprob(token_id=0, text="", logprob=-1 / len(completion.text))
        return Completion(
            text=completion.text,
            token_ids=(0, 0),
            usage=completion.usage,
            finish_reason="stop",
            seconds=0.0,
            logprobs=(token, token),
        )


def test_the_first_that_passes_ends_it() -> None:
    found = solved("best-of-n(n=8, batch=2)", ["one", "two", "four", "eleven", "twelve"], resources=BY_LENGTH)
    assert (found.text, found.calls, found.note) == ("eleven", 4, "passed after 4 of 8 answers")
    assert found.candidates == ("one", "two", "four", "eleven")
    assert [span.attributes["score"] for span in found.trace.of_kind("check")][-1] == 1.0


def test_none_passes_and_the_best_is_kept() -> None:
    found = solved("best-of-n(n=3)", ["one", "three", "two"], resources=BY_LENGTH)
    assert (found.text, found.status) == ("three", "answered")
    assert found.note == "none of 3 of 3 answers passed; the best scored 0.83: only 5 letters"


def test_a_verifier_by_name_comes_before_the_resources() -> None:
    found = solved("best-of-n(n=3, verifier=json-object)", ["eleven", '{"a": 1}', "x"], resources=BY_LENGTH)
    assert found.text == '{"a": 1}'
    with pytest.raises(RegistryError, match="json-object"):
        solved("best-of-n(verifier=jason)", ["x"])


def test_the_models_own_judgement_counts_as_calls() -> None:
    found = solved("best-of-n(n=2, batch=1, verifier=self-judged)", ["41", "no", "42", "yes"])
    assert (found.text, found.calls) == ("42", 4)


def test_without_a_verifier_the_likeliest_is_taken() -> None:
    found = solved("best-of-n(n=3)", Likely(["one", "Answer: three", "two"]))
    assert (found.text, found.final, found.calls) == ("Answer: three", "three", 3)
    assert "-0.077 a token" in found.note


def test_log_probabilities_of_a_served_engine() -> None:
    async def run():
        served = model.of(EchoEngine(name="echo"))
        try:
            return await strategy.solve(strategy.parse("best-of-n(n=2)"), QUESTION, served)
        finally:
            await served.close()

    found = asyncio.run(run())
    assert found.text == "What is 6 times 7?" and found.note == "the likeliest of 2 of 2 answers: 0.000 a token"


def test_an_engine_without_log_probabilities_is_told() -> None:
    with pytest.raises(ConfigError, match="tells no log-probabilities"):
        solved("best-of-n(n=2)", ["42"])


def test_a_spent_budget_gives_the_best_so_far() -> None:
    found = solved("best-of-n(n=8, batch=8)", ["one", "three", "two"], resources=BY_LENGTH, budget=Budget(calls=3))
    assert (found.status, found.text, found.calls) == ("budget", "three", 3)


def test_thinking_is_asked_for_and_the_short_answer_found() -> None:
    asked = InLoop(["Because.\nAnswer: 42"])
    found = solved("best-of-n(n=1, think=true)", asked, resources=BY_LENGTH)
    assert found.final == "42" and "step by step" in asked.asked[0][-1].content

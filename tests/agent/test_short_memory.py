"""The prompt of an agent: within its tokens, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agents import done
from foreword.agent.short_memory import Counts, ShortMemory, ShortTerm, cut_to_tokens, estimated_tokens
from foreword.errors import AgentError, BudgetSpent, WindowError
from foreword.types import Message


def words(text: str) -> int:
    return len(text.split())


def memory(most_tokens: int = 100, summarise: object = None, **fields: object) -> ShortMemory:
    settings = ShortTerm(most_tokens=most_tokens, summary_tokens=20, summarise=summarise is not None)
    return ShortMemory(system="You work.", goal="Goal: count.", settings=settings, count=words, summarise=summarise, **fields)  # type: ignore[arg-type]


class Summaries:
    """Summaries that say which steps they are of."""

    def __init__(self, *answers: str | Exception) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def __call__(self, conversation: Sequence[Message]) -> str:
        self.asked.append(conversation[-1].content)
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def filled(short: ShortMemory, count: int, length: int = 10, first: int = 0) -> ShortMemory:
    for number in range(first, first + count):
        short.add(f"step{number}", " ".join([f"seen{number}"] * length))
    return short


def test_goal_and_last_step_stay():
    short = filled(memory(), 20)
    fallen = done(short.fit())
    assert fallen is not None and fallen.turns > 10
    conversation = short.conversation()
    assert short.tokens() <= 100
    assert conversation[0].content == "You work." and conversation[1].content.startswith("Goal: count.")
    assert f"first {fallen.turns} steps are left out" in conversation[1].content
    assert "seen19" in conversation[-1].content


def test_roles_take_turns():
    short = filled(memory(1000), 3)
    assert [message.role for message in short.conversation()] == ["system", *["user", "assistant"] * 3, "user"]


def test_nothing_falls_out_where_there_is_room():
    assert done(filled(memory(1000), 5).fit()) is None


def test_something_falls_out_seldom():
    short, times = memory(200), 0
    for number in range(40):
        short.add(f"step{number}", "seen " * 10)
        times += done(short.fit()) is not None
    assert 0 < times < 20


def test_what_falls_out_is_summed_up_once_and_gone_on_with():
    summaries = Summaries("They counted to four.", "They counted to nine.")
    short = memory(150, summaries)
    filled(short, 12)
    first = done(short.fit())
    assert first is not None and first.summary == "They counted to four."
    filled(short, 12, first=12)
    done(short.fit())
    assert "They counted to four." in summaries.asked[1]
    assert "seen0" in summaries.asked[0] and "seen0" not in summaries.asked[1]
    assert "They counted to nine." in short.conversation()[1].content


def test_a_summary_is_no_longer_than_it_may_be():
    short = filled(memory(150, Summaries("word " * 500)), 20)
    done(short.fit())
    assert words(short.summary) <= 20 and short.tokens() <= 150


@pytest.mark.parametrize("answer", ["", "  \n", WindowError("Too long.")])
def test_without_a_summary_there_is_a_note(answer: str | Exception):
    short = filled(memory(150, Summaries(answer)), 20)
    fallen = done(short.fit())
    assert fallen is not None and "without a summary" in fallen.note
    assert "left out here" in short.conversation()[1].content


def test_a_spent_budget_is_no_matter_of_summaries():
    with pytest.raises(BudgetSpent):
        done(filled(memory(150, Summaries(BudgetSpent("Spent."))), 20).fit())


def test_one_step_that_is_too_long_is_cut():
    short = filled(memory(100), 1, length=5000)
    done(short.fit())
    assert short.tokens() <= 100
    assert "characters left out" in short.conversation()[-1].content


def test_a_goal_that_is_too_long_is_an_error():
    short = ShortMemory(system="", goal="word " * 500, settings=ShortTerm(most_tokens=100, summarise=False), count=words)
    with pytest.raises(AgentError, match="100"):
        done(short.fit())


def test_the_tail_is_put_at_the_end_once():
    short = filled(memory(1000), 1)
    assert short.conversation(tail="Plan!")[-1].content.endswith("Plan!")
    assert "Plan!" not in short.conversation()[-1].content


def test_squeezing_ends():
    short = memory(1000)
    assert short.squeeze() and short.squeeze() and short.squeeze()
    assert not short.squeeze()


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 10_000, "a\n" * 3000])
@pytest.mark.parametrize("count", [words, estimated_tokens])
def test_a_cut_text_keeps_its_begin_and_its_end(text: str, count: object):
    cut = cut_to_tokens(f"BEGIN {text} END", 50, count)  # type: ignore[arg-type]
    assert count(cut) <= 50  # type: ignore[operator]
    if count(f"BEGIN {text} END") > 50:  # type: ignore[operator]
        assert cut.startswith("BEGIN") and cut.endswith("END")


def test_tokens_are_counted_once_and_can_be_counted_again_without_the_tokenizer():
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return 7

    counts = Counts(count)
    assert counts("a") == counts("a") == 7 and asked == ["a"]
    assert Counts(known=counts.recorded)("a") == 7
    assert Counts().recorded == {}

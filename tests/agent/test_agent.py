"""An agent at work: every way in which it can end, and what it is told on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents import Says, a_tool, call, done, final
from foreword.agent.agent import Agent, AgentBudget, Event
from foreword.agent.facts import Provenance
from foreword.agent.long_memory import LongMemory
from foreword.agent.planner import Planner
from foreword.agent.short_memory import ShortTerm
from foreword.cost.prices import Price
from foreword.errors import ConfigError, ServingError, WindowError
from foreword.prompting.tool import Tools
from foreword.prompting.verifier import Ask, Verdict
from foreword.types import Completion, Message, Sampling, Usage

double = a_tool("double", lambda arguments: str(2 * arguments["x"]))
TOOLS = Tools.of([double])


def test_calls_a_tool_and_answers():
    model = Says(call("double", '{"x": 21}'), final("42"))
    result = done(Agent(model=model, tools=TOOLS, instructions="You count.").run("Double 21."))
    assert (result.status, result.text, result.reason) == ("goal-met", "42", "")
    assert (result.steps, result.calls) == (2, 2)
    first, second = model.prompts
    assert first[0].role == "system" and first[0].content.startswith("You count.") and "double" in first[0].content
    assert "Double 21." in first[1].content
    assert [message.role for message in second] == ["system", "user", "assistant", "user"]
    assert second[-1].content == "Observation: 42"


def test_every_step_is_a_span():
    result = done(Agent(model=Says(call("double", '{"x": 2}'), final("4")), tools=TOOLS).run("Double 2."))
    root, *steps = result.trace.spans
    assert [span.kind for span in steps] == ["call", "tool", "call"]
    assert all(span.parent == root.id for span in steps)
    assert root.attributes["status"] == "goal-met" and root.attributes["goal"] == "Double 2."
    assert steps[1].attributes == {"step": 1, "arguments": '{"x": 2}', "observation": "4", "ok": True}


def test_usage_and_cost_are_those_of_all_calls():
    price = Price(input_per_million=1_000_000, output_per_million=0)
    result = done(Agent(model=Says(final("yes")), price=price).run("Is it?"))
    assert result.usage.prompt_tokens > 0
    assert result.cost == result.usage.prompt_tokens


def test_watched_steps_come_in_order():
    seen: list[Event] = []
    done(Agent(model=Says(call("double", '{"x": 1}'), final("2")), tools=TOOLS, watch=seen.append).run("Double 1."))
    assert [event.kind for event in seen] == ["thought", "call", "observation", "thought", "answer"]
    assert [event.step for event in seen] == [1, 1, 1, 2, 2]


def test_without_tools_whatever_is_said_is_the_answer():
    assert done(Agent(model=Says("It is blue.")).run("What colour?")).text == "It is blue."


# How it ends badly


def test_never_in_the_form_ends_explained():
    result = done(Agent(model=Says("Well.", "Hm.", "Let me think."), tools=TOOLS).run("Double 2."))
    assert (result.status, result.steps) == ("failed", 3)
    assert "3 times in a row" in result.reason and "neither" in result.reason
    assert result.text == "Let me think."


def test_unclear_words_are_answered_with_the_form_and_may_be_mended():
    model = Says("Well.", final("4"))
    result = done(Agent(model=model, tools=TOOLS).run("Double 2."))
    assert result.status == "goal-met"
    assert "Final Answer" in model.prompts[1][-1].content
    assert model.prompts[1][-2] == Message(role="assistant", content="Well.")


def test_an_empty_answer_is_unclear_too():
    assert done(Agent(model=Says(""), tools=TOOLS).run("Go.")).status == "failed"


def test_an_answer_cut_off_is_told_so():
    model = Says("word " * 50, final("4"))
    done(Agent(model=model, tools=TOOLS, sampling=Sampling(max_new_tokens=20)).run("Double 2."))
    assert "cut off after 20 tokens" in model.prompts[1][-1].content


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (call("doubel", '{"x": 1}'), "Did you mean `double`?"),
        (call("double", '{"x": '), "JSON"),
        (call("double", "{}"), "failed: KeyError"),
    ],
)
def test_bad_calls_become_observations(said: str, told: str):
    model = Says(said, final("so be it"))
    result = done(Agent(model=model, tools=TOOLS).run("Double 1."))
    assert result.status == "goal-met"
    assert told in model.prompts[1][-1].content
    assert result.trace.of_kind("tool")[0].status == "error"


async def _never(arguments: Any) -> str:
    await asyncio.Event().wait()
    return ""


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (a_tool("t", _never, seconds=0.05), "took longer than 0.05 seconds"),
        (a_tool("t", lambda arguments: 1 / 0), "ZeroDivisionError"),
        (a_tool("t", lambda arguments: "x" * 10_000_000), "more characters]"),
    ],
    ids=["hangs", "raises", "ten megabytes"],
)
def test_bad_tools_become_observations_of_bounded_length(tool: Any, told: str):
    model = Says(call("t"), final("enough"))
    result = done(Agent(model=model, tools=Tools.of([tool])).run("Go."))
    observation = model.prompts[1][-1].content
    assert result.status == "goal-met"
    assert told in observation and len(observation) < 10_000


def test_the_same_call_over_and_over_is_told_of_once_and_then_ends_it():
    model = Says(call("double", '{"x": 1}'), call("double", '{ "x":1 }'), call("double", '{"x": 1}'))
    result = done(Agent(model=model, tools=TOOLS).run("Double 1."))
    assert (result.status, result.steps) == ("loop", 3)
    assert "`double`" in result.reason
    assert "Do something else" in model.prompts[2][-1].content
    assert "Do something else" not in model.prompts[1][-1].content


def test_a_circle_of_three_is_found():
    circle = [call("double", f'{{"x": {number}}}') for number in (1, 2, 3)]
    result = done(Agent(model=Says(*circle * 5), tools=TOOLS).run("Double."))
    assert result.status == "loop" and result.steps == 7


def test_polling_that_sees_something_new_is_no_circle():
    ticks = iter(range(100))
    tool = a_tool("tick", lambda arguments: str(next(ticks)))
    result = done(Agent(model=Says(*[call("tick")] * 6, final("6")), tools=Tools.of([tool])).run("Wait."))
    assert result.status == "goal-met"


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (AgentBudget(steps=4), "4 steps"),
        (AgentBudget(steps=1000, calls=4), "4 calls"),
        (AgentBudget(steps=1000, tokens=300), "300 tokens"),
        (AgentBudget(steps=1000, money=Decimal("0.0003")), "0.0003"),
        (AgentBudget(steps=100_000, calls=None, seconds=0.2), "0.2 seconds"),
    ],
)
def test_every_budget_ends_the_work(budget: AgentBudget, reason: str):
    ticks = iter(range(10_000))

    async def tick(arguments: Any) -> str:
        await asyncio.sleep(0.01)
        return str(next(ticks))

    price = Price(input_per_million=1, output_per_million=1)
    agent = Agent(model=Says(call("tick")), tools=Tools.of([a_tool("tick", tick)]), budget=budget, price=price)
    result = done(agent.run("Wait."))
    assert result.status == "budget" and reason in result.reason


def test_a_tool_that_outlasts_the_budget_of_seconds_ends_the_work():
    agent = Agent(model=Says(call("t")), tools=Tools.of([a_tool("t", _never, seconds=100)]), budget=AgentBudget(seconds=0.1))
    assert done(agent.run("Wait.")).status == "budget"


def test_money_without_prices_is_refused():
    with pytest.raises(ConfigError, match="price"):
        done(Agent(model=Says(final("x")), budget=AgentBudget(money=Decimal(1))).run("Go."))


def test_a_goal_must_say_something():
    with pytest.raises(ConfigError, match="goal"):
        done(Agent(model=Says(final("x"))).run("  "))


class Fails:
    """A model that raises."""

    name = "fails"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        raise self._error

    async def close(self) -> None:
        pass


def test_an_engine_that_fails_ends_the_work_explained():
    result = done(Agent(model=Fails(ServingError("The engine stopped."))).run("Go."))
    assert (result.status, result.reason, result.text) == ("failed", "The engine stopped.", "")


def test_a_prompt_that_never_fits_the_window_ends_the_work():
    result = done(Agent(model=Fails(WindowError("Too long."))).run("Go."))
    assert result.status == "failed" and result.calls <= 5


class SmallWindow:
    """A model that takes prompts of so many words, and answers with the script."""

    name = "small"

    def __init__(self, words: int, *answers: str) -> None:
        self._words, self._answers = words, iter(answers)

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        count = sum(len(message.content.split()) for message in conversation)
        if count > self._words:
            raise WindowError(f"{count} words are too many.")
        return Completion(
            text=next(self._answers), token_ids=(), usage=Usage(prompt_tokens=count, completion_tokens=5), finish_reason="stop", seconds=0.0
        )

    async def close(self) -> None:
        pass


def test_a_prompt_that_outgrows_the_window_is_made_shorter():
    tool = a_tool("read", lambda arguments: "word " * 700)
    model = SmallWindow(900, call("read", '{"page": 1}'), call("read", '{"page": 2}'), final("read"))
    agent = Agent(model=model, tools=Tools.of([tool]), short_term=ShortTerm(most_tokens=4000, summarise=False))
    result = done(agent.run("Read."))
    assert result.status == "goal-met"
    assert any("made shorter" in note for note in result.notes)


# Checks


async def _even(conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
    return Verdict(score=1.0) if answer.isdigit() and int(answer) % 2 == 0 else Verdict(score=0.0, reason="It must be even.")


def test_a_rejected_answer_is_mended():
    model = Says(final("3"), final("4"))
    result = done(Agent(model=model, check=_even).run("An even number."))
    assert (result.status, result.text) == ("goal-met", "4")
    assert "It must be even." in model.prompts[1][-1].content
    assert [span.attributes["score"] for span in result.trace.of_kind("check")] == [0.0, 1.0]


def test_answers_that_are_rejected_again_and_again_end_it():
    result = done(Agent(model=Says(final("1"), final("3"), final("5")), check=_even).run("An even number."))
    assert (result.status, result.text) == ("failed", "5")
    assert "not accepted 3 times" in result.reason and "even" in result.reason


# Plans and memory


def test_the_plan_is_looked_over_after_each_observation():
    model = Says(
        "- [ ] double 2\n- [ ] answer",
        call("double", '{"x": 2}'),
        "- [x] double 2\n- [ ] answer with 4",
        final("4"),
    )
    result = done(Agent(model=model, tools=TOOLS, planner=Planner()).run("Double 2."))
    assert result.status == "goal-met"
    made, _revised = result.trace.of_kind("plan")
    assert [task["status"] for task in made.attributes["tasks"]] == ["todo", "todo"]  # type: ignore[union-attr,index,call-overload]
    assert "- [ ] answer with 4\n- [x] double 2" in model.prompts[3][-1].content
    assert "4" in model.prompts[2][-1].content


def test_a_plan_that_cannot_be_read_is_noted_and_left():
    model = Says("1. double it", call("double", '{"x": 2}'), "I would rather not.", final("4"))
    result = done(Agent(model=model, tools=TOOLS, planner=Planner()).run("Double 2."))
    assert result.status == "goal-met"
    assert "double it" in model.prompts[3][-1].content
    assert any("no list" in note for note in result.notes)


def test_facts_are_recalled_at_the_begin_and_written_down_with_their_provenance(tmp_path: Path):
    memory = LongMemory(tmp_path / "memory.sqlite")
    memory.remember("Anna's parcel is number 4711.", provenance=Provenance(source="user"))
    model = Says(call("double", '{"x": 2}'), call("remember", '{"fact": "Twice two is 4."}'), final("4711"))
    result = done(Agent(model=model, tools=TOOLS, memory=memory).run("What is the number of Anna's parcel?", run_id="r1"))
    assert "Anna's parcel is number 4711. (from user)" in model.prompts[0][1].content
    fact = memory.facts()[-1]
    assert fact.text == "Twice two is 4." and fact.provenance.run == "r1" and fact.provenance.source == "tool:double"
    assert result.trace.spans[fact.provenance.span - 1].name == "remember"
    memory.close()


def test_a_memory_can_be_read_without_being_handed_over(tmp_path: Path):
    memory = LongMemory(tmp_path / "memory.sqlite")
    model = Says(final("x"))
    done(Agent(model=model, tools=TOOLS, memory=memory, memory_tools=False).run("Go."))
    assert "remember" not in model.prompts[0][0].content
    memory.close()


def test_short_term_memory_stays_within_its_tokens():
    numbers = [call("double", f'{{"x": {number}, "note": "{"blah " * 60}"}}') for number in range(12)]
    answers = iter([*numbers, final("done")])

    def say(conversation: Sequence[Message]) -> str:
        return "It doubled some numbers." if "Write one summary" in conversation[-1].content else next(answers)

    model = Says(say)
    agent = Agent(model=model, tools=TOOLS, short_term=ShortTerm(most_tokens=900, summary_tokens=60))
    result = done(agent.run("Double many."))
    assert result.status == "goal-met"
    steps = [prompt for prompt in model.prompts if prompt[0].role == "system"]
    assert all(sum(len(message.content) for message in prompt) < 900 * 5 for prompt in steps)
    assert "It doubled some numbers." in steps[-1][1].content
    assert result.trace.of_kind("memory")[0].name == "fit"

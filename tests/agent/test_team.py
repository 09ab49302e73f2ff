"""Supervisors with workers, and peers that debate."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agents import Says, a_tool, call, done, final
from foreword.agent.agent import Agent, AgentBudget, Event
from foreword.agent.team import Debate, Supervised, Worker
from foreword.cost.prices import Price
from foreword.errors import ConfigError, ServingError
from foreword.prompting.strategy import Budget, Run
from foreword.prompting.tool import Tools
from foreword.types import Message

double = a_tool("double", lambda arguments: str(2 * arguments["x"]))


def delegate(worker: str, task: str) -> str:
    return call("delegate", f'{{"worker": "{worker}", "task": "{task}"}}')


def a_worker(*answers: str, name: str = "counter", **fields: object) -> Worker:
    return Worker(agent=Agent(model=Says(*answers), name=name, tools=Tools.of([double]), **fields), description="Counts.")  # type: ignore[arg-type]


def test_a_supervisor_hands_over_and_goes_on():
    boss = Says(delegate("counter", "Double 21."), final("It is 42."))
    worker = a_worker(call("double", '{"x": 21}'), final("42"))
    result = done(Supervised(supervisor=Agent(model=boss, name="boss"), workers=(worker,)).run("What is twice 21?"))
    assert (result.status, result.text, result.steps) == ("goal-met", "It is 42.", 2)
    assert result.calls == 4
    assert "counter (Counts.)" in boss.prompts[0][0].content
    assert boss.prompts[1][-1].content == "Observation: 42"


def test_messages_are_typed_and_traced_where_they_belong():
    worker = a_worker(final("42"))
    team = Supervised(supervisor=Agent(model=Says(delegate("counter", "Double 21."), final("42")), name="boss"), workers=(worker,))
    trace = done(team.run("What is twice 21?")).trace
    asked, answered = trace.of_kind("message")
    assert asked.attributes == {"id": 1, "sender": "boss", "recipient": "counter", "content": "Double 21.", "reply_to": 0}
    assert (answered.name, answered.attributes["reply_to"], answered.attributes["content"]) == ("result", 1, "42")
    (handed,) = trace.of_kind("tool")
    inner = next(span for span in trace.of_kind("run") if span.name == "counter")
    assert asked.parent == answered.parent == inner.parent == handed.id
    assert [span.parent for span in trace.of_kind("call")] == [1, inner.id, 1]


def test_a_worker_that_fails_is_an_observation():
    boss = Says(delegate("counter", "Go."), final("I gave up."))
    result = done(Supervised(supervisor=Agent(model=boss, name="boss"), workers=(a_worker("Hm."),)).run("Go."))
    assert result.status == "goal-met"
    assert "counter did not finish. failed: " in boss.prompts[1][-1].content
    assert [span.name for span in result.trace.of_kind("message") if "sender" in span.attributes] == ["task", "failure"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"worker": "nobody", "task": "x"}', "Workers: counter"),
        ('{"worker": "counter", "task": ""}', "1 to 8,000"),
        ("{}", "There is no worker"),
    ],
)
def test_bad_delegations_are_told(arguments: str, told: str):
    boss = Says(call("delegate", arguments), final("well"))
    done(Supervised(supervisor=Agent(model=boss, name="boss"), workers=(a_worker(final("x")),)).run("Go."))
    assert told in boss.prompts[1][-1].content


def test_the_budget_is_shared():
    ticks = iter(range(100))
    tick = a_tool("tick", lambda arguments: str(next(ticks)))
    worker = Worker(agent=Agent(model=Says(call("tick")), name="counter", tools=Tools.of([tick])), description="Counts.")
    team = Supervised(
        supervisor=Agent(model=Says(delegate("counter", "Count.")), name="boss", budget=AgentBudget(calls=6)), workers=(worker,)
    )
    result = done(team.run("Count."))
    assert result.status == "budget" and result.calls == 6
    assert result.usage.completion_tokens > 0


def test_a_worker_is_held_to_its_own_budget_too():
    ticks = iter(range(100))
    tick = a_tool("tick", lambda arguments: str(next(ticks)))
    worker = Worker(
        agent=Agent(model=Says(call("tick")), name="c", tools=Tools.of([tick]), budget=AgentBudget(steps=3)), description="Counts."
    )
    boss = Says(delegate("c", "Count."), final("enough"))
    result = done(Supervised(supervisor=Agent(model=boss, name="boss"), workers=(worker,)).run("Count."))
    assert "budget of 3 steps" in boss.prompts[1][-1].content and result.calls == 5


def test_costs_add_up_and_are_unknown_where_one_is():
    price = Price(input_per_million=1_000_000, output_per_million=0)
    boss = [delegate("counter", "Go."), final("42")]
    priced = Supervised(supervisor=Agent(model=Says(*boss), name="boss", price=price), workers=(a_worker(final("42"), price=price),))
    result = done(priced.run("Go."))
    assert result.cost == result.usage.prompt_tokens
    unpriced = Supervised(supervisor=Agent(model=Says(*boss), name="boss", price=price), workers=(a_worker(final("42")),))
    assert done(unpriced.run("Go.")).cost is None
    limited = Agent(model=Says(*boss), name="boss", price=price, budget=AgentBudget(money=Decimal(1)))
    with pytest.raises(ConfigError, match="price"):
        done(Supervised(supervisor=limited, workers=(a_worker(final("42")),)).run("Go."))


def test_members_have_names_of_their_own():
    with pytest.raises(ConfigError, match="`counter`"):
        done(Supervised(supervisor=Agent(model=Says("x")), workers=(a_worker("x"), a_worker("y"))).run("Go."))
    with pytest.raises(ConfigError, match="members"):
        done(Supervised(supervisor=Agent(model=Says("x")), workers=()).run("Go."))


# Debates


def peer(name: str, *answers: str, **fields: object) -> Agent:
    return Agent(model=Says(*answers), name=name, **fields)  # type: ignore[arg-type]


def test_peers_read_each_other_and_the_majority_decides():
    anna, ben, cleo = peer("anna", "Answer: 41", "Answer: 42"), peer("ben", "Answer: 42"), peer("cleo", "Answer: 7")
    result = done(Debate(peers=(anna, ben, cleo)).run("What is it?"))
    assert (result.status, result.text, result.steps, result.calls) == ("goal-met", "42", 2, 6)
    second = anna.model.prompts[1]  # type: ignore[attr-defined]
    assert "ben says:\nAnswer: 42" in second[-1].content and "cleo says:\nAnswer: 7" in second[-1].content
    assert second[-2].content == "Answer: 41" and "anna says" not in second[-1].content
    assert result.notes == ("2 of 3 peers gave this answer.",)
    assert [span.name for span in result.trace.of_kind("message")] == ["opinion"] * 6 + ["decision"]


def test_those_who_agree_stop():
    result = done(Debate(peers=(peer("anna", "Answer: 4"), peer("ben", "So... Answer: 4.")), rounds=5).run("Two and two?"))
    assert (result.text, result.steps, result.calls) == ("4", 1, 2)


def test_rounds_are_bounded():
    result = done(Debate(peers=(peer("anna", "Answer: 1"), peer("ben", "Answer: 2")), rounds=3).run("Go."))
    assert result.steps == 3 and result.text == "1"
    with pytest.raises(ConfigError, match="rounds"):
        done(Debate(peers=(peer("anna", "x"), peer("ben", "y")), rounds=99).run("Go."))


def test_a_spent_budget_ends_a_debate_with_what_there_is():
    result = done(Debate(peers=(peer("anna", "Answer: 1"), peer("ben", "Answer: 2")), rounds=9, budget=AgentBudget(calls=4)).run("Go."))
    assert result.status == "budget" and "0 calls" in result.reason and result.text == "1" and result.calls == 4


def test_a_peer_that_cannot_speak_is_noted():
    class Mute:
        name = "mute"

        async def answer(self, conversation: object, sampling: object) -> object:
            raise ServingError("It stopped.")

        async def close(self) -> None:
            pass

    mute = Agent(model=Mute(), name="mute")  # type: ignore[arg-type]
    result = done(Debate(peers=(peer("anna", "Answer: 1"), mute)).run("Go."))
    assert result.text == "1" and any("mute gave no answer" in note for note in result.notes)
    result = done(Debate(peers=(mute, Agent(model=Mute(), name="other"))).run("Go."))  # type: ignore[arg-type]
    assert result.status == "failed" and "It stopped." in result.reason


def test_those_who_watch_hear_the_messages():
    heard: list[Event] = []
    done(Debate(peers=(peer("anna", "Answer: 1"), peer("ben", "Answer: 1")), watch=heard.append).run("Go."))
    assert [event.agent for event in heard] == ["anna", "ben", "debate"]


def test_what_is_left_and_what_was_paid():
    model = Says("one two three")
    payer = Run(model, budget=Budget(calls=5, tokens=100, seconds=60.0), price=Price(input_per_million=1, output_per_million=1))
    other = Run(model, budget=payer.left(), price=Price(input_per_million=1, output_per_million=1))
    done(other.ask((Message(role="user", content="Go on."),)))
    payer.charge(other)
    assert (payer.calls, payer.tokens, payer.cost) == (1, 5, other.cost)
    left = payer.left()
    assert (left.calls, left.tokens, left.money) == (4, 95, None) and left.seconds is not None and 0 < left.seconds <= 60
    payer.charge(Run(model))
    assert payer.cost == other.cost

"""Work that is recorded, read again, and done again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import Says, a_tool, call, done, final
from foreword.agent import recording
from foreword.agent.agent import Agent, AgentBudget, AgentResult
from foreword.agent.checking import judge
from foreword.agent.facts import Provenance
from foreword.agent.long_memory import LongMemory
from foreword.agent.planner import Planner
from foreword.agent.short_memory import ShortTerm
from foreword.agent.team import Debate, Supervised, Worker
from foreword.cost.prices import Price
from foreword.errors import DataError
from foreword.prompting.tool import Tools
from foreword.telemetry import trace as traces
from foreword.types import Message

double = a_tool("double", lambda arguments: str(2 * arguments["x"]))
TOOLS = Tools.of([double])


def written(result: AgentResult, folder: Path) -> recording.Recording:
    path = folder / "run" / "trace.jsonl"
    recording.write(result, path)
    return recording.read(path)


def test_a_recording_is_a_trace_with_a_head(tmp_path: Path):
    result = done(Agent(model=Says(call("double", '{"x": 2}'), final("4")), tools=TOOLS, name="clerk").run("Double 2."))
    found = written(result, tmp_path)
    assert found.name == "clerk" and found.header.goal == "Double 2." and found.header.status == "goal-met"
    assert [tool.name for tool in found.header.tools] == ["double"]
    assert traces.read(tmp_path / "run/trace.jsonl") == result.trace


def by_everything(tmp_path: Path) -> AgentResult:
    """Work with a plan, memory, summaries, a judge, tools that fail, and unclear words."""
    memory = LongMemory(tmp_path / "memory.sqlite")
    memory.remember("Doubling is done with a tool.", provenance=Provenance(source="user"))
    steps = iter(
        [
            call("double", '{"x": 1, "note": "' + "blah " * 100 + '"}'),
            "I wonder.",
            call("duoble", '{"x": 3}'),
            call("double", '{"x": '),
            call("double", '{"x": 1}'),
            call("double", '{"x": 1}'),
            call("remember", '{"fact": "Doubling 1 gives 2."}'),
            final("3"),
            final("2"),
        ]
    )
    verdicts = iter(["No, that is not it.", "Yes."])

    def say(conversation: Sequence[Message]) -> str:
        asked = conversation[-1].content
        if "Write Yes or No" in asked:
            return next(verdicts)
        if "Write one summary" in asked:
            return "It doubled."
        if "Write only the list" in asked:
            return "- [ ] double 1\n- [ ] answer"
        return next(steps)

    agent = Agent(
        model=Says(say),
        tools=TOOLS,
        instructions="You count.",
        planner=Planner(),
        memory=memory,
        check=judge,
        short_term=ShortTerm(most_tokens=700, summary_tokens=40),
        count=lambda text: len(text.split()) * 2,
        price=Price(input_per_million=1, output_per_million=1),
    )
    result = done(agent.run("What does doubling 1 give?"))
    memory.close()
    return result


def test_everything_done_again_is_the_same(tmp_path: Path):
    result = by_everything(tmp_path)
    assert result.status == "goal-met", result.reason
    assert result.trace.of_kind("memory") and any("fit" in span.name for span in result.trace.of_kind("memory"))
    repeated = done(recording.again(written(result, tmp_path)))
    assert repeated.divergence is None
    assert repeated.same and repeated.result.text == "2" and repeated.result.notes == result.notes
    assert [span.name for span in repeated.result.trace.spans if span.kind == "tool"] == [
        span.name for span in result.trace.spans if span.kind == "tool"
    ]


def ticking() -> Tools:
    ticks = iter(range(10_000))
    return Tools.of([a_tool("tick", lambda arguments: str(next(ticks)))])


@pytest.mark.parametrize(
    "agent",
    [
        lambda: Agent(model=Says(call("tick")), tools=ticking(), budget=AgentBudget(steps=3)),
        lambda: Agent(model=Says(call("tick")), tools=ticking(), budget=AgentBudget(steps=99, calls=3)),
        lambda: Agent(model=Says(call("tick")), tools=ticking(), budget=AgentBudget(steps=99, tokens=400)),
        lambda: Agent(model=Says(call("tick")), tools=ticking(), budget=AgentBudget(steps=100_000, calls=None, seconds=0.1)),
        lambda: Agent(model=Says("Hm."), tools=ticking()),
        lambda: Agent(model=Says(call("double", '{"x": 2}')), tools=TOOLS),
    ],
    ids=["steps", "calls", "tokens", "seconds", "unclear", "circle"],
)
def test_every_bad_end_comes_again(agent: Any, tmp_path: Path):
    result = done(agent().run("Go."))
    assert result.status != "goal-met"
    repeated = done(recording.again(written(result, tmp_path)))
    assert repeated.divergence is None and repeated.result.status == result.status and repeated.result.reason == result.reason


def test_a_team_comes_again(tmp_path: Path):
    worker = Worker(agent=Agent(model=Says(call("double", '{"x": 2}'), final("4")), name="counter", tools=TOOLS), description="Counts.")
    boss = Agent(model=Says(call("delegate", '{"worker": "counter", "task": "Double 2."}'), final("4")), name="boss")
    result = done(Supervised(supervisor=boss, workers=(worker,)).run("Double 2."))
    assert done(recording.again(written(result, tmp_path))).same


def test_a_debate_comes_again(tmp_path: Path):
    peers = tuple(
        Agent(model=Says("Answer: 1", f"Answer: {number}"), name=f"peer{number}", instructions="Be short.") for number in (1, 2, 3)
    )
    result = done(Debate(peers=peers, rounds=3).run("Go."))
    repeated = done(recording.again(written(result, tmp_path)))
    assert repeated.same and repeated.result.text == result.text


def changed(path: Path, change: Any) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def simple(tmp_path: Path) -> Path:
    model = Says(call("double", '{"x": 2}'), call("double", '{"x": 4}'), final("8"))
    written(done(Agent(model=model, tools=TOOLS, instructions="You count.").run("Double 2 twice.")), tmp_path)
    return tmp_path / "run/trace.jsonl"


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda rows: rows[0]["attributes"].update(instructions="You sing."), "call 2", "the prompt"),
        (lambda rows: rows[2]["attributes"].update(observation="5"), "call 4", "the prompt"),
        (lambda rows: rows[1]["attributes"].update(text=call("double", '{"x": 3}')), "tool 3", "the call"),
        (lambda rows: rows[1]["attributes"].update(text=final("4")), "call 4", "the call is not made"),
        (lambda rows: rows[5]["attributes"].update(text=call("double", '{"x": 8}')), "the end", "another tool"),
        (lambda rows: rows[0]["attributes"].update(text="9"), "the result", "text"),
        (lambda rows: rows[0]["attributes"]["budget"].update(steps=2), "call 6", "the call is not made"),
    ],
)
def test_the_first_difference_is_reported(tmp_path: Path, change: Any, where: str, what: str):
    path = simple(tmp_path)
    changed(path, change)
    divergence = done(recording.again(recording.read(path))).divergence
    assert divergence is not None and divergence.where.startswith(where) and divergence.what == what


def test_a_difference_shows_both_sides(tmp_path: Path):
    path = simple(tmp_path)
    changed(path, lambda rows: rows[0]["attributes"].update(instructions="You sing."))
    divergence = done(recording.again(recording.read(path))).divergence
    assert "You count." in divergence.recorded and "You sing." in divergence.now


def test_work_that_was_cut_off_is_shown_and_not_done_again(tmp_path: Path):
    path = simple(tmp_path)
    changed(path, lambda rows: rows[0]["attributes"].pop("status"))
    with pytest.raises(DataError, match="cut off"):
        done(recording.again(recording.read(path)))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}\n",
        '{"id": 1, "parent": null, "kind": "run", "name": "x", "start": 0, "seconds": 1}\n',
        '{"id": 1, "parent": null, "kind": "run", "name": "x", "start": 0, "seconds": 1, "attributes": {"format": 9}}\n',
        '{"id": 1, "parent": null, "kind": "run", "name": "x", "start": 0, "seconds": 1, "attributes": {"format": 1, "goal": 7}}\n',
    ],
)
def test_files_that_are_no_recordings_are_refused(tmp_path: Path, content: str):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"x\.jsonl"):
        recording.read(path)


def test_every_step_can_be_told(tmp_path: Path):
    found = written(by_everything(tmp_path), tmp_path)
    told = [recording.told(span) for span in found.trace.spans]
    assert all(told)
    assert any(line.startswith("double {") and "→" in line for line in told)
    assert any("recalled: Doubling is done with a tool." in line for line in told)


def test_halves_of_characters_do_not_keep_work_from_being_written(tmp_path: Path):
    tool = a_tool("odd", lambda arguments: "half \ud800" + arguments.get("x", ""))
    worker = Worker(agent=Agent(model=Says(final("4")), name="counter"), description="Counts.")
    said = [call("odd", '{"x": "\\ud800"}'), call("delegate", '{"worker": "counter", "task": "half \\ud800"}'), final("done")]
    boss = Agent(model=Says(*said), name="boss", tools=Tools.of([tool]))
    found = written(done(Supervised(supervisor=boss, workers=(worker,)).run("Half a \ud800 character.")), tmp_path)
    assert found.header.status == "goal-met" and found.header.goal == "Half a ? character."
    assert done(recording.again(found)).same

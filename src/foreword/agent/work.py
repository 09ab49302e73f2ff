"""One piece of work of an agent, from its goal to its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from foreword.agent.agent import Agent, Event, EventKind, Status, encodable
from foreword.agent.facts import Provenance
from foreword.agent.loops import Loops
from foreword.agent.memory_tools import memory_tools, told
from foreword.agent.planner import Plan, Planned
from foreword.agent.short_memory import Counts, ShortMemory
from foreword.errors import AgentError, BudgetSpent, ServingError, StrategyError, WindowError
from foreword.prompting.strategy import Run
from foreword.prompting.tool import Observation, Tools
from foreword.prompting.tool_calls import STOP, Step, fitted, instructions, parse
from foreword.types import Completion, Message

MOST_SAID = 4_000
"""Characters of something unclear that are kept before the model's eyes."""
MOST_SQUEEZES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the work ended; see `AgentResult`."""

    text: str
    status: Status
    reason: str
    steps: int
    notes: tuple[str, ...]


class Work:
    """An agent at work. For one goal."""

    def __init__(self, agent: Agent, goal: str, run: Run, run_id: str, counts: Counts) -> None:
        """Raises `ConfigError` where two tools have one name."""
        self._agent, self._run, self._run_id, self._counts = agent, run, run_id, counts
        self._goal = f"Goal: {goal.strip()}"
        self._question = goal.strip()
        self._last_tool = "model"
        self._span = 0
        extra = () if agent.memory is None or not agent.memory_tools else memory_tools(agent.memory, self._provenance)
        self.tools = Tools.of([*agent.tools, *extra])
        self._plan = Plan()
        self._loops = Loops()
        self._notes: list[str] = []
        self._best = ""
        self._step = self._unclear_in_a_row = self._rejections = 0
        self._short: ShortMemory | None = None

    def tool_rows(self) -> list[JsonValue]:
        """The tools for a trace."""
        return [{"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in self.tools]

    async def go(self) -> Outcome:
        """Works until it ends, however it ends."""
        try:
            self._short = await self._beginning()
            while self._step < self._agent.budget.steps:
                self._step += 1
                ended = await self._one_step(self._short)
                if ended is not None:
                    return ended
        except BudgetSpent as error:
            return self._ended("budget", str(error))
        except (StrategyError, WindowError, ServingError, AgentError) as error:
            return self._ended("failed", str(error))
        return self._ended("budget", f"The budget of {self._agent.budget.steps} steps is spent.")

    async def _beginning(self) -> ShortMemory:
        agent = self._agent
        goal = self._goal
        recalled = await self._recalled()
        if recalled:
            goal += f"\n\nWhat you wrote down in earlier work, which may be out of date:\n{recalled}"
        form = instructions(self.tools)
        short = ShortMemory(
            system=f"{agent.instructions}\n\n{form}" if agent.instructions else form,
            goal=goal,
            settings=agent.short_term,
            count=self._counts,
            summarise=self._summary,
        )
        if agent.planner is not None:
            with self._run.tracer.span("plan", "make") as span:
                self._planned(await agent.planner.make(goal, self._run.ask), span)
        return short

    async def _recalled(self) -> str:
        memory = self._agent.memory
        if memory is None:
            return ""
        with self._run.tracer.span("memory", "recall", {"question": self._question}) as span:
            found = await asyncio.to_thread(memory.recall, self._question, most=self._agent.remembered)
            span.set(facts=[{"id": item.fact.id, "text": item.fact.text, "source": item.fact.provenance.source} for item in found])
        text = "\n".join(told(item) for item in found)
        if text:
            self._tell("recall", text)
        return text

    async def _one_step(self, short: ShortMemory) -> Outcome | None:
        completion = await self._asked(short)
        said = parse(completion.text)
        if said.thought:
            self._tell("thought", said.thought)
        if said.tool is not None:
            self._unclear_in_a_row = 0
            return await self._called(said, said.tool, short)
        final = said.final
        if final is None and not len(self.tools) and completion.text.strip():
            # Nothing can be called, so whatever is said is the answer.
            final = completion.text.strip()
        if final is not None:
            self._unclear_in_a_row = 0
            return await self._answered(said, final, short)
        return self._unclear(said, completion, short)

    async def _asked(self, short: ShortMemory) -> Completion:
        tail, stop = self._tail(), (*self._agent.sampling.stop, *STOP)
        for _ in range(MOST_SQUEEZES):
            await self._fit(short, tail)
            try:
                return await self._run.ask(short.conversation(tail=tail), purpose=f"step {self._step}", stop=stop)
            except WindowError as error:
                if not short.squeeze():
                    raise
                self._note(f"The prompt was made shorter: {error}")
        raise AgentError(
            "The prompt does not fit the model's window, however little is kept of it. Shorten the instructions, or take tools away."
        )

    async def _fit(self, short: ShortMemory, tail: str) -> None:
        if not short.over(tail=tail):
            return
        with self._run.tracer.span("memory", "fit") as span:
            fallen = await short.fit(tail=tail)
            span.set(fallen=0 if fallen is None else fallen.turns, summary="" if fallen is None else fallen.summary)
        if fallen is not None and fallen.note:
            self._note(fallen.note)

    async def _summary(self, conversation: Sequence[Message]) -> str:
        most = self._agent.short_term.summary_tokens
        return (await self._run.ask(conversation, purpose="summary", max_new_tokens=most)).text

    async def _called(self, said: Step, name: str, short: ShortMemory) -> Outcome | None:
        tool = self.tools.by_name.get(name)
        arguments = encodable(said.arguments if tool is None else fitted(said.arguments, tool))
        self._tell("call", f"{name} {arguments}")
        observation = await self._observed(name, arguments)
        self._tell("observation", observation.text)
        call = f"{_thought(said)}Action: {name}\nAction Input: {arguments}"
        return await self._after(call, f"Observation: {observation.text}", (name, arguments, observation.text), short)

    async def _observed(self, name: str, arguments: str) -> Observation:
        attributes: dict[str, Any] = {"step": self._step, "arguments": arguments}
        with self._run.tracer.span("tool", name, attributes) as span:
            self._span = span.id
            left = self._run.left().seconds
            try:
                async with asyncio.timeout(left):
                    observation = await self.tools.call(name, arguments)
            except TimeoutError:
                raise BudgetSpent(f"The budget of {self._run.budget.seconds:g} seconds is spent.") from None
            observation = replace(observation, text=encodable(observation.text))
            span.set(observation=observation.text, ok=observation.ok)
            if not observation.ok:
                span.failed(observation.text)
        if name not in ("remember", "recall"):
            self._last_tool = f"tool:{name}"
        return observation

    async def _answered(self, said: Step, final: str, short: ShortMemory) -> Outcome | None:
        self._best = final
        if self._agent.check is None:
            return self._ended("goal-met", "")
        with self._run.tracer.span("check", "answer", {"answer": final}) as span:
            verdict = await self._agent.check((Message(role="user", content=self._goal),), final, self._run.ask)
            span.set(score=verdict.score, reason=verdict.reason)
        if verdict.passed:
            if verdict.reason:
                self._note(f"Check: {verdict.reason}")
            return self._ended("goal-met", "")
        self._rejections += 1
        self._note(f"The answer was not accepted: {verdict.reason}")
        if self._rejections > self._agent.most_rejections:
            return self._ended("failed", f"The answer was not accepted {self._rejections} times; the last time: {verdict.reason}")
        reply = f"Your answer was checked, and it is not accepted: {verdict.reason}\nGo on."
        return await self._after(f"{_thought(said)}Final Answer: {final}", reply, ("", final, verdict.reason), short)

    def _unclear(self, said: Step, completion: Completion, short: ShortMemory) -> Outcome | None:
        self._unclear_in_a_row += 1
        problem = said.problem or "That was empty."
        if completion.finish_reason == "length":
            problem = f"What you wrote was cut off after {completion.usage.completion_tokens} tokens; be shorter. {problem}"
        with self._run.tracer.span("message", "unclear", {"step": self._step, "problem": problem}) as span:
            span.failed(problem)
        # The form that it is shown besides says nothing to anybody else.
        shown = problem.splitlines()[0].removesuffix(" Write")
        self._note(shown)
        if self._unclear_in_a_row >= self._agent.most_unclear:
            self._best = self._best or completion.text.strip()
            times = self._unclear_in_a_row
            return self._ended("failed", f"The model did not keep to the form {times} times in a row. The last time it was told: {shown}")
        short.add(completion.text.strip()[:MOST_SAID] or "(nothing)", problem)
        return None

    async def _after(self, said: str, reply: str, step: tuple[str, str, str], short: ShortMemory) -> Outcome | None:
        """What follows every call and every rejected answer: a look for circles, and one at the plan."""
        verdict = self._loops.add(*step)
        if verdict:
            times = "the same" if self._loops.length == 1 else f"the same {self._loops.length} steps in turn"
            circle = f"You did {times} before, and the same came of it."
            self._note(circle.replace("You", "The agent", 1))
            if verdict == "stop":
                return self._ended("loop", f"The agent goes round in circles, and did so after it was told: {_shown(step)}")
            reply = f"{reply}\n\n{circle} Do something else, or give the final answer with what you know."
        short.add(said, reply)
        planner = self._agent.planner
        if planner is not None and planner.revise and self._plan.tasks:
            with self._run.tracer.span("plan", "revise") as span:
                self._planned(await planner.revised(self._plan, self._goal, f"{said}\n{reply}", self._run.ask), span)
        return None

    def _planned(self, planned: Planned, span: Any) -> None:
        span.set(tasks=planned.plan.rows(), note=planned.note)
        if planned.note:
            self._note(planned.note)
        if planned.plan != self._plan:
            self._tell("plan", planned.plan.render())
        self._plan = planned.plan

    def _tail(self) -> str:
        return f"Your plan:\n{self._plan.render()}" if self._plan.tasks else ""

    def _provenance(self) -> Provenance:
        """A fact that is written down now comes from the last tool that said something, or else from the model."""
        return Provenance(run=self._run_id, span=self._span, source=self._last_tool)

    def _ended(self, status: Status, reason: str) -> Outcome:
        self._tell("answer" if status == "goal-met" else "note", self._best if status == "goal-met" else f"{status}: {reason}")
        return Outcome(text=self._best, status=status, reason=reason, steps=self._step, notes=tuple(self._notes))

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._tell("note", text)

    def _tell(self, kind: EventKind, text: str) -> None:
        if self._agent.watch is not None:
            self._agent.watch(Event(agent=self._agent.name, step=self._step, kind=kind, text=text))


def _thought(said: Step) -> str:
    return f"Thought: {said.thought}\n" if said.thought else ""


def _shown(step: tuple[str, str, str]) -> str:
    name, arguments, observation = (re.sub(r"\s+", " ", part)[:120] for part in step)
    return f"`{name or 'answer'}` with {arguments} gave {observation}"

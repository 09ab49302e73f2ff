"""What an agent is: a model that works towards a goal step by step, with tools, memory and plans, within a budget.

A step is one thing that the model says and what came of it: a call of a tool and its observation, or the final answer (ReAct, Yao et al.
2022). The work ends when the goal is met, the budget is spent, the model goes round in circles, or nothing more can be done; the result
says which and why, and holds everything that happened as a trace.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from foreword.agent.short_memory import Counts, ShortTerm, estimated_tokens
from foreword.cost.prices import Price
from foreword.errors import ConfigError
from foreword.prompting.model import Model
from foreword.prompting.strategy import Budget, Resources, Run
from foreword.prompting.tool import Tools
from foreword.prompting.verifier import Verify
from foreword.telemetry.trace import OpenSpan, Trace, Tracer
from foreword.types import Sampling, Usage

if TYPE_CHECKING:
    from foreword.agent.memory_tools import Memory
    from foreword.agent.planner import Planner
    from foreword.agent.work import Outcome

RECORD_FORMAT = 1
MOST_GOAL = 100_000
"""Characters of a goal."""
SAMPLING = Sampling(max_new_tokens=512)

Status = Literal["goal-met", "budget", "loop", "failed"]
EventKind = Literal["recall", "plan", "thought", "call", "observation", "note", "message", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBudget:
    """What one piece of work may take at most; None is no limit, and steps always have one."""

    steps: int = 20
    calls: int | None = 100
    tokens: int | None = None
    money: Decimal | None = None
    seconds: float | None = 600.0

    def budget(self) -> Budget:
        """The part of it that calls of the model are held to."""
        return Budget(calls=self.calls, tokens=self.tokens, money=self.money, seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that just happened, for whoever watches. Attributes: step: 0 before the first."""

    agent: str
    step: int
    kind: EventKind
    text: str


Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """What came of a goal, with everything that it took.

    Attributes:
        text: the final answer; where the goal was not met, the best that there was, or empty.
        reason: why the work ended so; empty where the goal was met.
        steps: of the agent itself, not of those that it had work for it.
        calls: of models, with those of workers, planner, summaries and checks.
        cost: None without a price.
        notes: what did not go as it should on the way and did not end the work.
    """

    text: str
    status: Status
    reason: str
    steps: int
    calls: int
    usage: Usage
    cost: Decimal | None
    seconds: float
    notes: tuple[str, ...]
    trace: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A worker with a goal to come.

    Attributes:
        instructions: how it is to work, as the begin of its system message.
        tools: what it may call.
        memory: long-term: what fits the goal is recalled at the begin, and it may write down and look up more; None for none.
        memory_tools: give it the tools `remember` and `recall` besides what is recalled at the begin.
        remembered: facts recalled at the begin, at most.
        short_term: how much it has before its eyes.
        count: tokens of a text.
        planner: makes a plan and looks it over after each observation; None works without one.
        check: whether an answer meets the goal; without one the agent's word is taken.
        most_rejections: of answers by the check, until the work has failed.
        most_unclear: things said in a row that are neither a call nor an answer, until the work has failed.
        sampling: what its calls are drawn with.
        watch: told of each step as it happens; must not block.
    """

    model: Model
    name: str = "agent"
    instructions: str = ""
    tools: Tools = field(default_factory=Tools)
    memory: Memory | None = None
    memory_tools: bool = True
    remembered: int = 5
    short_term: ShortTerm = field(default_factory=ShortTerm)
    count: Callable[[str], int] = estimated_tokens
    planner: Planner | None = None
    check: Verify | None = None
    most_rejections: int = 2
    most_unclear: int = 3
    budget: AgentBudget = field(default_factory=AgentBudget)
    sampling: Sampling = SAMPLING
    price: Price | None = None
    watch: Watch | None = None

    async def run(self, goal: str, *, run_id: str | None = None) -> AgentResult:
        """Works towards a goal, alone and on its own account.

        What goes wrong on the way is part of the result: spent budgets, circles, tools and engines that fail, a model that never keeps to
        the form.

        Args:
            run_id: what the work is called in the provenance of facts; made up where it is not given.

        Raises:
            ConfigError: there is no goal, two tools have one name, or money is limited and nobody said what calls cost.
        """
        goal = check_goal(goal)
        check_money(self.budget, (self,))
        return await recorded(self, goal, own_account(self), run_id or secrets.token_hex(8))

    async def work_for(self, goal: str, payer: Run, run_id: str) -> Outcome:
        """Works towards a goal within its own budget and within what is left of another's, who pays, in whose trace it is.

        Raises:
            ConfigError: as `run`.
        """
        from foreword.agent.work import Work

        goal = check_goal(goal)
        own, left = self.budget.budget(), payer.left()
        run = Run(
            self.model,
            resources=Resources(tools=self.tools),
            sampling=self.sampling,
            budget=Budget(
                calls=_least(own.calls, left.calls),
                tokens=_least(own.tokens, left.tokens),
                money=_least(own.money, left.money),
                seconds=_least(own.seconds, left.seconds),
            ),
            price=self.price,
            tracer=payer.tracer,
        )
        try:
            with payer.tracer.span("run", self.name, {"goal": goal}) as span:
                outcome = await Work(self, goal, run, run_id, Counts(self.count)).go()
                _close(span, outcome, run)
        finally:
            payer.charge(run)
        return outcome


def own_account(agent: Agent) -> Run:
    """A run within the agent's own budget."""
    return Run(
        agent.model,
        resources=Resources(tools=agent.tools),
        sampling=agent.sampling,
        budget=agent.budget.budget(),
        price=agent.price,
        tracer=Tracer(),
    )


async def recorded(agent: Agent, goal: str, run: Run, run_id: str) -> AgentResult:
    """Runs an agent as the outermost step of a trace that can be replayed."""
    from foreword.agent.work import Work

    began, counts = time.perf_counter(), Counts(agent.count)
    with run.tracer.outermost(), run.tracer.span("run", agent.name) as span:
        work = Work(agent, goal, run, run_id, counts)
        span.set(format=RECORD_FORMAT, id=run_id, goal=goal, **_described(agent), tools=work.tool_rows())
        outcome = await work.go()
        _close(span, outcome, run)
        span.set(counts=dict(counts.recorded))
    return AgentResult(
        text=outcome.text,
        status=outcome.status,
        reason=outcome.reason,
        steps=outcome.steps,
        calls=run.calls,
        usage=Usage(prompt_tokens=run.prompt_tokens, completion_tokens=run.completion_tokens, prefix_positions=run.prefix_positions),
        cost=run.cost,
        seconds=time.perf_counter() - began,
        notes=outcome.notes,
        trace=run.tracer.trace(),
    )


def encodable(text: str) -> str:
    """The text without halves of characters, which JSON can carry and files and sockets cannot."""
    return text.encode("utf-8", "replace").decode()


def check_goal(goal: str) -> str:
    """The goal as it can be written down. Raises `ConfigError` unless it can be worked towards."""
    if not goal.strip() or len(goal) > MOST_GOAL:
        raise ConfigError(f"A goal has 1 to {MOST_GOAL:,} characters; this one has {len(goal.strip()):,}. Say what is to be done.")
    return encodable(goal)


def check_money(budget: AgentBudget, agents: Sequence[Agent]) -> None:
    """Raises `ConfigError` where money is limited and one of the agents has no price: such a limit would never be reached."""
    if budget.money is not None and any(agent.price is None for agent in agents):
        raise ConfigError(
            f"The budget is {budget.money} in money, and not every model has a price. Give prices, or limit tokens or seconds."
        )


def _close(span: OpenSpan, outcome: Outcome, run: Run) -> None:
    if outcome.status != "goal-met":
        span.failed(outcome.reason)
    span.set(
        status=outcome.status,
        text=outcome.text,
        reason=outcome.reason,
        steps=outcome.steps,
        calls=run.calls,
        tokens=run.tokens,
        cost=None if run.cost is None else str(run.cost),
        notes=list(outcome.notes),
    )


def _described(agent: Agent) -> dict[str, Any]:
    """What a replay has to know of an agent."""
    budget, short = agent.budget, agent.short_term
    return {
        "model": agent.model.name,
        "instructions": agent.instructions,
        "budget": {
            "steps": budget.steps,
            "calls": budget.calls,
            "tokens": budget.tokens,
            "money": None if budget.money is None else str(budget.money),
            "seconds": budget.seconds,
        },
        "short_term": {"most_tokens": short.most_tokens, "summarise": short.summarise, "summary_tokens": short.summary_tokens},
        "planner": None
        if agent.planner is None
        else {"most_tasks": agent.planner.most_tasks, "revise": agent.planner.revise, "max_new_tokens": agent.planner.max_new_tokens},
        "remembered": agent.remembered,
        "check": agent.check is not None,
        "most_rejections": agent.most_rejections,
        "most_unclear": agent.most_unclear,
        "max_new_tokens": agent.sampling.max_new_tokens,
        "price": None if agent.price is None else agent.price.model_dump(mode="json"),
    }


def _least(one: Any, other: Any) -> Any:
    """The smaller of two limits, where None is no limit."""
    return other if one is None else one if other is None else min(one, other)

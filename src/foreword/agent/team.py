"""Several agents on one goal: a supervisor that hands tasks to workers, or peers that debate.

What they say to each other are typed messages, each a step of the trace. They share one budget: whoever asks, the team pays.

A debate goes as in Du et al. 2023 ("Improving Factuality and Reasoning in Language Models through Multiagent Debate"): everybody answers,
then reads the others' answers and answers again, for some rounds; the answer given most often is the team's.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import JsonValue

from foreword.agent.agent import (
    RECORD_FORMAT,
    Agent,
    AgentBudget,
    AgentResult,
    Event,
    Status,
    Watch,
    check_goal,
    check_money,
    encodable,
    own_account,
    recorded,
)
from foreword.errors import BudgetSpent, ConfigError, ServingError, ToolError, WindowError
from foreword.prompting.final_answer import final_answer, vote_key
from foreword.prompting.strategy import Run, together
from foreword.prompting.tool import Tool, Tools
from foreword.prompting.voting import Ballots
from foreword.telemetry.trace import Tracer
from foreword.types import Completion, Message, Sampling, Usage

DELEGATE = "delegate"
WORK_SECONDS = 86_400.0
"""A worker is held to the team's budget, not to the time that a tool has."""
MOST_WORKERS, MOST_ROUNDS = 16, 10
MOST_TASK, MOST_SHOWN = 8_000, 4_000

MessageKind = Literal["task", "result", "failure", "opinion", "decision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMessage:
    """What one agent says to another. Attributes: reply_to: the id of the message that it answers; 0 for none."""

    id: int
    sender: str
    recipient: str
    kind: MessageKind
    content: str
    reply_to: int = 0


class Mail:
    """The messages of one piece of work, in order, each a step of its trace."""

    def __init__(self, tracer: Tracer, watch: Watch | None = None) -> None:
        self.sent: list[TeamMessage] = []
        self._tracer, self._watch = tracer, watch

    def send(self, sender: str, recipient: str, kind: MessageKind, content: str, *, reply_to: int = 0) -> TeamMessage:
        """Sends a message."""
        content = encodable(content)
        message = TeamMessage(id=len(self.sent) + 1, sender=sender, recipient=recipient, kind=kind, content=content, reply_to=reply_to)
        self.sent.append(message)
        attributes = {"id": message.id, "sender": sender, "recipient": recipient, "content": content, "reply_to": reply_to}
        with self._tracer.span("message", kind, attributes):
            pass
        if self._watch is not None:
            self._watch(Event(agent=sender, step=0, kind="message", text=f"to {recipient} ({kind}): {content}"))
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """An agent that takes tasks. Attributes: description: what it is good for, told to the supervisor."""

    agent: Agent
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """A supervisor with workers. Its own tools stay its own; it delegates with the tool `delegate`."""

    supervisor: Agent
    workers: tuple[Worker, ...]

    async def run(self, goal: str, *, run_id: str | None = None) -> AgentResult:
        """Works towards a goal. The result is the supervisor's, and what it took is the whole team's.

        Raises:
            ConfigError: there is no goal or no worker, there are too many, or two have one name.
        """
        goal = check_goal(goal)
        boss, members = self.supervisor, [worker.agent for worker in self.workers]
        names = _unique_names(members, least=1)
        check_money(boss.budget, (boss, *members))
        run, run_id = own_account(boss), run_id or secrets.token_hex(8)
        mail = Mail(run.tracer, boss.watch)
        tool = _delegate(boss.name, dict(zip(names, self.workers, strict=True)), run, mail, run_id)
        return await recorded(replace(boss, tools=Tools.of([*boss.tools, tool])), goal, run, run_id)


def _delegate(boss: str, workers: Mapping[str, Worker], run: Run, mail: Mail, run_id: str) -> Tool:
    async def delegate(arguments: Mapping[str, Any]) -> str:
        name, task = arguments.get("worker"), arguments.get("task")
        worker = workers.get(name) if isinstance(name, str) else None
        if worker is None or not isinstance(name, str):
            raise ToolError(f"There is no worker `{str(name)[:64]}`. Workers: {', '.join(workers)}.")
        if not isinstance(task, str) or not 0 < len(task.strip()) <= MOST_TASK:
            raise ToolError(f"A task is a text of 1 to {MOST_TASK:,} characters that says all that the worker has to know.")
        sent = mail.send(boss, name, "task", task)
        outcome = await worker.agent.work_for(task, run, run_id)
        met = outcome.status == "goal-met"
        said = outcome.text if met else f"{outcome.status}: {outcome.reason}" + (f"\nSo far: {outcome.text}" if outcome.text else "")
        mail.send(name, boss, "result" if met else "failure", said, reply_to=sent.id)
        if not met:
            raise ToolError(f"{name} did not finish. {said}")
        return said

    known = "; ".join(f"{name} ({' '.join(worker.description.split())})" for name, worker in workers.items())
    return Tool(
        name=DELEGATE,
        description=f"Hands a task to a worker and returns what it found. The worker knows only what the task says. Workers: {known}.",
        parameters={
            "type": "object",
            "properties": {"worker": {"type": "string", "enum": list(workers)}, "task": {"type": "string"}},
            "required": ["worker", "task"],
        },
        call=delegate,
        seconds=WORK_SECONDS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Debate:
    """Peers that answer, read each other, and answer again.

    Attributes:
        peers: at least two; only their models, names, instructions, sampling and prices count here.
        rounds: of answers, the first one included.
        budget: of all together; a round is a step.
    """

    peers: tuple[Agent, ...]
    rounds: int = 2
    name: str = "debate"
    budget: AgentBudget = field(default_factory=AgentBudget)
    watch: Watch | None = None

    async def run(self, goal: str, *, run_id: str | None = None) -> AgentResult:
        """Debates until the rounds are over, all agree, or the budget is spent.

        Raises:
            ConfigError: there is no goal, there are fewer than two peers or too many, or two have one name.
        """
        goal = check_goal(goal)
        _unique_names(self.peers, least=2)
        check_money(self.budget, self.peers)
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise ConfigError(f"A debate has 1 to {MOST_ROUNDS} rounds; got {self.rounds}.")
        return await _Debating(self, goal, run_id or secrets.token_hex(8)).go()


class _Debating:
    """One debate under way."""

    def __init__(self, debate: Debate, goal: str, run_id: str) -> None:
        self._debate, self._goal, self._run_id = debate, goal.strip(), run_id
        self._tracer = Tracer()
        first = debate.peers[0]
        # Adds up what the peers' own runs take; it never asks itself.
        price = first.price or next((peer.price for peer in debate.peers if peer.price), None)
        self._run = Run(first.model, budget=debate.budget.budget(), price=price, tracer=self._tracer)
        self._mail = Mail(self._tracer, debate.watch)
        self._answers: dict[str, str] = {}
        self._notes: list[str] = []
        self._rounds = 0

    async def go(self) -> AgentResult:
        began = time.perf_counter()
        status: Status = "goal-met"
        reason = ""
        with self._tracer.outermost(), self._tracer.span("run", self._debate.name) as span:
            span.set(format=RECORD_FORMAT, id=self._run_id, goal=self._goal, **_debate_described(self._debate))
            try:
                await self._all_rounds()
            except BudgetSpent as error:
                status, reason = "budget", str(error)
            text = self._decided()
            if status == "goal-met" and not self._answers:
                status, reason = "failed", "No peer gave an answer: " + "; ".join(self._notes)
            if reason:
                span.failed(reason)
            run = self._run
            notes: list[JsonValue] = [*self._notes]
            cost = None if run.cost is None else str(run.cost)
            span.set(
                status=status, text=text, reason=reason, steps=self._rounds, calls=run.calls, tokens=run.tokens, cost=cost, notes=notes
            )
        return AgentResult(
            text=text,
            status=status,
            reason=reason,
            steps=self._rounds,
            calls=run.calls,
            usage=Usage(prompt_tokens=run.prompt_tokens, completion_tokens=run.completion_tokens, prefix_positions=run.prefix_positions),
            cost=run.cost,
            seconds=time.perf_counter() - began,
            notes=tuple(self._notes),
            trace=self._tracer.trace(),
        )

    async def _all_rounds(self) -> None:
        most = min(self._debate.rounds, self._debate.budget.steps)
        while self._rounds < most:
            self._rounds += 1
            peers = self._debate.peers
            answers = await together([self._opinion(peer, dict(self._answers)) for peer in peers])
            for peer, answer in zip(peers, answers, strict=True):
                if answer:
                    self._answers[peer.name] = answer
                    self._mail.send(peer.name, "everybody", "opinion", answer)
            if len(self._answers) == len(peers) and len({vote_key(final_answer(answer)) for answer in self._answers.values()}) == 1:
                return

    async def _opinion(self, peer: Agent, before: Mapping[str, str]) -> str:
        run = Run(peer.model, sampling=_own_seed(peer.sampling, peer.name), budget=self._run.left(), price=peer.price, tracer=self._tracer)
        try:
            completion: Completion = await run.ask(self._asked(peer, before), purpose=f"{peer.name}, round {self._rounds}")
        except (WindowError, ServingError) as error:
            self._notes.append(f"{peer.name} gave no answer in round {self._rounds}: {error}")
            return ""
        finally:
            self._run.charge(run)
        return completion.text.strip()

    def _asked(self, peer: Agent, before: Mapping[str, str]) -> tuple[Message, ...]:
        form = "Explain shortly, and end with a line `Answer: ...`."
        system = [Message(role="system", content=peer.instructions)] if peer.instructions else []
        if not before:
            return (*system, Message(role="user", content=f"{self._goal}\n\n{form}"))
        said = [f"{name} says:\n{text[:MOST_SHOWN]}" for name, text in before.items() if name != peer.name]
        others = "\n\n".join(said) or "Nobody else answered."
        own = before.get(peer.name, "(nothing)")
        reply = f"{others}\n\nLook at these answers and at your own, and answer once more. {form}"
        question = Message(role="user", content=f"{self._goal}\n\n{form}")
        return (*system, question, Message(role="assistant", content=own[:MOST_SHOWN]), Message(role="user", content=reply))

    def _decided(self) -> str:
        """The answer given most often; among equals the one that was given first."""
        ballots = Ballots()
        for answer in self._answers.values():
            ballots.add(final_answer(answer))
        leader = ballots.leader
        if leader is None:
            return ""
        winner, count = ballots.said[leader], ballots.counts[leader]
        self._mail.send(self._debate.name, "everybody", "decision", f"{winner} ({count} of {ballots.total})")
        if count < ballots.total:
            self._notes.append(f"{count} of {ballots.total} peers gave this answer.")
        return winner


def _own_seed(sampling: Sampling, name: str) -> Sampling:
    """Peers that share model and instructions would otherwise say the same at any temperature."""
    return replace(sampling, seed=(sampling.seed + sum(name.encode()) * 7919) % (1 << 31))


def _unique_names(agents: Sequence[Agent], *, least: int) -> list[str]:
    names = [agent.name for agent in agents]
    if not least <= len(names) <= MOST_WORKERS:
        raise ConfigError(f"A team has {least} to {MOST_WORKERS} members besides whoever leads it; this one has {len(names)}.")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise ConfigError(f"Two members of a team are named `{doubled[0]}`. Give each a name of its own.")
    return names


def _debate_described(debate: Debate) -> dict[str, Any]:
    """What a replay has to know of a debate."""
    return {
        "model": ", ".join(dict.fromkeys(peer.model.name for peer in debate.peers)),
        "rounds": debate.rounds,
        "peers": [{"name": peer.name, "instructions": peer.instructions} for peer in debate.peers],
        "budget": {"steps": debate.budget.steps},
    }

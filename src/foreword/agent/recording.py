"""A recorded piece of work: its trace as JSON lines, whose first step says what the agent was. It can be read again step by step, and it
can be done again with the recorded answers and observations, without a model and without touching anything.

Done again, the same agent does the same; where it does not, the first difference is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from foreword.agent.agent import RECORD_FORMAT, Agent, AgentBudget, AgentResult
from foreword.agent.planner import Planner
from foreword.agent.recorded_parts import (
    Diverged,
    Divergence,
    RecordedCheck,
    RecordedMemory,
    RecordedModel,
    RecordedTool,
    Tape,
    reached,
    recorded_tools,
)
from foreword.agent.short_memory import Counts, ShortTerm
from foreword.agent.team import Debate
from foreword.cost.prices import Price
from foreword.errors import DataError
from foreword.telemetry import trace as traces
from foreword.telemetry.trace import Span, Trace
from foreword.types import Sampling


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Budget(_Read):
    steps: int
    calls: int | None = None
    tokens: int | None = None
    money: Decimal | None = None


class _ShortTerm(_Read):
    most_tokens: int
    summarise: bool
    summary_tokens: int


class _Planner(_Read):
    most_tasks: int
    revise: bool
    max_new_tokens: int


class _Peer(_Read):
    name: str
    instructions: str


class Header(_Read):
    """What the first step of a recording says: of the agent or the debate, and of how it ended (nothing where it was cut off)."""

    format: Literal[1]
    id: str
    goal: str
    model: str
    budget: _Budget
    instructions: str = ""
    short_term: _ShortTerm | None = None
    planner: _Planner | None = None
    remembered: int = 5
    check: bool = False
    most_rejections: int = 2
    most_unclear: int = 3
    max_new_tokens: int = 512
    price: Price | None = None
    tools: tuple[RecordedTool, ...] = ()
    counts: Mapping[str, int] = {}
    rounds: int | None = None
    peers: tuple[_Peer, ...] = ()
    status: Literal["goal-met", "budget", "loop", "failed"] | None = None
    text: str = ""
    reason: str = ""
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recorded piece of work. Attributes: name: of the agent or the debate."""

    name: str
    header: Header
    trace: Trace

    @property
    def root(self) -> Span:
        """The step that is the whole work."""
        return self.trace.spans[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """What came of doing a recording again. Attributes: result: None where the work broke off at the divergence."""

    divergence: Divergence | None
    result: AgentResult | None

    @property
    def same(self) -> bool:
        """Whether everything went as recorded."""
        return self.divergence is None


def write(result: AgentResult, path: Path) -> None:
    """Writes a result's trace, whole or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result.trace.write(path)


def read(path: Path) -> Recording:
    """The recording in a file.

    Raises:
        DataError: it cannot be read, or is no recording of an agent.
    """
    trace = traces.read(path)
    if not trace.spans or trace.spans[0].kind != "run" or "format" not in trace.spans[0].attributes:
        raise DataError(f"{path} holds no recorded work of an agent. Give a file that `foreword agent run --trace` wrote.")
    root = trace.spans[0]
    if root.attributes["format"] != RECORD_FORMAT:
        raise DataError(f"{path} has format {root.attributes['format']}, and this version reads {RECORD_FORMAT}. Record it again.")
    try:
        header = Header.model_validate(root.attributes)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise DataError(f"{path}:1 says too little of the agent: {'.'.join(map(str, problem['loc']))}: {problem['msg']}.") from None
    return Recording(name=root.name, header=header, trace=trace)


async def again(recording: Recording) -> Repeated:
    """Does a recorded piece of work again, with the recorded answers, observations, facts and verdicts in the place of the real ones.

    Time is not part of it: where the seconds were what ended the work, it ends where the recording ends. What workers did is part of the
    observations of `delegate` and is not done again.

    Raises:
        DataError: the recorded work was cut off, so that there is no end to compare with.
    """
    header = recording.header
    if header.status is None:
        raise DataError("The recorded work was cut off before its end; it can be shown, but not done again.")
    names = {tool.name for tool in header.tools}
    spans = [span for span in own_spans(recording.trace) if span.kind != "tool" or reached(span, names)]
    tape = Tape(spans, ended_by_budget=header.reason if header.status == "budget" else None, ordered=not header.peers)
    try:
        result = await (_debate(recording, tape) if header.peers else _agent(recording, tape)).run(header.goal, run_id=header.id)
    except Diverged:
        result = None
    divergence = tape.divergence or tape.left_over() or (None if result is None else _difference(header, result))
    return Repeated(divergence=divergence, result=result)


def own_spans(trace: Trace) -> tuple[Span, ...]:
    """The steps that the agent took itself: none that belong to a tool's or a check's own work."""
    inside: dict[int, bool] = {}
    own = []
    for span in trace.spans:
        parent = trace.spans[span.parent - 1] if span.parent is not None else None
        hidden = parent is not None and (inside[parent.id] or parent.kind in ("tool", "check"))
        inside[span.id] = hidden
        if not hidden:
            own.append(span)
    return tuple(own)


def _agent(recording: Recording, tape: Tape) -> Agent:
    header = recording.header
    short = header.short_term
    return Agent(
        model=RecordedModel(header.model, tape),
        name=recording.name,
        instructions=header.instructions,
        tools=recorded_tools(header.tools, tape),
        memory=RecordedMemory(tape) if tape.has("memory", "recall") else None,
        memory_tools=False,
        remembered=header.remembered,
        short_term=ShortTerm() if short is None else ShortTerm(**short.model_dump()),
        count=Counts(known=header.counts),
        planner=None if header.planner is None else Planner(**header.planner.model_dump()),
        check=RecordedCheck(tape) if header.check else None,
        most_rejections=header.most_rejections,
        most_unclear=header.most_unclear,
        budget=AgentBudget(**header.budget.model_dump(), seconds=None),
        sampling=Sampling(max_new_tokens=header.max_new_tokens),
        price=header.price,
    )


def _debate(recording: Recording, tape: Tape) -> Debate:
    header = recording.header
    model = RecordedModel(header.model, tape)
    return Debate(
        peers=tuple(Agent(model=model, name=peer.name, instructions=peer.instructions) for peer in header.peers),
        rounds=header.rounds or 1,
        name=recording.name,
        budget=AgentBudget(steps=header.budget.steps, calls=None, seconds=None),
    )


def _difference(header: Header, result: AgentResult) -> Divergence | None:
    for name in ("status", "text", "steps"):
        recorded, now = getattr(header, name), getattr(result, name)
        if recorded != now:
            return Divergence(where="the result", what=name, recorded=str(recorded), now=str(now))
    return None


def told(span: Span) -> str:
    """One step in a line or a few, for reading."""
    attributes = span.attributes
    if span.kind == "run":
        return f"{span.name}: {attributes.get('goal', '')}"
    if span.kind == "call":
        said = str(attributes.get("text", "")).strip() or (f"[{span.message}]" if span.message else "[nothing]")
        return f"{attributes.get('purpose', '')}: {said}"
    if span.kind == "tool":
        return f"{span.name} {attributes.get('arguments', '')}\n→ {attributes.get('observation', span.message)}"
    if span.kind == "plan":
        return "\n".join(_task_lines(attributes.get("tasks"))) or str(attributes.get("note", ""))
    if span.kind == "memory":
        return _memory_line(span)
    if span.kind == "message":
        if "sender" in attributes:
            return f"{attributes['sender']} to {attributes.get('recipient')} ({span.name}): {attributes.get('content')}"
        return str(attributes.get("problem", span.message))
    return f"{span.name}: {attributes.get('score', '')} {attributes.get('reason', span.message)}".rstrip()


def _task_lines(tasks: JsonValue) -> list[str]:
    rows: Sequence[Any] = tasks if isinstance(tasks, list) else ()
    return [f"{row.get('priority')}. [{row.get('status')}] {row.get('text')}" for row in rows if isinstance(row, dict)]


def _memory_line(span: Span) -> str:
    facts = span.attributes.get("facts")
    if isinstance(facts, list):
        texts = [str(fact.get("text")) for fact in facts if isinstance(fact, dict)]
        return "recalled: " + ("; ".join(texts) or "nothing")
    return f"{span.attributes.get('fallen', 0)} steps fell out; summary: {span.attributes.get('summary') or 'none'}"

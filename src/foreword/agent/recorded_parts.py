"""The parts of an agent played from a recording: model, tools, memory and check."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from foreword.agent.facts import Fact, Provenance, Recalled
from foreword.errors import AgentError, BudgetSpent, ServingError, ToolError, WindowError
from foreword.prompting.tool import MOST_ARGUMENTS, Tool, Tools
from foreword.prompting.verifier import Ask, Verdict
from foreword.telemetry.trace import Kind, Span
from foreword.types import Completion, FinishReason, Message, Sampling, Usage

NO_LIMIT = 1 << 40
AROUND = 80
"""Characters shown where two texts begin to differ."""
_ERRORS: Mapping[str, type[Exception]] = {"WindowError": WindowError, "BudgetSpent": BudgetSpent}


class Diverged(AgentError):
    """The work is no longer what was recorded."""


class RecordedTool(BaseModel):
    """A tool as a recording describes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    description: str
    parameters: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where work done again differs from what was recorded.

    Attributes:
        where: at which step.
        what: differs there.
        recorded, now: the two, from shortly before the first difference on.
    """

    where: str
    what: str
    recorded: str
    now: str


class Tape:
    """The recorded steps, played in their order, each once."""

    def __init__(self, spans: Sequence[Span], *, ended_by_budget: str | None = None, ordered: bool = True) -> None:
        """Args: ended_by_budget: why, where it did; ordered: whether calls were made one after the other."""
        self.divergence: Divergence | None = None
        self._spans = list(spans)
        self._ended_by_budget, self._ordered = ended_by_budget, ordered

    def has(self, kind: Kind, name: str) -> bool:
        """Whether there is such a step."""
        return any(span.kind == kind and span.name == name for span in self._spans)

    def left_over(self) -> Divergence | None:
        """The first recorded call of the model that was not made again."""
        span = next((span for span in self._spans if span.kind == "call"), None)
        if span is None:
            return None
        return Divergence(where=_place(span), what="the call is not made", recorded=str(span.attributes.get("text", "")), now="")

    def take(self, kind: Kind, fits: Callable[[Span], bool], now: str, recorded: Callable[[Span], str]) -> Span:
        """The next step of a kind. Raises `Diverged` where it does not fit, `BudgetSpent` where the recording ends so.

        Args:
            now, recorded: what is wanted and what a step was, to be compared where they differ.
        """
        ahead = [span for span in self._spans if span.kind == kind]
        found = next((span for span in (ahead[:1] if self._ordered else ahead) if fits(span)), None)
        if found is not None:
            self._spans.remove(found)
            return found
        if not ahead and self._ended_by_budget is not None:
            raise BudgetSpent(self._ended_by_budget)
        if self.divergence is None:
            self.divergence = _compared(ahead[0], recorded(ahead[0]), now) if ahead else _added(kind, now)
        raise Diverged(f"The work differs from the recording at {self.divergence.where}.")


def _added(kind: Kind, now: str) -> Divergence:
    return Divergence(where="the end of the recording", what=f"another {kind}", recorded="", now=now[: 2 * AROUND])


def _compared(span: Span, recorded: str, now: str) -> Divergence:
    same = next(
        (index for index, (one, other) in enumerate(zip(recorded, now, strict=False)) if one != other), min(len(recorded), len(now))
    )
    start = max(0, same - AROUND // 2)
    what = {"call": "the prompt", "tool": "the call"}.get(span.kind, "what is looked at")
    return Divergence(where=_place(span), what=what, recorded=recorded[start : same + AROUND], now=now[start : same + AROUND])


def _place(span: Span) -> str:
    purpose = span.attributes.get("purpose") or span.attributes.get("step")
    return f"{span.kind} {span.id} ({span.name}{f', {purpose}' if purpose else ''})"


class RecordedModel:
    """Gives the recorded answers. Meets `foreword.prompting.model.Model`."""

    def __init__(self, name: str, tape: Tape) -> None:
        self.name = name
        self._tape = tape

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """The recorded answer, or the recorded failure. Raises `Diverged` where the prompt is another."""
        prompt = [{"role": message.role, "content": message.content} for message in conversation]
        span = self._tape.take(
            "call", lambda span: span.attributes.get("prompt") == prompt, _shown(prompt), lambda span: _shown(span.attributes["prompt"])
        )
        if span.status != "ok":
            raise _ERRORS.get(str(span.attributes.get("error")), ServingError)(span.message)
        numbers = {name: int(str(span.attributes.get(name, 0))) for name in ("prompt_tokens", "completion_tokens", "prefix_positions")}
        reason: FinishReason = "length" if span.attributes.get("finish_reason") == "length" else "stop"
        return Completion(
            text=str(span.attributes.get("text", "")), token_ids=(), usage=Usage(**numbers), finish_reason=reason, seconds=span.seconds
        )

    async def close(self) -> None:
        """Nothing was started."""


def _shown(prompt: Any) -> str:
    return "\n\n".join(f"[{message['role']}] {message['content']}" for message in prompt) if isinstance(prompt, list) else ""


def recorded_tools(tools: Sequence[RecordedTool], tape: Tape) -> Tools:
    """Tools that give the recorded observations."""
    return Tools.of(_recorded_tool(tool, tape) for tool in tools)


def _recorded_tool(tool: RecordedTool, tape: Tape) -> Tool:
    async def call(arguments: Mapping[str, Any]) -> str:
        def fits(span: Span) -> bool:
            return span.name == tool.name and _object(span.attributes.get("arguments")) == dict(arguments)

        now = f"{tool.name} {json.dumps(dict(arguments), ensure_ascii=False)}"
        span = tape.take("tool", fits, now, lambda span: f"{span.name} {span.attributes.get('arguments')}")
        text = str(span.attributes.get("observation", span.message))
        if not span.attributes.get("ok", False):
            raise ToolError(text)
        return text

    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        call=call,
        seconds=float(NO_LIMIT),
        most_characters=NO_LIMIT,
    )


def reached(span: Span, names: Collection[str]) -> bool:
    """Whether a recorded call came as far as its tool: there is one of that name, and the arguments were an object."""
    arguments = span.attributes.get("arguments")
    fits = isinstance(arguments, str) and len(arguments) <= MOST_ARGUMENTS
    return span.name in names and fits and isinstance(_object(arguments), dict)


def _object(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError, RecursionError):
        return None


class RecordedMemory:
    """Gives the recorded facts. Meets `Memory`."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def remember(self, text: str, *, importance: float = 0.5, provenance: Provenance | None = None) -> Fact:
        """Not called: the tools of a memory are recorded as tools."""
        raise AgentError("A recorded memory takes no new facts.")

    def recall(self, question: str, *, most: int = 5) -> list[Recalled]:
        """The recorded facts."""
        span = self._tape.take(
            "memory",
            lambda span: span.attributes.get("question") == question,
            question,
            lambda span: str(span.attributes.get("question", "")),
        )
        facts = span.attributes.get("facts")
        return [_recalled(fact) for fact in facts if isinstance(fact, dict)] if isinstance(facts, list) else []


def _recalled(row: Mapping[str, Any]) -> Recalled:
    provenance = Provenance(source=str(row.get("source", "")))
    fact = Fact(id=int(row.get("id", 0)), text=str(row.get("text", "")), importance=0.0, provenance=provenance, made=0.0, used=0.0)
    return Recalled(fact=fact, score=0.0, relevance=0.0, recency=0.0)


class RecordedCheck:
    """Gives the recorded verdicts. Meets `Verify`."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    async def __call__(self, conversation: Sequence[Message], answer: str, ask: Ask) -> Verdict:
        """The recorded verdict."""
        span = self._tape.take(
            "check", lambda span: span.attributes.get("answer") == answer, answer, lambda span: str(span.attributes.get("answer", ""))
        )
        if span.status != "ok" and "score" not in span.attributes:
            raise _ERRORS.get(str(span.attributes.get("error")), ServingError)(span.message)
        return Verdict(score=float(str(span.attributes.get("score", 0))), reason=str(span.attributes.get("reason", "")))

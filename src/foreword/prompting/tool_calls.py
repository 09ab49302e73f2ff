"""How a model is told of tools, and what it said: a thought, then a call of a tool or the final answer.

The form asked for is that of ReAct (Yao et al. 2022), with the arguments as JSON:

    Thought: I need the product.
    Action: calculator
    Action Input: {"expression": "6 * 7"}

and, once the answer is known, `Final Answer: 42`. Models say the same in many other ways (`Action: calculator[6 * 7]`,
`{"tool": "calculator", "arguments": {...}}`, `<tool_call>...</tool_call>`), and `parse` understands those too.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from foreword.prompting.tool import Observation, Tool, Tools
from foreword.telemetry.trace import Tracer

STOP: tuple[str, ...] = ("\nObservation:",)
"""At these texts the model is to be stopped: what follows is for the tool to say."""
MOST_TEXT = 100_000
"""Characters of an answer that are looked at."""
MOST_STARTS = 64
"""Braces of an answer at which JSON is tried."""
MOST_TRACED = 2_000
"""Characters of a call's arguments, and of what came of it, that a trace keeps."""
MOST_LITERAL = 4_000
"""Characters that are read as Python's literals where they are no JSON."""

_FORM = """Thought: what you need to do next
Action: the name of one tool
Action Input: the tool's arguments as one JSON object"""
_FINAL_FORM = """Thought: why you know the answer
Final Answer: the answer"""

_MARK = re.compile(
    r"^[ \t>*_#-]{0,16}(thought|action[ _]input|action|arguments|input|observation|final[ _]answer|answer)"
    r"(?:[ \t]\d{1,3})?[ \t]?[*_]{0,3}[ \t]?[:：][ \t*_]{0,8}",
    re.IGNORECASE | re.MULTILINE,
)
_FINISH = re.compile(r"^[ \t>*_`-]{0,16}finish[ \t]?[\[(]", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"```[a-z]{0,12}[ \t]*\n?", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
_TAG = "<tool_call>"
_INPUTS = ("action input", "arguments", "input")
_FINALS = ("final answer", "answer")
_TOOL_KEYS = ("tool", "tool_name", "action", "function", "name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "action_input", "tool_input", "input")
_FINAL_KEYS = ("final_answer", "final", "answer")
_FINISHES = ("finish", "final_answer", "final answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a model said.

    Attributes:
        thought: what it said before the call or the answer; all of it where there is neither.
        tool: the name of the tool that it calls; None where it calls none.
        arguments: of the call, as they were given: JSON where it was JSON, any text otherwise (see `fitted`).
        final: its final answer; None where it gives none.
        problem: why there is neither a call nor an answer, in words for the model; empty where there is one.
    """

    thought: str
    tool: str | None
    arguments: str
    final: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A labelled part of a text: `Action: ...`."""

    label: str
    body: str
    start: int
    offset: int


def describe(tools: Tools) -> str:
    """What a model is told of tools: a line of name and description, and a line with the JSON schema of the arguments, for each."""
    lines = []
    for tool in tools:
        schema = json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))
        lines.append(f"- {tool.name}: {' '.join(tool.description.split())}\n  Arguments: {schema}")
    return "\n".join(lines)


def instructions(tools: Tools) -> str:
    """The tools and the form of a call and of an answer, for a system message."""
    if not len(tools):
        return f"Answer in this form:\n{_FINAL_FORM}"
    return (
        f"You can use these tools:\n{describe(tools)}\n\nTo use one, write\n{_FORM}\n\n"
        "and stop there. You are then told what came of it, as `Observation: ...`, and go on. Use one tool at a time.\n"
        f"When you know the answer, or no tool is of use, write\n{_FINAL_FORM}"
    )


def parse(text: str) -> Step:
    """What a model said, in whichever of the usual forms. Never raises; of several calls and answers the first one counts.

    What the model makes up as an observation, and everything after it, is not looked at.
    """
    text = text[:MOST_TEXT]
    thinking, end, rest = text.rpartition("</think>")
    thought, text = (thinking.removeprefix("<think>").strip(), rest) if end else ("", text)
    text = _before_observation(text)
    parts = _parts(text)
    first = next((part for part in parts if part.label == "action" or part.label in _FINALS), None)
    tag = text.find(_TAG)
    if tag >= 0 and (first is None or tag < first.start):
        step = _said_in_json(text, tag + len(_TAG), _cleaned(text[:tag]))
        step = step or _unclear(text, "What stands in `<tool_call>` is no JSON object with a name and arguments.")
    elif first is None:
        step = _finished(text) or _said_in_json(text, 0, None) or _unclear(text, "There is neither a call of a tool nor a final answer.")
    elif first.label == "action":
        step = _acted(text, parts, first)
    else:
        step = _answered(text, parts, first)
    return step if not thought else replace(step, thought=f"{thought}\n{step.thought}".strip())


def parse_calls(text: str) -> tuple[Step, ...]:
    """All calls of an answer that may make several at once, as one JSON list, or as objects or tags one after the other.

    An answer in the form of `parse` makes one at most; one that makes none gives none.
    """
    step = parse(text)
    if step.tool is None:
        return ()
    found = (_from_object(value, "", "") for _, value in _objects(_before_observation(text[:MOST_TEXT].rpartition("</think>")[2]), 0))
    several = tuple(one for one in found if one is not None and one.tool is not None)
    return several if len(several) > 1 else (step,)


def fitted(arguments: str, tool: Tool) -> str:
    """The arguments as a JSON object where they are none yet: a bare text is the value of a tool's one parameter.

    Args:
        arguments: `Step.arguments`.
    """
    stripped = arguments.strip()
    value = _value(stripped)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    name, kind = _only_parameter(tool)
    if name is None:
        return "{}" if not stripped else arguments
    if kind == "string" and not isinstance(value, str):
        return json.dumps({name: stripped}, ensure_ascii=False) if stripped else arguments
    return json.dumps({name: stripped if value is None else value}, ensure_ascii=False) if stripped else arguments


async def carried_out(step: Step, tools: Tools, tracer: Tracer) -> Observation:
    """Calls the tool that a step names, as a step of the trace. Never raises, except when it is cancelled."""
    name = step.tool or ""
    tool = tools.by_name.get(name)
    arguments = step.arguments if tool is None else fitted(step.arguments, tool)
    with tracer.span("tool", name[:128], {"arguments": arguments[:MOST_TRACED]}) as span:
        observation = await tools.call(name, arguments)
        span.set(ok=observation.ok, text=_encodable(observation.text[:MOST_TRACED]))
        if not observation.ok:
            span.failed(_encodable(observation.text[:MOST_TRACED]))
    return observation


def call_key(step: Step) -> tuple[str, str]:
    """What two calls share that are the same: the tool, and the arguments whatever their spacing and order."""
    value = _value(step.arguments.strip())
    try:
        return step.tool or "", step.arguments.strip() if value is None else json.dumps(value, sort_keys=True)
    except (RecursionError, TypeError):
        return step.tool or "", step.arguments.strip()


def _only_parameter(tool: Tool) -> tuple[str | None, str]:
    """The parameter that a bare value is meant for: the only one, or the only one that must be given."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        return None, ""
    required = [name for name in tool.parameters.get("required") or () if name in properties]
    names = required if len(required) == 1 else list(properties)
    if len(names) != 1:
        return None, ""
    schema = properties[names[0]]
    return names[0], str(schema.get("type", "")) if isinstance(schema, Mapping) else ""


def _before_observation(text: str) -> str:
    for found in _MARK.finditer(text):
        if found[1].lower() == "observation" and text[: found.start()].strip():
            return text[: found.start()]
    return text


def _parts(text: str) -> list[_Part]:
    found = list(_MARK.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [
        _Part(match[1].lower().replace("_", " "), text[match.end() : end].strip(), match.start(), match.end())
        for match, end in zip(found, ends, strict=False)
    ]


def _answered(text: str, parts: list[_Part], part: _Part) -> Step:
    # A line of the answer may well begin with `Input:`; only a new thought or action ends it.
    end = next((later.start for later in parts if later.start > part.start and later.label in ("thought", "action")), len(text))
    final = text[part.offset : end].strip()
    if not final:
        return _unclear(text, f"`{part.label.title()}:` has nothing after it.")
    return _step(_cleaned(text[: part.start]), final=final)


def _acted(text: str, parts: list[_Part], part: _Part) -> Step:
    thought = _cleaned(text[: part.start])
    if part.body.startswith(("{", "```", _TAG)):
        step = _said_in_json(text, part.offset, thought)
        if step is not None:
            return step
    given = next((later for later in parts if later.start > part.start and later.label in (*_INPUTS, "action")), None)
    apart = given.body if given is not None and given.label in _INPUTS else None
    name, within = _named(part.body)
    if name is None:
        return _unclear(text, f"`Action:` must be followed by the name of one tool; it is followed by `{part.body[:80]}`.")
    arguments = _first_object(_unfenced(apart if apart is not None else within))
    if name.lower() in _FINISHES:
        return _final(thought, arguments, text)
    return _step(thought, tool=name, arguments=arguments)


def _named(body: str) -> tuple[str | None, str]:
    """The tool's name and what stands in its brackets: `search[tea]`, `search(query="tea")`, `search`, `search: tea`."""
    found = _NAME.match(body := body.lstrip("`*\"' \t"))
    if found is None:
        return None, ""
    name, rest = found[0].rstrip(".:/-"), body[found.end() :].strip("`*\"' \t\n.")
    if not rest:
        return name, ""
    closing = {"[": "]", "(": ")"}.get(rest[0])
    if closing is None:
        spaced = rest.startswith("{") or found[0].endswith(":") or "\n" in body[found.end() : found.end() + 2]
        return (name, rest) if spaced else (None, "")
    within = rest[1 : rest.rfind(closing)] if closing in rest else rest[1:]
    return name, _keywords(within.strip()) if closing == ")" else within.strip()


def _keywords(within: str) -> str:
    """`a=1, b="x"` as JSON; anything else as it is."""
    if "=" not in within or len(within) > MOST_LITERAL:
        return within
    try:
        call = ast.parse(f"call({within})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            return within
        return json.dumps({keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}, ensure_ascii=False)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return within


def _finished(text: str) -> Step | None:
    """`Finish[42]` on a line of its own, without `Action:`."""
    found = _FINISH.search(text)
    if found is None:
        return None
    closing = "]" if found[0].endswith("[") else ")"
    end = text.rfind(closing)
    return _final(_cleaned(text[: found.start()]), text[found.end() : end if end > found.end() else len(text)], text)


def _final(thought: str, said: str, text: str) -> Step:
    value = _value(said.strip())
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
        said = said if isinstance(value, Mapping | list) else str(value)
    final = (value if isinstance(value, str) else said).strip()
    return _step(thought, final=final) if final else _unclear(text, "The final answer is empty.")


def _said_in_json(text: str, start: int, thought: str | None) -> Step | None:
    """The first object of the text, from `start` on, that is a call or an answer."""
    for place, found in _objects(text, start):
        step = _from_object(found, _cleaned(text[:place]) if thought is None else thought, text)
        if step is not None:
            return step
    return None


def _objects(text: str, start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = json.JSONDecoder()
    place = text.find("{", start)
    for _ in range(MOST_STARTS):
        if place < 0:
            return
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            found, end = _value(_unfenced(text[place:]).removesuffix("</tool_call>").strip()), place + 1
        if isinstance(found, Mapping):
            yield place, found
            end = max(end, place + 1)
        place = text.find("{", end)


def _from_object(found: Mapping[str, Any], thought: str, text: str) -> Step | None:
    named = next(((key, found[key]) for key in _TOOL_KEYS if isinstance(found.get(key), str | Mapping) and found[key]), None)
    said = found.get("thought")
    thought = said.strip() if isinstance(said, str) else thought
    given = next((found[key] for key in _ARGUMENT_KEYS if key in found), None)
    if named is not None:
        key, name = named
        if isinstance(name, Mapping):
            # OpenAI's form, {"function": {"name": ..., "arguments": ...}}; deeper than that nobody nests them.
            return None if any(isinstance(name.get(key), Mapping) for key in _TOOL_KEYS) else _from_object(name, thought, text)
        if name.lower() in _FINISHES:
            return _final(thought, given if isinstance(given, str) else _dumped(given), text)
        if key != "name" or given is not None:
            return _step(thought, tool=name[:128], arguments=given if isinstance(given, str) else _dumped(given))
    final = next((found[key] for key in _FINAL_KEYS if key in found), None)
    return None if final is None else _final(thought, final if isinstance(final, str) else _dumped(final), text)


def _dumped(value: Any) -> str:
    try:
        return "{}" if value is None else json.dumps(value, ensure_ascii=False)
    except RecursionError:  # what can just be read cannot always be written
        return ""


def _value(text: str) -> Any:
    """What a text is as JSON, or as one of Python's literals (models write `{'a': True}`); None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > MOST_LITERAL or not text.startswith(("{", "[")):
        return None
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return value


def _first_object(text: str) -> str:
    """The JSON object that a text begins with, without what the model said after it; the text where it begins with none."""
    if not text.startswith("{"):
        return text
    try:
        return text[: json.JSONDecoder().raw_decode(text)[1]]
    except (ValueError, RecursionError):
        return text


def _unfenced(text: str) -> str:
    """The text without the fence around it."""
    text = text.strip()
    opening = _FENCE.match(text)
    if opening is not None:
        text = text[opening.end() :]
    return text.partition("```")[0].strip()


def _cleaned(thought: str) -> str:
    """A thought without its label, fences and tags."""
    thought = _FENCE.sub("", thought).replace(_TAG, "").strip()
    found = _MARK.match(thought)
    return thought[found.end() :].strip() if found is not None and found[1].lower() == "thought" else thought


def _unclear(text: str, problem: str) -> Step:
    return _step(_cleaned(text), problem=f"{problem} Write\n{_FORM}\n\nor\n{_FINAL_FORM}")


def _step(thought: str, *, tool: str | None = None, arguments: str = "", final: str | None = None, problem: str = "") -> Step:
    return Step(
        thought=_encodable(thought),
        tool=None if tool is None else _encodable(tool),
        arguments=_encodable(arguments),
        final=None if final is None else _encodable(final),
        problem=_encodable(problem),
    )


def _encodable(text: str) -> str:
    # JSON may spell half a surrogate pair (`\\ud800`), which no file and no socket takes.
    return text.encode("utf-8", "replace").decode("utf-8")

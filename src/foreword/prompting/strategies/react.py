"""`react`: thoughts and calls of tools in turn, until the model gives its final answer.

Yao et al. 2022, ReAct: Synergizing Reasoning and Acting in Language Models, section 2; without demonstrations, for a model that follows
instructions. What a tool says comes as the user's turn, so that the chat template parts it from what the model says.
"""

from __future__ import annotations

from pydantic import Field

from foreword.errors import ConfigError, StrategyError
from foreword.prompting import tool_calls
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.tool_calls import Step
from foreword.prompting.turns import followed_by, with_system
from foreword.types import Message


class Settings(StrategySettings):
    """How long it goes on.

    Attributes:
        steps: calls of the model at most; the last one is told to answer.
        most_problems: turns at most that are neither a call nor an answer, or call what was called before with the same arguments.
        most_characters: of what a tool says; what is more is cut.
    """

    steps: int = Field(default=8, ge=1, le=1_000)
    most_problems: int = Field(default=3, ge=0)
    most_characters: int = Field(default=4_000, ge=1)


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Up to `steps` calls of the model, and a call of a tool after each but the last.

    Raises:
        ConfigError: there are no tools.
        StrategyError: there is no final answer after all steps, or there were too many problems; the last thought is the best answer.
    """
    tools = run.resources.tools
    if not len(tools):
        raise ConfigError("`react` calls tools, and there are none. Give some, or ask with `cot`.")
    said = with_system(conversation, tool_calls.instructions(tools))
    done: dict[tuple[str, str], str] = {}
    problems = 0
    last = ""
    for number in range(1, settings.steps + 1):
        completion = await run.ask(said, purpose="step", stop=tool_calls.STOP)
        text = completion.text.partition(tool_calls.STOP[0])[0].strip()
        step = tool_calls.parse(text)
        if step.final is not None:
            return Draft(text=step.final, note=f"{len(done)} calls of tools in {number} steps")
        if step.thought:
            run.keep(Draft(text=step.thought, note="no final answer"))
        observation, is_problem = await _observed(step, done, run)
        problems += is_problem
        if problems > settings.most_problems:
            raise StrategyError(
                f"`react` ended after {problems} turns of the model that led nowhere. The last one: {_first_line(observation)}"
            )
        last = _first_line(observation)
        said = followed_by(said, text, _told(observation, settings, is_last=number == settings.steps - 1))
    raise StrategyError(f"`react` has no final answer after {settings.steps} steps. The last observation: {last} Allow more `steps`.")


async def _observed(step: Step, done: dict[tuple[str, str], str], run: Run) -> tuple[str, bool]:
    """What the model is told of its step, and whether the step led nowhere."""
    if step.tool is None:
        return step.problem, True
    key = tool_calls.call_key(step)
    if key in done:
        return (
            f"You have called `{step.tool}` with these arguments before, and it said: {done[key]}\nGo on from that, or do something else.",
            True,
        )
    observation = await tool_calls.carried_out(step, run.resources.tools, run.tracer)
    done[key] = observation.text
    return observation.text, False


def _told(observation: str, settings: Settings, *, is_last: bool) -> str:
    most = settings.most_characters
    cut = observation if len(observation) <= most else f"{observation[:most]}\n[cut: {len(observation) - most:,} more characters]"
    return f"Observation: {cut}" + ("\nThis is your last turn. Write `Final Answer:` and the answer." if is_last else "")


def _first_line(observation: str) -> str:
    line = observation.strip().partition("\n")[0][:200]
    return line if line.endswith((".", "!", "?")) else f"{line}."

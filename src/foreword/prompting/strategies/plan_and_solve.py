"""`plan-and-solve`: first a plan, then its steps (Wang et al. 2023).

`single` is the paper's PS+ prompt (section 2.2): plan and solution in one answer. `steps` asks for the plan, for each step, and for the
result in calls of their own, so that a model that loses its way has less to keep in mind.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from foreword.prompting.final_answer import final_answer, marked_answer
from foreword.prompting.strategies._reasoning import STATE, asked_to
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import followed_by, question, with_question
from foreword.types import Message

PLAN_PLUS = (
    "First understand the problem, extract relevant variables and their numbers, and make a plan. Then carry out the plan, calculate "
    f"intermediate results with care, and solve the problem step by step. {STATE}"
)
PLAN = "Do not solve this yet. Write a plan of at most {most} short steps, as a numbered list."
STEP = "{question}\n\n{done}Do only this step now, in one or two sentences: {step}"
RESULT = "{question}\n\n{done}" + STATE

_STEP = re.compile(r"^[ \t]*(?:(?:step[ \t]*)?\d{1,3}[.):]|[-*•])[ \t]+(\S.*)$", re.MULTILINE | re.IGNORECASE)


class Settings(StrategySettings):
    """
    Attributes:
        way: `steps` solves one step in each call, `single` asks once for everything.
        most_steps: of a longer plan, only the first ones are carried out.
    """

    way: Literal["steps", "single"] = "steps"
    most_steps: int = Field(default=6, ge=1, le=100)


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """One call, or two and one for each step."""
    if settings.way == "single":
        return await _at_once(conversation, run)
    with run.tracer.span("plan", "plan-and-solve") as span:
        plan = await run.ask(asked_to(conversation, PLAN.format(most=settings.most_steps)), purpose="plan")
        steps = [step.strip() for step in _STEP.findall(plan.text)]
        span.set(steps=steps)
    if not steps:
        # What the model wrote is no list. It gets its chance in the form that asks for none.
        return await _at_once(conversation, run, note="the model wrote no list of steps; asked for plan and solution at once")
    done = ""
    for number, step in enumerate(steps[: settings.most_steps], start=1):
        asked = with_question(conversation, STEP.format(question=question(conversation), done=done, step=step))
        solved = await run.ask(asked, purpose=f"step {number}")
        done += f"{number}. {step}\n{solved.text.strip()}\n\n"
        run.keep(Draft(text=done.strip(), final=final_answer(solved.text), note=f"{number} of {len(steps)} steps"))
    result = await run.ask(with_question(conversation, RESULT.format(question=question(conversation), done=done)), purpose="result")
    left = len(steps) - settings.most_steps
    note = f"{left} of {len(steps)} steps left out" if left > 0 else ""
    return Draft(text=f"{done}{result.text}", final=final_answer(result.text), note=note)


async def _at_once(conversation: tuple[Message, ...], run: Run, note: str = "") -> Draft:
    asked = asked_to(conversation, PLAN_PLUS)
    completion = await run.ask(asked, purpose="plan and solve")
    marked = marked_answer(completion.text)
    if marked is not None:
        return Draft(text=completion.text, final=marked, note=note)
    run.keep(Draft(text=completion.text, final=final_answer(completion.text), note=note))
    # The paper's second prompt: the answer is asked for where the solution does not state it.
    second = await run.ask(followed_by(asked, completion.text, STATE), purpose="result")
    return Draft(text=f"{completion.text}\n\n{second.text}", final=final_answer(second.text) or final_answer(completion.text), note=note)

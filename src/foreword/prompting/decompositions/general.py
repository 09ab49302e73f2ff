"""`general`: thoughts are steps in free text, one line each; a step that gives the answer after `Answer:` ends the path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foreword.prompting.decomposition import MOST_THOUGHT, State, numbered
from foreword.prompting.final_answer import marked_answer, vote_key

_BULLET = re.compile(r"^\s*(?:(?:(?:step|option|thought)\s*)?[0-9]{1,3}\s*[.):]|step\s*:|[-*•])\s*", re.IGNORECASE | re.ASCII)
_ENDS = "A step that completes the solution ends with `Answer:` and the answer."


def begin(question: str) -> State:
    """Before the first step."""
    return State(question=question)


def propose(state: State, count: int) -> str:
    """Asks for several steps, each of which could be next."""
    return (
        f"{_so_far(state)}\n\nWrite {count} different steps, each of which could be the next one. Write each on a line of its own and "
        f"nothing else. {_ENDS}"
    )


def sample(state: State) -> str:
    """Asks for one step."""
    return f"{_so_far(state)}\n\nWrite the next step only, on one line. {_ENDS}"


def read(state: State, text: str, count: int) -> list[State]:
    """A state for each line, `count` at most; an answer on a line of its own belongs to the step before it."""
    steps: list[str] = []
    for line in text.splitlines():
        step = _BULLET.sub("", line, count=1).strip()[:MOST_THOUGHT]
        if steps and step.lower().startswith("answer:"):
            steps[-1] = f"{steps[-1]} {step}"
        elif step:
            steps.append(step)
        if len(steps) > count:
            break
    thoughts = [(*state.thoughts, step) for step in steps[:count]]
    return [State(question=state.question, thoughts=steps, key=tuple(map(vote_key, steps))) for steps in thoughts]


def judge(state: State) -> str:
    """Asks how likely the steps lead to the right answer."""
    return (
        f"{_so_far(state)}\n\nCan these steps lead to the right answer? Check them briefly. The last line is one word: sure, likely or "
        "impossible."
    )


def vote(states: Sequence[State]) -> str:
    """Asks which state is the best to go on from."""
    choices = numbered([" ".join(state.thoughts) for state in states])
    return (
        f"{states[0].question}\n\nThese are {len(states)} ways to begin a solution:\n{choices}\n\nWhich one is the most promising? Compare "
        "them briefly. The last line is `Best:` and its number."
    )


def finished(state: State) -> bool:
    """Whether the last step gives an answer."""
    return bool(state.thoughts) and marked_answer(state.thoughts[-1]) is not None


def answer(state: State) -> str | None:
    """The steps, where the last one gives an answer."""
    return "\n".join(state.thoughts) if finished(state) else None


def close(state: State) -> str:
    """Asks for the answer; the question alone where there is no step."""
    return f"{_so_far(state)}\n\nGive the answer on a last line that begins with `Answer:`." if state.thoughts else state.question


def _so_far(state: State) -> str:
    if not state.thoughts:
        return state.question
    return f"{state.question}\n\nThe solution so far:\n{numbered(state.thoughts)}"

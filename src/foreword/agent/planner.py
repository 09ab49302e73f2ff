"""A plan: tasks in the order of their priority, looked over again after each observation.

The model writes the plan as a list with boxes (`[ ]` to do, `[>]` under way, `[x]` done, `[-]` dropped). What it writes is read tolerantly;
where it cannot be read, the plan stays as it is, and a note says so. (Task lists with re-prioritisation: Nakajima 2023, BabyAGI.)
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from foreword.errors import WindowError
from foreword.prompting.verifier import Ask
from foreword.types import Message

MOST_TASKS, MOST_CHARACTERS, MOST_SHOWN = 12, 200, 1_500
ALIKE = 0.6
"""Two wordings are the same task from this likeness on (`difflib`'s ratio)."""

Status = Literal["todo", "doing", "done", "dropped"]
_BOXES: dict[Status, str] = {"todo": " ", "doing": ">", "done": "x", "dropped": "-"}
_SPELLINGS: dict[Status, tuple[str, ...]] = {
    "todo": ("", "todo", "to do", "open"),
    "doing": (">", "~", "doing", "in progress"),
    "done": ("x", "✓", "✔", "done", "completed"),
    "dropped": ("-", "dropped", "cancelled"),
}
_STATUSES: dict[str, Status] = {spelling: status for status, spellings in _SPELLINGS.items() for spelling in spellings}
_BOX = r"\[(?P<%s>[^\]\n]{0,12})\][ \t]*"
_LINE = re.compile(rf"^[ \t]*(?:[-*•]|\d{{1,3}}[.):])[ \t]*(?:{_BOX % 'box'})?(?P<text>\S.*)$|^[ \t]*{_BOX % 'bare'}(?P<rest>\S.*)$")
_PRIORITY = re.compile(r"[ \t]*[(\[]\s*p(?:riority)?[ :]*(\d{1,3})\s*[)\]][ \t]*$", re.IGNORECASE)
_FORM = """- [ ] a task that is to be done
- [x] a task that is done
- [-] a task that is not needed any more"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a plan.

    Attributes:
        id: stays with it when the plan changes.
        priority: 1 is to be done first.
    """

    id: int
    text: str
    status: Status = "todo"
    priority: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Tasks in the order of their priority."""

    tasks: tuple[Task, ...] = ()

    def render(self) -> str:
        """The plan as a model reads and writes it."""
        return "\n".join(f"- [{_BOXES[task.status]}] {task.text}" for task in self.tasks)

    def open(self) -> tuple[Task, ...]:
        """What is still to be done."""
        return tuple(task for task in self.tasks if task.status in ("todo", "doing"))

    def rows(self) -> list[dict[str, Any]]:
        """The tasks for a trace."""
        return [{"id": task.id, "text": task.text, "status": task.status, "priority": task.priority} for task in self.tasks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan after the model was asked. Attributes: note: why it is as it was before; empty where it was read."""

    plan: Plan
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes plans and looks them over, with one call of the model each time.

    Attributes:
        most_tasks: of a plan.
        revise: look the plan over after each observation.
        max_new_tokens: of what the model writes.
    """

    most_tasks: int = 8
    revise: bool = True
    max_new_tokens: int = 256

    async def make(self, goal: str, ask: Ask) -> Planned:
        """The first plan. Raises as `Run.ask`."""
        return await self._asked(
            Plan(),
            f"{goal}\n\nWrite a plan: at most {self.most_tasks} short tasks, what is to be done first on top, as\n{_FORM}\n"
            "Write only the list.",
            ask,
        )

    async def revised(self, plan: Plan, goal: str, step: str, ask: Ask) -> Planned:
        """The plan after a step: what is done, what comes first now, what is new. Raises as `Run.ask`."""
        return await self._asked(
            plan,
            f"{goal}\n\nThe plan was:\n{plan.render() or '(none)'}\n\nThe last step:\n{step[:MOST_SHOWN]}\n\n"
            f"Write the plan anew: mark what is done, and put on top what is to be done next; at most {self.most_tasks} tasks, as\n"
            f"{_FORM}\nWrite only the list.",
            ask,
        )

    async def _asked(self, plan: Plan, text: str, ask: Ask) -> Planned:
        try:
            completion = await ask((Message(role="user", content=text),), purpose="plan", max_new_tokens=self.max_new_tokens)
        except WindowError as error:
            return Planned(plan=plan, note=f"The plan stays as it was: {error}")
        found = read(completion.text, before=plan, most=self.most_tasks)
        if found is None:
            return Planned(plan=plan, note="What the model wrote is no list of tasks; the plan stays as it was.")
        return Planned(plan=found)


def read(text: str, *, before: Plan, most: int = MOST_TASKS) -> Plan | None:
    """The plan that a text holds: a list with boxes, bullets or numbers, or a JSON list; None where it holds none.

    Args:
        before: tasks that are in it too keep their ids, and what is done there and not named stays done.
    """
    found = _from_json(text) or _from_lines(text)
    if not found:
        return None
    ranked = sorted(found, key=lambda item: item[2])[:most]
    free = list(before.tasks)
    next_id = max((task.id for task in before.tasks), default=0) + 1
    tasks: list[Task] = []
    for wording, status, _ in ranked:
        known = _closest(wording, free)
        if known is not None:
            free.remove(known)
        tasks.append(Task(id=next_id if known is None else known.id, text=wording, status=status or (known.status if known else "todo")))
        next_id += known is None
    # A task that is done is not undone by being left out.
    tasks += [task for task in free if task.status == "done"][: max(0, most - len(tasks))]
    tasks.sort(key=lambda task: task.status in ("done", "dropped"))
    return Plan(tasks=tuple(replace(task, priority=rank) for rank, task in enumerate(tasks, start=1)))


def _closest(wording: str, tasks: Sequence[Task]) -> Task | None:
    likeness = [(difflib.SequenceMatcher(None, wording.casefold(), task.text.casefold()).ratio(), task) for task in tasks]
    best = max(likeness, key=lambda pair: pair[0], default=None)
    return best[1] if best is not None and best[0] >= ALIKE else None


_Found = tuple[str, Status | None, int]
"""Wording, status where one is given, and rank."""


def _from_lines(text: str) -> list[_Found]:
    found: list[_Found] = []
    for line in text.splitlines()[: 10 * MOST_TASKS]:
        match = _LINE.match(line[: 2 * MOST_CHARACTERS])
        if match is None:
            continue
        box = match["box"] if match["text"] else match["bare"]
        item = _item((match["text"] or match["rest"]), None if box is None else box, len(found) + 1)
        if item is not None:
            found.append(item)
    return found


def _from_json(text: str) -> list[_Found]:
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return []
    try:
        items = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return []
    found: list[_Found] = []
    for item in items if isinstance(items, list) else []:
        fields = item if isinstance(item, dict) else {"task": item}
        wording = next((fields[key] for key in ("task", "text", "title", "description") if isinstance(fields.get(key), str)), None)
        if wording is None:
            continue
        rank = fields.get("priority")
        read_item = _item(wording, fields.get("status"), rank if isinstance(rank, int) else len(found) + 1)
        if read_item is not None:
            found.append(read_item)
    return found


def _item(wording: str, box: Any, rank: int) -> _Found | None:
    priority = _PRIORITY.search(wording)
    if priority is not None:
        wording, rank = wording[: priority.start()], int(priority[1])
    wording = " ".join(wording.split()).strip("*_ ")[:MOST_CHARACTERS]
    status = None if box is None else _STATUSES.get(str(box).strip().casefold(), "todo")
    return (wording, status, rank) if wording else None

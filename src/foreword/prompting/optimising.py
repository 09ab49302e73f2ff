"""Better prompts by search: GEPA (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning") over a
prompt's instruction, its examples, their order, and the strategy that asks with it, within a budget of money or calls.

**What is sought** is the least cost of a success on the dev rows: everything paid, failures included, over the successes. A failure may
have a price of its own (`failure_cost`: what it takes to mend one), which is added to what was paid; without a price, tokens take the place
of money. The prompt that wins has at least as many successes as the one that was given: one that is cheap because it fails is no prompt.

**What GEPA sees.** It adds up scores of rows, and cost per success is a ratio. Dinkelbach's transform (1967) makes one of the other: with
the successes per cost of the given prompt as exchange rate r, a row's score is `success - r * cost`. The given prompt's scores add up to
zero on the dev rows, and another prompt's add up to more than zero just where its successes cost less. Where the given prompt has no
success at all, r is 0 and only successes count. Of prompts with equal successes the cheaper one has the higher score.

**Budget.** It is looked at before each group of rows (`spending.CHUNK`), so it is passed at most by the rows then under way. What the best
prompt so far will take on the held-out rows is set aside.

**Interruption.** Verdicts are written to a journal before they are used. The search itself is deterministic: with the same journal it goes
through the same steps again, without paying, until it comes to what is new. (GEPA's own run folder is a pickle, and is not used.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cost.prices import Price
from foreword.errors import ConfigError
from foreword.prompting import candidates
from foreword.prompting.candidates import Space
from foreword.prompting.journal import Journal
from foreword.prompting.judging import Judge
from foreword.prompting.measured import Compared
from foreword.prompting.model import Model
from foreword.prompting.proposing import Proposer
from foreword.prompting.searching import Observe, OptimiseSettings, Reflection, Search, Tried, load_gepa
from foreword.prompting.spending import Limits, Purse, Spent, row_key
from foreword.prompting.template import Template
from foreword.types import Example

if TYPE_CHECKING:
    from pydantic import JsonValue

LEAST_TRAIN = 8
MADE_BY = "foreword prompt optimise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimised:
    """What a search found.

    Attributes:
        template: the prompt that won, with its evidence; the given one's text where nothing was better.
        strategy: how it is asked.
        changed: whether it is another than the one that was given.
        dev: on the rows that chose it, which flatter it.
        held_out: on rows that neither chose nor taught; None where none were given.
        tried: all prompts that were judged on all dev rows, in order; the given one first.
        stopped: why the search ended.
    """

    template: Template
    strategy: str
    changed: bool
    dev: Compared
    held_out: Compared | None
    tried: tuple[Tried, ...]
    spent: Spent
    stopped: str


def optimise(
    hand: Template,
    judge: Judge,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    limits: Limits,
    held_out: Sequence[Example] = (),
    labels: Sequence[str] = (),
    settings: OptimiseSettings | None = None,
    price: Price | None = None,
    reflection: Model | None = None,
    variable: str | None = None,
    journal: Path | None = None,
    observe: Observe | None = None,
) -> Optimised:
    """Searches for a prompt whose successes cost less. Runs an event loop of its own, so it is not called from a running one.

    Args:
        hand: the prompt to start from.
        train: rows for examples, and to learn from what goes wrong on them.
        dev: rows that choose.
        limits: what may be spent on everything, the report on `held_out` included.
        held_out: rows that the given prompt and the winner are asked once.
        labels: all wanted answers, where the task is a classification.
        price: what calls of `reflection` cost; the judge knows the price of its own.
        reflection: a model that is asked to write instructions anew; it may be the one that is judged.
        variable: which of the prompt's variables takes the rows' texts.
        journal: a file or a folder from which an interrupted search goes on; see `Journal`.
        observe: told of each prompt that is judged on the dev rows.

    Raises:
        ConfigError: there are too few rows, the budget does not even judge the given prompt, the journal is of other work, or `gepa` is not
            installed.
        ServingError: the model cannot be asked.
    """
    chosen = settings or OptimiseSettings()
    if len(train) < LEAST_TRAIN or not dev:
        raise ConfigError(f"Optimising needs {LEAST_TRAIN} training rows or more, and dev rows; got {len(train)} and {len(dev)}. Add rows.")
    load_gepa()
    examples, lessons = _parted(train, labels, min(chosen.pool if chosen.most_examples else 0, len(train) // 2), chosen.seed)
    space = candidates.space(hand, examples, strategies=chosen.strategies, most_examples=chosen.most_examples, variable=variable)
    kept = Journal(journal, work=_work(space, judge, chosen, limits, reflection, (train, dev, held_out)))
    with asyncio.Runner() as runner:
        purse = Purse(judge, limits, kept, runner)
        search = Search(space, purse, dev, chosen, held_out=held_out, observe=observe or (lambda step: None))
        search.begin()
        reflect = None if reflection is None else Reflection(purse, reflection, price, chosen)
        stopped = search.run(lessons, Proposer(space, seed=chosen.seed, labels=labels, reflect=reflect))
        best, on_dev, on_held_out = search.best, search.on_dev(), search.on_held_out()
    found = Optimised(
        template=space.template(best.candidate),
        strategy=str(space.strategy(best.candidate)),
        changed=best.candidate != space.start,
        dev=on_dev,
        held_out=on_held_out,
        tried=search.tried,
        spent=purse.spent,
        stopped=stopped,
    )
    return _with_evidence(found, judge, chosen, limits)


def _parted(train: Sequence[Example], labels: Sequence[str], pool: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Rows to show as examples, every label in turn where there are labels, and rows to learn from; no row is both."""
    rows = list(train)
    random.Random(seed).shuffle(rows)
    groups = [[row for row in rows if row.completions[0] == label] for label in labels] or [rows]
    picked: list[Example] = []
    while len(picked) < pool and any(groups):
        picked += [group.pop(0) for group in groups if group][: pool - len(picked)]
    left = {id(row) for row in picked}
    return picked, [row for row in rows if id(row) not in left]


def _work(
    space: Space, judge: Judge, settings: OptimiseSettings, limits: Limits, reflection: Model | None, data: Sequence[Sequence[Example]]
) -> dict[str, JsonValue]:
    """What a journal's entries are true of. The budget is no part of it: a search can go on with a larger one."""
    rows = hashlib.sha256(json.dumps([[row_key(row) for row in rows] for rows in data]).encode()).hexdigest()
    prompt = hashlib.sha256(space.hand.model_dump_json(exclude={"evidence"}).encode()).hexdigest()
    model = None if reflection is None else reflection.name
    return {"prompt": prompt, "rows": rows, "judge": judge.name, "reflection": model, "settings": settings.model_dump(mode="json")}


def _with_evidence(found: Optimised, judge: Judge, settings: OptimiseSettings, limits: Limits) -> Optimised:
    spent = found.spent
    evidence: dict[str, JsonValue] = {
        "made_by": MADE_BY,
        "judge": judge.name,
        "strategy": found.strategy,
        "changed": found.changed,
        "dev": found.dev.told(),
        "held_out": None if found.held_out is None else found.held_out.told(),
        "tried": [
            {"success": one.measured.success.share, "dearness": one.measured.dearness if one.measured.success.successes else None}
            for one in found.tried
        ],
        "spent": {"money": None if spent.money is None else str(spent.money), "calls": spent.calls, "tokens": spent.tokens},
        "limits": {"money": None if limits.money is None else str(limits.money), "calls": limits.calls},
        "settings": settings.model_dump(mode="json"),
        "stopped": found.stopped,
    }
    template = found.template.model_copy(update={"evidence": evidence})
    return replace(found, template=template)

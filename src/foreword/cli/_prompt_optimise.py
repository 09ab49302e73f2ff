"""`foreword prompt optimise`: a search for a prompt whose successes cost less, within a budget."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli._console import plain, say, stderr
from foreword.cli._home import run_folder
from foreword.cli._judging import (
    BudgetCallsOption,
    BudgetMoneyOption,
    GenerateOption,
    HourPriceOption,
    InputPriceOption,
    MatchOption,
    OutputPriceOption,
    ReplyOption,
    close,
    judging_from_options,
    limits_from_options,
    price_from_options,
    show_compared,
)
from foreword.cli._loading import check_prefix_name, settings_from_options
from foreword.cli._options import CurrencyOption, DeviceOption, DtypeOption, JsonOption, ModelOption, SeedOption
from foreword.cli._prompts import PromptArgument, PromptsOption, VariableOption, find_prompt, prompt_store
from foreword.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from foreword.data.dataset import Dataset
    from foreword.prompting.optimising import Optimised
    from foreword.prompting.searching import Observe, Step
    from foreword.prompting.template import Template

DEV_SHARE = 0.5
"""Of the rows in one file: those that are not for training, of which half are held out."""


def optimise(
    prompt: PromptArgument,
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Rows to take examples from and to learn from.")],
    dev: Annotated[str | None, typer.Option("--dev", metavar="FILE", help="Rows that choose; a part of --data when absent.")] = None,
    held_out: Annotated[
        str | None,
        typer.Option("--held-out", metavar="FILE", help="Rows that only the report sees; half of those that choose when absent."),
    ] = None,
    budget_money: BudgetMoneyOption = None,
    calls: BudgetCallsOption = None,
    price_per_million_input: InputPriceOption = None,
    price_per_million_output: OutputPriceOption = None,
    price_per_hour: HourPriceOption = None,
    currency: CurrencyOption = "USD",
    failure_cost: Annotated[float, typer.Option(min=0.0, help="What a failure takes to mend; counts as paid for, not as spent.")] = 0.0,
    strategies: Annotated[
        str, typer.Option(metavar="NAMES", help="What prompts may be asked with, comma-separated; the first is the one so far.")
    ] = "zero-shot",
    model: ModelOption = "smollm2",
    match: MatchOption = "equals",
    generate: GenerateOption = False,
    max_new_tokens: ReplyOption = 64,
    most_examples: Annotated[int, typer.Option(min=0, help="Most examples in the prompt.")] = 8,
    minibatch: Annotated[int, typer.Option(min=1, help="Training rows on which a new prompt must do better first.")] = 12,
    reflect: Annotated[bool, typer.Option("--reflect", help="Also have the model write instructions anew; for a capable model.")] = False,
    variable: VariableOption = None,
    seed: SeedOption = 0,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Store the result under another name.")] = None,
    then_compile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also compile what is fixed in the result into this prefix.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on after an interruption.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for a better prompt: instruction, examples, their order and the strategy, within a budget.

    What is sought is the least cost of a success on the dev rows, among prompts with no fewer successes than the given one. Without a
    price, tokens are the cost. The result is stored as a new version, with what was measured; nothing is stored where nothing was better.
    Interrupted, the same command goes on and pays for nothing twice.

    \b
    Examples:
      foreword prompt optimise queue --data train.jsonl --dev dev.jsonl --calls 3000
      foreword prompt optimise queue@prod --data train.jsonl --budget-money 0.50 \\
        --price-per-million-input 0.10 --price-per-million-output 0.40 --failure-cost 0.01
      foreword prompt optimise queue --data rows.jsonl --calls 3000 --strategies zero-shot,cot --then-compile queue
    """
    from foreword.prompting.named_settings import split_list
    from foreword.prompting.optimising import optimise as run
    from foreword.prompting.searching import OptimiseSettings

    price = price_from_options(price_per_million_input, price_per_million_output, price_per_hour, currency)
    limits = limits_from_options(budget_money, calls, price)
    if then_compile is not None:
        check_prefix_name(then_compile)
    hand, called = find_prompt(prompt, root)
    if name is not None:
        hand = _renamed(hand, name)
    settings = settings_from_options(
        OptimiseSettings,
        strategies=split_list(strategies),
        failure_cost=str(failure_cost),
        most_examples=most_examples,
        minibatch=minibatch,
        seed=seed,
    )
    train, choosing, reporting = _rows(data, dev, held_out, seed)
    # Names may have a point, which would make a file of the folder.
    folder = run_folder(f"optimise-{hand.name}") / "journals"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    judging = judging_from_options(
        model,
        train,
        match=match,
        generate=generate,
        max_new_tokens=max_new_tokens,
        price=price,
        variable=variable,
        dtype=dtype,
        device=device,
        seed=seed,
    )
    try:
        with _progress() as observe:
            found = run(
                hand,
                judging.judge,
                train=train.examples,
                dev=choosing.examples,
                held_out=reporting.examples,
                limits=limits,
                labels=judging.labels,
                settings=settings,
                price=price,
                reflection=judging.writes if reflect else None,
                variable=variable,
                journal=folder,
                observe=observe,
            )
    finally:
        close(judging)
    _report(found, called, judging.engine, root=root, then_compile=then_compile, currency=currency, as_json=as_json)


def _rows(data: str, dev: str | None, held_out: str | None, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """Rows to learn from, to choose by and to report on; no row is in two of them."""
    from foreword.data import dedupe, read, split

    train = read(data)
    if dev is None:
        parts = split(train, DEV_SHARE, seed=seed)
        train, choosing = parts.train, parts.dev
    else:
        choosing = read(dev, labels=train.labels)
    if held_out is None:
        parts = split(choosing, DEV_SHARE, seed=seed)
        choosing, reporting = parts.train, parts.dev
    else:
        reporting = read(held_out, labels=train.labels)
        choosing = dedupe(choosing, against=reporting)
    return dedupe(dedupe(train, against=choosing), against=reporting), choosing, reporting


def _renamed(template: Template, name: str) -> Template:
    from foreword.prompting.template import build

    return build(template.model_dump() | {"name": name}, source=f"`--name {name}`")


@contextmanager
def _progress() -> Iterator[Observe]:
    """A bar of what is spent on a terminal; elsewhere a line for each prompt judged on the dev rows."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr()
    if not console.is_terminal:
        yield lambda step: say(_line(step))
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f}% spent"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("Judging the given prompt", total=1.0)
        yield lambda step: bar.update(task, completed=min(step.spent, 1.0), description=_line(step))


def _line(step: Step) -> str:
    return f"{step.tried} tried on the dev rows, the best has {step.best.successes} of {step.best.rows} successes; {step.spent:.0%} spent"


def _report(
    found: Optimised, called: str, engine: Any, *, root: Path | None, then_compile: str | None, currency: str, as_json: bool
) -> None:
    reference = str(prompt_store(root).publish(found.template)) if found.changed else called
    prefix, why_not = None, ""
    if then_compile is not None:
        try:
            prefix = _compile(found.template, reference if "@" in reference else None, engine, then_compile)
        except (ConfigError, ModelError) as error:
            # The search is paid for; what it found is told first.
            why_not = str(error)
    if as_json:
        evidence = found.template.evidence or {}
        typer.echo(json.dumps({"reference": reference, "changed": found.changed, "prefix": prefix, **evidence}))
    else:
        _show(found, called, reference, prefix, currency)
    if why_not:
        say(f"The result cannot be compiled: {why_not}")
        raise typer.Exit(1)


def _show(found: Optimised, called: str, reference: str, prefix: str | None, currency: str) -> None:
    show_compared({"dev": found.dev, "held out": found.held_out}, before="given", after="optimised", currency=currency)
    if found.changed:
        typer.echo(f"{reference}: {len(found.template.examples)} examples, asked with {plain(found.strategy)}")
    else:
        typer.echo(
            f"{called} stays as it is: none of {len(found.tried) - 1} others that were judged on the dev rows was cheaper per success"
        )
    if prefix is not None:
        typer.echo(f"{prefix}: what is fixed in it, as a prefix")
    spent = found.spent
    money = "" if spent.money is None or not spent.money else f"{spent.money:.4f} {currency}, "
    say(f"Spent {money}{spent.calls:,} calls, {spent.tokens:,} tokens; {found.stopped}.")


def _compile(template: Template, reference: str | None, engine: Any, name: str) -> str:
    """The reference of the prefix that stands for what is fixed in a prompt. Raises as `compile_template`."""
    from foreword.cli._compiling import CompileProgress
    from foreword.compiling.from_prompt import compile_template
    from foreword.prefix.store import PrefixStore

    with CompileProgress(stderr()) as progress:
        prefix = compile_template(engine, template, name=name, reference=reference, observer=progress)
    return str(PrefixStore().publish(prefix))

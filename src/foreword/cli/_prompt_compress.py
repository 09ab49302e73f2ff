"""`foreword prompt audit` and `foreword prompt compress`: fewer tokens for the same success, where no prefix can stand for a prompt."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stdout
from foreword.cli._home import run_folder
from foreword.cli._judging import (
    BudgetCallsOption,
    BudgetMoneyOption,
    GenerateOption,
    HourPriceOption,
    InputPriceOption,
    Judging,
    MatchOption,
    OutputPriceOption,
    ReplyOption,
    close,
    judging_from_options,
    limits_from_options,
    price_from_options,
    show_compared,
)
from foreword.cli._loading import check_device, load_model, settings_from_options
from foreword.cli._options import CurrencyOption, DeviceOption, DtypeOption, JsonOption, ModelOption, SeedOption
from foreword.cli._prompts import PromptArgument, PromptsOption, VariableOption, find_prompt, prompt_store
from foreword.errors import ModelError

if TYPE_CHECKING:
    from foreword.prompting.compressing import Audit, Line
    from foreword.prompting.measured import Compared
    from foreword.prompting.template import Template

SHOWN = 60
"""Characters of a sentence in the table."""
SaveOption = Annotated[bool, typer.Option("--save", help="Store the result as the next version of its name.")]


def audit(
    prompt: PromptArgument,
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Rows that decide.")],
    held_out: Annotated[str | None, typer.Option("--held-out", metavar="FILE", help="Rows that only the report sees.")] = None,
    budget_money: BudgetMoneyOption = None,
    calls: BudgetCallsOption = None,
    price_per_million_input: InputPriceOption = None,
    price_per_million_output: OutputPriceOption = None,
    price_per_hour: HourPriceOption = None,
    currency: CurrencyOption = "USD",
    tolerance: Annotated[float, typer.Option(min=0.0, max=0.99, help="Share of successes that all changes together may lose.")] = 0.0,
    margin: Annotated[
        float | None, typer.Option(min=0.0, max=0.99, help="Stricter: what they may lose at worst, by the difference's interval.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="What the prompt is asked with.")] = "zero-shot",
    keep_examples: Annotated[bool, typer.Option("--keep-examples", help="Leave the examples alone.")] = False,
    model: ModelOption = "smollm2",
    match: MatchOption = "equals",
    generate: GenerateOption = False,
    max_new_tokens: ReplyOption = 64,
    variable: VariableOption = None,
    seed: SeedOption = 0,
    save: SaveOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on after an interruption.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find sentences and examples that a prompt can do without, by measuring.

    Each is left out in turn, what saves most first, and stays out where no more successes are lost on the same rows than --tolerance
    allows; sentences that cannot go are tried in a shorter form. Sentences with variables stay.

    \b
    Examples:
      foreword prompt audit queue --data dev.jsonl --calls 2000
      foreword prompt audit queue@prod --data dev.jsonl --held-out test.jsonl --calls 5000 --margin 0.05 --save
    """
    from foreword.data import dedupe, read
    from foreword.prompting.compressing import AuditSettings
    from foreword.prompting.compressing import audit as run

    price = price_from_options(price_per_million_input, price_per_million_output, price_per_hour, currency)
    limits = limits_from_options(budget_money, calls, price)
    settings = settings_from_options(AuditSettings, tolerance=tolerance, margin=margin, strategy=strategy, examples=not keep_examples)
    hand, called = find_prompt(prompt, root)
    rows = read(data)
    reporting = None if held_out is None else read(held_out, labels=rows.labels)
    if reporting is not None:
        rows = dedupe(rows, against=reporting)
    # Names may have a point, which would make a file of the folder.
    journal = run_folder(f"audit-{hand.name}") / "journals"
    if fresh:
        shutil.rmtree(journal, ignore_errors=True)
    judging = judging_from_options(
        model,
        rows,
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
        found = run(
            hand,
            judging.judge,
            rows.examples,
            limits=limits,
            held_out=() if reporting is None else reporting.examples,
            settings=settings,
            count=_counter(judging.engine),
            journal=journal,
            observe=lambda line: None if as_json else say(_told(line)),
        )
    finally:
        close(judging)
    reference = str(prompt_store(root).publish(found.template)) if save and found.tokens[1] < found.tokens[0] else None
    _show_audit(found, called, reference, currency=currency, as_json=as_json)


def compress(
    prompt: PromptArgument,
    rate: Annotated[float, typer.Option("--rate", min=0.01, max=1.0, help="Share of the tokens to keep.")] = 0.5,
    examples: Annotated[bool, typer.Option("--examples", help="Also shorten what the examples' users say.")] = False,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="WORD", help="A word that stays; may be repeated.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE", help="Rows to measure the loss on.")] = None,
    strategy: Annotated[str, typer.Option(help="What the prompt is asked with, where there are rows.")] = "zero-shot",
    model: ModelOption = "smollm2",
    match: MatchOption = "equals",
    generate: GenerateOption = False,
    max_new_tokens: ReplyOption = 64,
    variable: VariableOption = None,
    seed: SeedOption = 0,
    save: SaveOption = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop the words of a prompt that a small model could have guessed.

    Words that surprise it stay, and so do variables, numbers, names and negations. The result reads like a telegram: models answer to it,
    at a loss that --data measures.

    \b
    Examples:
      foreword prompt compress rules --rate 0.5
      foreword prompt compress queue --rate 0.6 --data dev.jsonl --save
    """
    from foreword.data import read
    from foreword.engine import Scores
    from foreword.prompting import word_dropping

    hand, called = find_prompt(prompt, root)
    rows = None if data is None else read(data)
    judging, engine = None, None
    if rows is not None:
        judging = judging_from_options(
            model,
            rows,
            match=match,
            generate=generate,
            max_new_tokens=max_new_tokens,
            price=None,
            variable=variable,
            dtype=dtype,
            device=device,
            seed=seed,
        )
        engine = judging.engine
    else:
        check_device(device)
        engine = load_model(model, dtype=dtype, device=device).engine
    if not isinstance(engine, Scores):
        raise ModelError(f"`{model}` does not say how likely a word is, so it cannot choose which to drop.")
    found = word_dropping.compress(engine, hand, rate=rate, examples=examples, keep=keep or ())
    compared = None
    if judging is not None and rows is not None:
        try:
            compared = _measured(judging, hand, found.template, rows.examples, strategy)
        finally:
            close(judging)
    made = found.template.model_copy(update={"evidence": _evidence(model, rate, found.tokens, compared)})
    reference = str(prompt_store(root).publish(made)) if save else None
    if as_json:
        typer.echo(json.dumps({"reference": reference, "prompt": made.model_dump(mode="json"), "tokens": list(found.tokens)}))
        return
    typer.echo(plain("\n".join(line for turn in made.messages for line in (f"[{turn.role}]", turn.content, "")).rstrip()))
    if compared is not None:
        show_compared({"rows": compared}, before="given", after="compressed", currency="USD")
    say(f"{called}: {found.tokens[0]:,} tokens, now {found.tokens[1]:,}{'' if reference is None else f'; stored as {reference}'}")


def _measured(judging: Judging, before: Template, after: Template, rows: Any, strategy: str) -> Compared:
    import asyncio

    from foreword.prompting import strategy as strategies
    from foreword.prompting.measured import compare

    async def both() -> Compared:
        asked = strategies.parse(strategy)
        return compare(await judging.judge.evaluate(before, asked, rows), await judging.judge.evaluate(after, asked, rows))

    return asyncio.run(both())


def _evidence(model: str, rate: float, tokens: tuple[int, int], compared: Compared | None) -> dict[str, Any]:
    return {
        "made_by": "foreword prompt compress",
        "model": model,
        "rate": rate,
        "tokens": list(tokens),
        "rows": None if compared is None else compared.told(),
    }


def _counter(engine: Any) -> Any:
    from foreword.engine import Scores

    return (lambda text: len(engine.encode(text))) if isinstance(engine, Scores) else None


def _told(line: Line) -> str:
    change = "" if line.compared is None else f" ({line.compared.difference.difference:+.3f})"
    return f"{line.outcome}{change}: {_short(line.part.text)}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else f"{flat[: SHOWN - 1]}…"


def _show_audit(found: Audit, called: str, reference: str | None, *, currency: str, as_json: bool) -> None:
    if as_json:
        lines = [
            {
                "text": line.part.text,
                "tokens": line.part.tokens,
                "message": line.part.message,
                "outcome": line.outcome,
                "shorter": line.shorter,
                "compared": None if line.compared is None else line.compared.told(),
            }
            for line in found.lines
        ]
        told = {"reference": reference, **(found.template.evidence or {}), "lines": lines, "prompt": found.template.model_dump(mode="json")}
        told["prompt"].pop("evidence")
        typer.echo(json.dumps(told))
        return
    table = Table("part", "tokens", "outcome", "success without it, against all of it", box=None, pad_edge=False)
    for line in found.lines:
        change = None if line.compared is None else line.compared.difference
        shown = "" if change is None else f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        table.add_row(Text(plain(_short(line.part.text))), f"{line.part.tokens:,}", line.outcome, shown)
    stdout().print(table)
    show_compared({"rows": found.rows, "held out": found.held_out}, before="given", after="audited", currency=currency)
    stored = "" if reference is None else f"; stored as {reference}"
    say(f"{called}: {found.tokens[0]:,} tokens, now {found.tokens[1]:,}; {found.spent.calls:,} calls{stored}")

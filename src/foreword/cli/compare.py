"""`foreword compare`: several ways to make a model good at a task, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foreword.cli._comparison import comparison_progress, failed, show_comparison
from foreword.cli._console import say, stderr, stdout
from foreword.cli._loading import check_device, conversion_bar, settings_from_options
from foreword.cli._options import CurrencyOption, DeviceOption, DtypeOption, ModelOption, RootOption, SeedOption
from foreword.cli._units import duration
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.evaluate.comparison import Comparison
    from foreword.evaluate.task import Task

ALL = "all"


def compare(
    task: Annotated[
        str, typer.Option("--task", metavar="PATH", help="Folder with a task.toml, a name, a reference task such as game24, or dev rows.")
    ],
    strategies: Annotated[
        str, typer.Option(metavar="NAMES", help="Comma-separated; see below for what there is. `all` is all that need no training.")
    ] = "zero-shot,few-shot:8,prefix",
    train: Annotated[str | None, typer.Option(metavar="FILE", help="Training rows, where --task is a file of dev rows.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What the task is, where --task is a file of dev rows.")] = None,
    model: ModelOption = "smollm2",
    models: Annotated[
        str | None, typer.Option(metavar="MODELS", help="Comma-separated, in place of --model; ENGINE:NAME for another engine.")
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="Training time of each strategy that trains; 2m when absent.", show_default=False
        ),
    ] = 120.0,
    clock: Annotated[Literal["wall", "cpu"], typer.Option(help="Budget in elapsed time or in processor time.")] = "wall",
    budget_calls: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Calls of the model that a strategy may make for one answer; 200 when absent.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Judge on N dev rows, drawn with the seed.")] = None,
    seed: SeedOption = 0,
    price_per_hour: Annotated[float | None, typer.Option(min=0.0, help="Price of an hour of the machine that serves.")] = None,
    price_per_million_input: Annotated[float | None, typer.Option(min=0.0, help="Price of a million prompt tokens.")] = None,
    price_per_million_output: Annotated[float | None, typer.Option(min=0.0, help="Price of a million generated tokens.")] = None,
    price_per_million_cached: Annotated[
        float | None, typer.Option(min=0.0, help="Price of a million prefix positions; that of prompt tokens when absent.")
    ] = None,
    currency: CurrencyOption = "USD",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything measured as JSON instead of the table.")] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the table as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write one self-contained page with plots.")] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write each answer's trace, prompts included, for every strategy.")
    ] = None,
) -> None:
    """Compare strategies on one task in one table.

    The table has quality with its interval, success, cost per success, positions, latency, trained numbers, size, training time and memory;
    with strategies that ask more than once also the first answer's success, that of any answer, calls, tokens and how rows ended.

    Strategies: zero-shot, few-shot:K (K examples in the prompt), prefix (tuned now, inside the budget), prefix:REF (one from the store),
    lora, finetune, peft-prefix, peft-cartridge, and every way to ask: cot, self-consistency(n=10), tot(beam=3), best-of-n, ...
    (strategy:NAME where a name means both). Each runs in a process of its own and learns from the same rows. Without a price, cost per
    success is in machine seconds. Exits with 1 when a strategy failed; the others are shown all the same.

    \b
    Examples:
      foreword compare --task examples/support --strategies zero-shot,few-shot:8,prefix:support
      foreword compare --task e2e --strategies prefix,lora --budget 10m --limit 100 --html e2e.html
      foreword compare --task game24 --strategies all --models smollm2,scripted:arithmetic --limit 20 --html game24.html
      foreword compare --task gsm8k:data/gsm8k --strategies "cot,self-consistency(n=10)" --budget-calls 20 --trace traces
      foreword compare --task dev.jsonl --train train.jsonl --price-per-hour 0.4 --currency EUR
    """
    from foreword.cost.prices import Price
    from foreword.evaluate.comparison import compare as run
    from foreword.evaluate.task import load_task
    from foreword.prompting.named_settings import split_list

    specs = list(split_list(strategies))
    asked = [model] if models is None else list(split_list(models))
    prices = {
        "machine_hour": price_per_hour,
        "input_per_million": price_per_million_input,
        "output_per_million": price_per_million_output,
        "cached_per_million": price_per_million_cached,
    }
    price = settings_from_options(Price, **prices, currency=currency) if any(value is not None for value in prices.values()) else None
    check_device(device)
    check_stored(specs, root)
    loaded = load_task(task, train=train, instruction=instruction)
    for name in asked:
        prepare(name)
    with comparison_progress(stderr()) as on_progress:
        comparison = run(
            loaded,
            with_all(loaded, specs, seed),
            model=asked,
            budget_seconds=budget,
            seed=seed,
            dev_limit=limit,
            dtype=dtype,
            device=device,
            price=price,
            clock=clock,
            store_root=root,
            budget_calls=budget_calls,
            trace_folder=trace,
            on_progress=on_progress,
        )
    report(comparison, as_json=as_json, markdown=markdown, html=html)
    if failed(comparison):
        raise typer.Exit(1)


def check_stored(specs: list[str], root: Path | None) -> None:
    """Raises `StoreError` where a strategy names a prefix that the store has not: before others take minutes."""
    from foreword.prefix.store import PrefixStore

    for spec in specs:
        key, _, reference = spec.partition(":")
        if key == "prefix" and reference:
            PrefixStore(root).resolve(reference)


def with_all(task: Task, specs: list[str], seed: int) -> list[str]:
    """The strategies named, `all` replaced by all that need no training and can run on the task."""
    if ALL not in specs:
        return specs
    from foreword.evaluate.standby import every

    place = specs.index(ALL)
    return list(dict.fromkeys([*specs[:place], *every(task, seed=seed), *specs[place + 1 :]]))


def prepare(model: str) -> None:
    """Converts the model, where that is still to be done, before several processes need it."""
    from foreword.evaluate.engine_name import REFERENCE, split

    key, model = split(model)
    if key != REFERENCE:
        return
    from foreword.engines._checkpoint import resolve

    with conversion_bar(model) as progress:
        resolve(model, progress=progress)


def report(comparison: Comparison, *, as_json: bool, markdown: Path | None, html: Path | None) -> None:
    """Prints the comparison and writes the files that were asked for.

    Raises:
        ConfigError: a file cannot be written; the table has been printed by then.
    """
    from foreword.evaluate.report import to_html, to_json, to_markdown, write

    if as_json:
        typer.echo(to_json(comparison), nl=False)
    else:
        show_comparison(comparison, stdout())
    for path, render in ((markdown, to_markdown), (html, to_html)):
        if path is None:
            continue
        try:
            write(render(comparison), path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
        say(f"Wrote {path}")

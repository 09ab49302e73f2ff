"""`foreword tune`: learns a prefix from examples and publishes it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foreword.cli._console import say
from foreword.cli._home import run_folder as default_run_folder
from foreword.cli._loading import check_device, check_prefix_name, load_model, settings_from_options
from foreword.cli._options import (
    CurrencyOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    RevisionOption,
    RootOption,
    SeedOption,
    TrustOption,
)
from foreword.cli._tuning import Tuned, run_tuning
from foreword.cli._units import duration, size

if TYPE_CHECKING:
    from foreword.cost.prices import Price


def tune(
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Training data: JSONL, CSV, JSON list (also .gz), or hf:NAME.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the prefix in the store.")],
    dev: Annotated[
        str | None, typer.Option("--dev", metavar="FILE", help="Held-out data that choose; a tenth of the data when absent.")
    ] = None,
    model: ModelOption = "smollm2",
    positions: Annotated[int | None, typer.Option(min=1, help="Virtual positions; as many as the start has when absent.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What the task is, in a sentence; begins the first guess.")] = None,
    initialisation: Annotated[
        str, typer.Option(metavar="KEY[:ARGUMENT]", help="auto, few-shot:N, text:FILE, prefix:REF or random.")
    ] = "auto",
    parameterisation: Annotated[
        Literal["offsets", "mlp"], typer.Option(help="Train keys and values directly, or through the paper's network.")
    ] = "offsets",
    budget: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Wall time for the run, such as 90s, 2m or 1h.")
    ] = None,
    examples_seen: Annotated[
        int | None, typer.Option(min=1, help="Training targets to see in all; chosen from the data when absent.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Training targets per step; 8 for labels and 16 for text when absent.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak step, relative to each layer's own size; chosen when absent.")] = None,
    seed: SeedOption = 0,
    on_long: Annotated[
        Literal["fail", "skip", "truncate"], typer.Option(help="What to do with an example longer than the window.")
    ] = "fail",
    on_bad: Annotated[Literal["fail", "skip"], typer.Option(help="What to do with rows that cannot be used.")] = "fail",
    micro_tokens: Annotated[int | None, typer.Option(min=16, help="Tokens computed at once; lower it when memory is short.")] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for more time: activations are computed again.")
    ] = False,
    compile_layers: Annotated[bool, typer.Option("--compile", help="torch.compile the layers; pays off on long runs.")] = False,
    licence: Annotated[str | None, typer.Option(help="Licence noted in the prefix, such as CC-BY-4.0.")] = None,
    run_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Log, curves and state for resuming.", show_default="runs/NAME in FOREWORD_HOME"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    price_per_hour: Annotated[float | None, typer.Option(min=0.0, help="Price of an hour of this machine; shows the cost so far.")] = None,
    currency: CurrencyOption = "USD",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")] = False,
) -> None:
    """Learn a prefix from examples; the model's weights stay as they are.

    A row of data has `prompt` and `completion`, or `messages`, or `text` and `label`. No option but --data and --name is needed: start,
    rate, length and number of steps follow from the data, and on long runs (8,000 training targets or more) from probes judged on the dev
    data. A run that was interrupted, even by kill -9, is resumed by the same command; without --budget it gives the same prefix as if it
    had not been.

    \b
    Examples:
      foreword tune --data train.jsonl --dev dev.jsonl --name support
      foreword tune --data train.csv --name triage --budget 2m --positions 32 --seed 1
      foreword tune --data hf:e2e_nlg --name e2e --instruction "Describe the restaurant."
    """
    from foreword.cost.prices import Price
    from foreword.tuning.settings import TuneSettings

    check_prefix_name(name)
    check_device(device)
    price = None if price_per_hour is None else settings_from_options(Price, machine_hour=price_per_hour, currency=currency)
    settings = settings_from_options(
        TuneSettings,
        name=name,
        positions=positions,
        instruction=instruction,
        initialisation=initialisation,
        parameterisation=parameterisation,
        learning_rate=learning_rate,
        examples_seen=examples_seen,
        budget_seconds=budget,
        batch_targets=batch,
        seed=seed,
        on_long=on_long,
        micro_tokens=micro_tokens,
        checkpointing=checkpointing,
        compile_layers=compile_layers,
        licence=licence,
    )
    train_data, dev_data = _read(data, dev, on_bad)
    tuned = run_tuning(
        load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code),
        train_data,
        dev_data,
        settings,
        folder=run_folder or default_run_folder(name),
        fresh=fresh,
        root=root,
        price=price,
    )
    if tuned is not None:
        _report(tuned, price, train_data.examples[0].prompt, as_json=as_json)


def _read(data: str, dev: str | None, on_bad: Any) -> tuple[Any, Any]:
    from foreword.data.hub import SCHEME
    from foreword.data.reading import read

    train = read(data, on_bad=on_bad)
    dev_split = "validation" if dev is not None and dev.startswith(SCHEME) else None
    held_out = None if dev is None else read(dev, labels=train.labels, on_bad=on_bad, split=dev_split)
    for part in (train, held_out):
        if part is not None and part.skipped:
            lines = ", ".join(str(skip.line) for skip in part.skipped[:10]) + (", …" if len(part.skipped) > 10 else "")
            say(f"{part.path}: {len(part.skipped):,} rows cannot be used and are left out (lines {lines}).")
    return train, held_out


def _report(tuned: Tuned, price: Price | None, prompt: str, *, as_json: bool) -> None:
    from foreword.cost.prices import machine_cost

    paid: Decimal | None = machine_cost(price, tuned.seconds)
    if as_json:
        found = {
            "reference": str(tuned.reference),
            "path": str(tuned.reference.path),
            "bytes": tuned.nbytes,
            "positions": tuned.prefix.positions,
            "dev_loss": tuned.dev_loss,
            "seconds": round(tuned.seconds, 3),
            "cost": None if paid is None else str(paid),
            "stopped": tuned.stopped,
            "run_folder": str(tuned.folder),
        }
        typer.echo(json.dumps(found))
        return
    dev_loss = "not measured" if tuned.dev_loss is None else f"{tuned.dev_loss:.3f} nats per token"
    cost = "" if paid is None or price is None else f", {paid:.4f} {price.currency}"
    typer.echo(f"{tuned.reference}: {tuned.prefix.positions} positions, {size(tuned.nbytes)}")
    typer.echo(f"  dev loss    {dev_loss}\n  took        {tuned.seconds:.0f} s{cost}\n  run folder  {tuned.folder}")
    if tuned.stopped:
        say(f"Stopped before the plan's end: {tuned.stopped}")
    say(f"Try: foreword generate {shell_quoted(prompt)} --prefix {tuned.prefix.name}")


def shell_quoted(prompt: str) -> str:
    """A prompt as one word of a command line, shortened where it is long."""
    import shlex

    line = " ".join(prompt.split())
    return shlex.quote(line if len(line) <= 100 else line[:100].rpartition(" ")[0] or line[:100])

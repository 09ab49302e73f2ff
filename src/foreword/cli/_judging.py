"""What `foreword prompt optimise`, `audit` and `compress` judge prompts with, out of their options."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foreword.cli._console import stdout
from foreword.cli._loading import check_device, load_model, settings_from_options
from foreword.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from foreword.cost.prices import Price
    from foreword.data.dataset import Dataset
    from foreword.prompting.judging import StrategyJudge
    from foreword.prompting.measured import Compared, Measured
    from foreword.prompting.model import Model
    from foreword.prompting.spending import Limits

MatchOption = Annotated[
    str, typer.Option("--match", help="What a success is: equals (the short answer is a wanted one), contains, or number (the last one).")
]
GenerateOption = Annotated[
    bool, typer.Option("--generate", help="Have a label written; else, of rows with labels, the likeliest label is the answer.")
]
BudgetMoneyOption = Annotated[float | None, typer.Option("--budget-money", min=0.0, help="Most money to spend; needs a price.")]
BudgetCallsOption = Annotated[int | None, typer.Option("--calls", min=1, help="Most calls of the model.")]
InputPriceOption = Annotated[float | None, typer.Option("--price-per-million-input", min=0.0, help="Price of a million prompt tokens.")]
OutputPriceOption = Annotated[
    float | None, typer.Option("--price-per-million-output", min=0.0, help="Price of a million generated tokens; free when absent.")
]
HourPriceOption = Annotated[float | None, typer.Option("--price-per-hour", min=0.0, help="Price of an hour of the machine that serves.")]
ReplyOption = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """A loaded engine, and the judge that asks it. `writes` is the model as one that writes, for rewriting instructions."""

    engine: Any
    judge: StrategyJudge
    labels: tuple[str, ...]
    writes: Model
    asked: Model


def price_from_options(per_input: float | None, per_output: float | None, per_hour: float | None, currency: str) -> Price | None:
    """The price list, or None where no price was given."""
    from foreword.cost.prices import Price

    if per_input is None and per_output is None and per_hour is None:
        return None
    tokens = (
        {} if per_input is None and per_output is None else {"input_per_million": per_input or 0.0, "output_per_million": per_output or 0.0}
    )
    return settings_from_options(Price, **tokens, machine_hour=per_hour, currency=currency)


def limits_from_options(money: float | None, calls: int | None, price: Price | None) -> Limits:
    """What may be spent.

    Raises:
        ConfigError: nothing is limited, or money without a price.
    """
    from foreword.prompting.spending import Limits

    if money is None and calls is None:
        raise ConfigError("Say what may be spent: `--budget-money 0.50` with a price, or `--calls 2000`.")
    if money is not None and price is None:
        raise ConfigError(
            "`--budget-money` needs a price: `--price-per-million-input`, `--price-per-million-output` or `--price-per-hour`."
        )
    return Limits(money=None if money is None else Decimal(str(money)), calls=calls)


def judging_from_options(
    model: str,
    data: Dataset,
    *,
    match: str,
    generate: bool,
    max_new_tokens: int,
    price: Price | None,
    variable: str | None,
    dtype: str,
    device: str,
    seed: int,
) -> Judging:
    """Loads the model and makes the judge: of rows with labels the likeliest label is the answer, else the model writes one."""
    from foreword.engine import Scores
    from foreword.prompting import judging
    from foreword.prompting import model as models
    from foreword.prompting.label_model import LabelModel
    from foreword.types import Sampling

    rule = judging.rule(match)
    check_device(device)
    engine = load_model(model, dtype=dtype, device=device).engine
    writes = models.of(engine)
    labels = data.labels or ()
    asked: Model = writes
    if labels and not generate:
        if not isinstance(engine, Scores):
            raise ModelError(f"`{model}` does not say how likely a label is. Have it written: `--generate`.")
        asked = LabelModel(engine, labels)
    told = f"{engine.name}, {'the likeliest label' if asked is not writes else f'at most {max_new_tokens} tokens'}, {match}"
    sampling = Sampling(max_new_tokens=max_new_tokens, seed=seed)
    judge = judging.StrategyJudge(asked, rule, price=price, sampling=sampling, variable=variable, name=told)
    return Judging(engine=engine, judge=judge, labels=labels, writes=writes, asked=asked)


def close(judging: Judging) -> None:
    """Ends what was started for it."""
    import asyncio

    async def both() -> None:
        await judging.writes.close()
        if judging.asked is not judging.writes:
            await judging.asked.close()

    asyncio.run(both())


def show_compared(parts: dict[str, Compared | None], *, before: str, after: str, currency: str) -> None:
    """A table with one line for each set of rows."""
    table = Table("rows", before, after, "difference", "cost per success", "", box=None, pad_edge=False)
    for name, compared in parts.items():
        if compared is None:
            continue
        change = compared.difference
        table.add_row(
            f"{name} ({compared.before.success.rows})",
            _share(compared.before),
            _share(compared.after),
            f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]",
            _cost(compared.before, currency),
            f"→ {_cost(compared.after, currency)}",
        )
    stdout().print(table)


def _share(measured: Measured) -> str:
    success = measured.success
    return f"{success.share:.3f} [{success.low:.3f}, {success.high:.3f}]"


def _cost(measured: Measured, currency: str) -> str:
    if measured.cost_per_success is not None:
        return f"{measured.cost_per_success:.3g} {currency}"
    tokens = measured.tokens_per_success
    return "no success" if tokens is None else f"{tokens:,.0f} tokens"

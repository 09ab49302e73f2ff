"""`foreword personalize`: learns a prefix for each user of a table and publishes them."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from foreword.cli._console import plain, say, stderr, stdout
from foreword.cli._loading import check_device, check_prefix_name, load_model, settings_from_options
from foreword.cli._options import DeviceOption, DtypeOption, ModelOption, RevisionOption, RootOption, SeedOption, TrustOption
from foreword.cli._units import duration
from foreword.cli.tune import shell_quoted

if TYPE_CHECKING:
    from foreword.data.dataset import Dataset
    from foreword.tuning.personal import UserResult
    from foreword.tuning.personal_settings import PersonalSettings

SHOWN = 100
"""Users in the closing table; `--json` has all of them."""


def personalize(
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Data with a `user` column: JSONL, CSV, JSON list, or hf:NAME.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The prefix of user ana will be NAME-ana.")],
    model: ModelOption = "smollm2",
    positions: Annotated[int, typer.Option(min=1, help="Virtual positions of each user.")] = 16,
    start: Annotated[
        str,
        typer.Option(metavar="KEY[:ARGUMENT]", help="Where all users start: prefix:REF, text:FILE, few-shot:N or random."),
    ] = "few-shot:8",
    behind: Annotated[
        str | None, typer.Option(metavar="prefix:REF", help="A prefix that stands frozen in front; users are composed with it.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="What the task is, in a sentence; begins the first guess.")] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", "--budget-seconds", parser=duration, metavar="TIME", help="Wall time for all users: 90s, 2m or 1h."),
    ] = None,
    users_at_once: Annotated[
        int | None, typer.Option(min=1, help="Users trained together; 64, or as many as fit into memory, when absent.")
    ] = None,
    examples_seen: Annotated[
        int | None, typer.Option(min=1, help="Training targets that each user sees; chosen from the user's rows when absent.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Training targets of each user per step.")] = 2,
    learning_rate: Annotated[float, typer.Option(help="Peak step, relative to each layer's own size.")] = 0.02,
    seed: SeedOption = 0,
    on_long: Annotated[
        Literal["fail", "skip", "truncate"], typer.Option(help="What to do with an example longer than the window.")
    ] = "fail",
    on_bad: Annotated[Literal["fail", "skip"], typer.Option(help="What to do with rows that cannot be used.")] = "fail",
    micro_tokens: Annotated[int | None, typer.Option(min=16, help="Tokens computed at once; lower it when memory is short.")] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for more time: activations are computed again.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Licence noted in the prefixes, such as CC-BY-4.0.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train every user again, also those whose prefix is there.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON line.")] = False,
) -> None:
    """Learn a prefix for each user, many in one batch; the model's weights stay as they are.

    Rows are those of `foreword tune` with one field more, `user`. All users start from the same keys and values and get as many
    positions. They are trained in blocks, and a block's prefixes are published when it ends. The same command goes on after an
    interruption, and takes new or changed users on later: a user whose prefix was made by the same recipe from the same rows is not
    trained again.

    \b
    Examples:
      foreword personalize --data letters.jsonl --name letters
      foreword personalize --data letters.csv --name letters --start prefix:support --budget 10m
      foreword personalize --data letters.csv --name letters --behind prefix:support --positions 8
    """
    from foreword.tuning.personal_settings import PersonalSettings

    check_prefix_name(name)
    check_device(device)
    settings = settings_from_options(
        PersonalSettings,
        name=name,
        positions=positions,
        start=start,
        behind=behind,
        instruction=instruction,
        learning_rate=learning_rate,
        examples_seen=examples_seen,
        budget_seconds=budget,
        batch_targets=batch,
        seed=seed,
        on_long=on_long,
        users_at_once=users_at_once,
        micro_tokens=micro_tokens,
        checkpointing=checkpointing,
        licence=licence,
    )
    rows = _read(data, on_bad)
    _check_users(rows, settings)
    began = time.monotonic()
    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    results = _run(engine, rows, settings, root, fresh=fresh)
    _report(results, rows, settings, time.monotonic() - began, as_json=as_json)
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _read(data: str, on_bad: Literal["fail", "skip"]) -> Dataset:
    from foreword.data.reading import read

    rows = read(data, on_bad=on_bad)
    if rows.skipped:
        lines = ", ".join(str(skip.line) for skip in rows.skipped[:10]) + (", …" if len(rows.skipped) > 10 else "")
        say(f"{rows.path}: {len(rows.skipped):,} rows cannot be used and are left out (lines {lines}).")
    return rows


def _check_users(rows: Dataset, settings: PersonalSettings) -> None:
    """Raises `DataError` for users that cannot have prefixes, before the model is loaded."""
    from foreword.tuning.personal_users import gather

    gather(rows, name=settings.name, seed=settings.seed)


def _run(engine: Any, rows: Dataset, settings: PersonalSettings, root: Path | None, *, fresh: bool) -> list[UserResult]:
    from foreword.cli._progress import TuningProgress
    from foreword.prefix.store import PrefixStore
    from foreword.tuning.personal import personalize as train

    with TuningProgress(stderr()) as progress:
        return train(engine, rows, settings, store=PrefixStore(root), fresh=fresh, observer=progress)


def _report(results: list[UserResult], rows: Dataset, settings: PersonalSettings, seconds: float, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"users": [_as_json(result) for result in results], "seconds": round(seconds, 3)}))
        return
    stdout().print(_table(results[:SHOWN]))
    counts = Counter(result.outcome for result in results)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    hidden = f"; the first {SHOWN} are shown, --json has all" if len(results) > SHOWN else ""
    typer.echo(f"{len(results):,} users: {told}{hidden}. Took {seconds:.0f} s.")
    if (ready := next((result for result in results if result.reference is not None), None)) is not None:
        prompt = next(example.prompt for example in rows if example.user == ready.user)
        say(_next_command(ready, settings, prompt))


def _table(results: list[UserResult]) -> Table:
    table = Table(title="Users", title_justify="left")
    for title in ("user", "rows", "loss before", "loss after", "positions", "reference"):
        table.add_column(title, justify="left" if title in ("user", "reference") else "right", overflow="fold")
    for result in results:
        losses = ["" if loss is None else f"{loss:.3f}" for loss in (result.loss_before, result.loss_after)]
        if result.reference is None:
            place = Text(plain(f"{result.outcome}: {result.reason}"))
        else:
            place = Text(f"{result.reference}{' (kept)' if result.outcome == 'kept' else ''}")
        table.add_row(Text(plain(result.user)), f"{result.rows:,}", *losses, f"{result.positions or ''}", place)
    return table


def _as_json(result: UserResult) -> dict[str, Any]:
    return {
        "user": result.user,
        "outcome": result.outcome,
        "reason": result.reason,
        "rows": result.rows,
        "loss_before": result.loss_before,
        "loss_after": result.loss_after,
        "positions": result.positions,
        "steps": result.steps,
        "reference": None if result.reference is None else str(result.reference),
        "path": None if result.reference is None else str(result.reference.path),
    }


def _next_command(result: UserResult, settings: PersonalSettings, prompt: str) -> str:
    if settings.behind is None:
        return f"Try: foreword generate {shell_quoted(prompt)} --prefix {result.name}"
    task = settings.behind.removeprefix("prefix:")
    composed = f"{Path(task).stem.partition('@')[0]}+{result.name}"
    return (
        f"Try: foreword prefix compose {task} {result.name} -o {composed} && foreword generate {shell_quoted(prompt)} --prefix {composed}"
    )

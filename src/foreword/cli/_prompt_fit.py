"""`foreword prompt fit`: prompts ranked by how little real inputs surprise the model after them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foreword.cli._console import plain, say, stderr, stdout
from foreword.cli._loading import check_device, load_model
from foreword.cli._options import DeviceOption, DtypeOption, JsonOption, ModelOption
from foreword.cli._prompts import PromptsOption, VariableOption, find_prompt
from foreword.cli._sources import STDIN, read_text
from foreword.errors import DataError, ModelError


def fit(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Stored prompts (support, support@v3), or files.")],
    inputs: Annotated[
        str,
        typer.Option("--inputs", metavar="FILE", help="Real inputs: data rows, whose wanted answers count too, or a .txt with one a line."),
    ],
    model: ModelOption = "smollm2",
    variable: VariableOption = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Use the first N inputs.")] = 100,
    by_inputs: Annotated[bool, typer.Option("--by-inputs", help="Leave the wanted answers out, even where they are known.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    root: PromptsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank prompts before anything is spent on evaluating them.

    A prompt fits when real inputs surprise the model little in their place: the mean negative log-likelihood of their tokens is low. Where
    the wanted answers are known, these are looked at in the same way, and rank. No label is needed for the first.

    \b
    Examples:
      foreword prompt fit support@v1 support@v2 support@v3 --inputs questions.txt
      foreword prompt fit drafts/*.toml --inputs dev.jsonl --json
    """
    from rich.progress import Progress

    from foreword.engine import Scores
    from foreword.prompting import fit as ranking

    found = [find_prompt(prompt, root) for prompt in prompts]
    texts, outputs = _inputs(inputs, limit)
    check_device(device)
    engine = load_model(model, dtype=dtype, device=device).engine
    if not isinstance(engine, Scores):
        raise ModelError(f"`{model}` does not say how likely a text is, so prompts cannot be ranked with it.")
    candidates = [ranking.Candidate(template=template, variable=variable, name=called) for template, called in found]
    console = stderr()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Ranking", total=len(candidates))
        fits = ranking.fit(engine, candidates, texts, None if by_inputs else outputs, progress=lambda done: bar.advance(task, done))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in fits]))
        return
    table = Table("prompt", "inputs, nats per token", "answers, nats per token", "tokens", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in fits:
        table.add_row(plain(one.name), f"{one.input_nll:.3f}", "" if one.output_nll is None else f"{one.output_nll:.3f}", f"{one.tokens:,}")
    stdout().print(table)
    say(f"On {len(texts)} inputs, the best first: by {'inputs' if fits[0].output_nll is None else 'wanted answers'}. Lower fits better.")


def _inputs(source: str, limit: int) -> tuple[list[str], list[str] | None]:
    """Inputs, and their wanted answers where the file has them."""
    if source == STDIN or Path(source).suffix.lower() in (".txt", ".md"):
        return [line.strip() for line in read_text(source).splitlines() if line.strip()][:limit], None
    from foreword.data.reading import read

    rows = read(source).limit(limit)
    if any(not row.prompt.strip() for row in rows):
        raise DataError(f"`{source}` has a row whose last user turn is empty. Remove it.")
    return [row.prompt for row in rows], [row.completions[0] for row in rows]

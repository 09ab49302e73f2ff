"""`foreword generate`: one prompt, or a file of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from foreword.cli._console import stderr
from foreword.cli._loading import load_model, load_prefix
from foreword.cli._options import (
    DeviceOption,
    DtypeOption,
    InstructionOption,
    MaxNewTokensOption,
    ModelOption,
    PrefixOption,
    RevisionOption,
    RootOption,
    SeedOption,
    StopOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    TrustOption,
    sampling_from_options,
)
from foreword.cli._sources import STDIN, read_text
from foreword.errors import ConfigError, DataError, WindowError
from foreword.types import Completion, Sampling

if TYPE_CHECKING:
    from foreword.cli._requests import Request
    from foreword.prefix.artifact import Prefix

CHUNK = 256
"""Rows answered before their answers are printed: enough to batch by length, few enough that an interruption loses little."""


def generate(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The prompt; - reads standard input.", show_default=False)] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="JSONL, CSV or JSON list with `prompt`, `messages` or `text` per row."),
    ] = None,
    prefix: PrefixOption = None,
    entries: Annotated[
        int | None,
        typer.Option(min=1, help="Of a dictionary compiled with --separate: the N entries that have to do with the PROMPT.", metavar="N"),
    ] = None,
    instruction: InstructionOption = None,
    model: ModelOption = "smollm2",
    max_new_tokens: MaxNewTokensOption = 128,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    seed: SeedOption = 0,
    stop: StopOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per answer, with usage and why it ended.")] = False,
) -> None:
    """Answer one prompt, or every row of a file.

    A file's answers come in the file's order, one JSON object with `text` per line; --json adds `line`, `id` where the row has one, `usage`
    (tokens and prefix positions) and `finish_reason`.

    \b
    Examples:
      foreword generate "My parcel has not arrived." --prefix support
      foreword generate --input questions.jsonl --prefix support@prod --json > answers.jsonl
      foreword generate "Name a colour." --temperature 0.8 --seed 3 --max-new-tokens 20
    """
    from foreword.cli._requests import read_requests

    if (prompt is None) == (input_file is None):
        raise ConfigError("Give either a PROMPT or --input FILE, and not both.")
    sampling = sampling_from_options(max_new_tokens, temperature, top_p, top_k, seed, stop)
    requests = _one(prompt, instruction) if prompt is not None else read_requests(_path(input_file), instruction=instruction)
    if not requests:
        return
    stored = load_prefix(prefix, root) if prefix is not None else None
    if entries is not None:
        stored = _chosen(stored, requests, entries, input_file)
    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    if input_file is None:
        answer = engine.generate([requests[0].messages], prefix=stored, sampling=sampling)[0]
        typer.echo(json.dumps(_details(answer), ensure_ascii=False) if as_json else answer.text)
        return
    _check_room(engine, requests, stored, sampling, input_file)
    _answer_all(engine, requests, stored, sampling, details=as_json)


def _one(prompt: str, instruction: str | None) -> tuple[Request, ...]:
    from foreword.api import conversation
    from foreword.cli._requests import Request

    text = read_text(STDIN) if prompt == STDIN else prompt
    if not text.strip():
        raise DataError("The prompt is empty. Give some text.")
    return (Request(line=1, id=None, messages=conversation(text, instruction)),)


def _chosen(dictionary: Prefix | None, requests: Sequence[Request], most_entries: int, input_file: Path | None) -> Prefix:
    from foreword.compiling.chosen_entries import select

    if dictionary is None or input_file is not None:
        raise ConfigError("`--entries` chooses from the dictionary that `--prefix` names, for one PROMPT.")
    return select(dictionary, requests[0].messages[-1].content, most_entries=most_entries)


def _path(given: Path | None) -> Path:
    assert given is not None, "either a prompt or a file is given; checked before"
    return Path("/dev/stdin") if str(given) == STDIN else given


def _check_room(engine: Any, requests: Sequence[Request], prefix: Prefix | None, sampling: Sampling, path: Path) -> None:
    """Names every row that does not fit, before any is answered."""
    from foreword.cli._requests import bad_lines

    positions, prompt_format = (0, "full") if prefix is None else (prefix.positions, prefix.header.prompt_format)
    if prefix is not None:
        engine.check(prefix)
    problems = {}
    for request in requests:
        tokens = len(engine.render(request.messages, prompt_format=prompt_format))
        needed = positions + tokens + sampling.max_new_tokens
        if needed > engine.window:
            parts = f"{positions} prefix positions, {tokens} prompt tokens and {sampling.max_new_tokens} new ones"
            problems[request.line] = f"{parts} make {needed}; the window of `{engine.name}` is {engine.window}"
    if problems:
        raise WindowError(bad_lines(path, problems, len(requests)))


def _answer_all(engine: Any, requests: Sequence[Request], prefix: Prefix | None, sampling: Sampling, *, details: bool) -> None:
    console = stderr()
    with Progress(console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("Answering", total=len(requests))
        for first in range(0, len(requests), CHUNK):
            chunk = requests[first : first + CHUNK]
            answers = engine.generate(
                [request.messages for request in chunk],
                prefix=prefix,
                sampling=sampling,
                progress=lambda count: bar.advance(task, count),
            )
            for request, answer in zip(chunk, answers, strict=True):
                typer.echo(json.dumps(_row(request, answer) if details else {"text": answer.text}, ensure_ascii=False))


def _row(request: Request, answer: Completion) -> dict[str, Any]:
    identity = {} if request.id is None else {"id": request.id}
    return {"line": request.line, **identity, **_details(answer)}


def _details(answer: Completion) -> dict[str, Any]:
    usage = answer.usage
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "prefix_positions": usage.prefix_positions,
        },
    }

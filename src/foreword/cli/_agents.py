"""Agents on the command line: settings out of a file and options, models, and how steps and results are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from foreword.cli._console import plain, stderr
from foreword.cli._home import home
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.agent.agent import AgentResult, Event
    from foreword.agent.long_memory import LongMemory
    from foreword.agent.opening import LoadedModel
    from foreword.agent.settings import AgentSettings, ModelSettings

MOST_SHOWN = 600
"""Characters of one step."""
STYLES = {
    "call": "cyan",
    "observation": "green",
    "plan": "magenta",
    "recall": "magenta",
    "message": "blue",
    "note": "yellow",
    "answer": "bold",
}


def settings_of(file: Path | None, **changes: Any) -> AgentSettings:
    """The settings of a file, or the default ones, with what options say instead.

    Args:
        changes: fields of `AgentSettings`; those that are objects take dicts of their fields. None changes nothing.

    Raises:
        ConfigError: the file or an option cannot be used.
    """
    from pydantic import ValidationError

    from foreword.agent.settings import AgentSettings, load

    settings = AgentSettings() if file is None else load(file)
    fields = settings.model_dump(exclude_unset=True)
    for name, value in changes.items():
        if isinstance(value, dict):
            given = {key: inner for key, inner in value.items() if inner is not None}
            if given:
                fields[name] = {**(fields.get(name) or {}), **given}
        elif value is not None:
            fields[name] = value
    try:
        return AgentSettings.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, part['loc']))}`: {part['msg']}" for part in error.errors(include_url=False))
        raise ConfigError(f"{problems}. See `--help`.") from None


def folder_of(file: Path | None) -> Path:
    """What paths in a file are relative to."""
    return Path() if file is None else file if file.is_dir() else file.parent


def load_for_agent(settings: ModelSettings) -> LoadedModel:
    """Loads a model, with a progress bar where it has to be converted first. Raises as `foreword.api.load`."""
    from foreword import registry
    from foreword.agent.opening import LoadedModel
    from foreword.agent.short_memory import estimated_tokens
    from foreword.cli._loading import load_model
    from foreword.prompting import model

    if settings.engine == "transformers":
        engine: Any = load_model(settings.name, dtype=settings.dtype, device=settings.device).engine
    else:
        engine = registry.find("foreword.engines", settings.engine).load(settings.name, dtype=settings.dtype, device=settings.device)
    count = (lambda text: len(engine.encode(text))) if hasattr(engine, "encode") else estimated_tokens
    return LoadedModel(model=model.of(engine, name=settings.name), count=count, window=engine.window)


def memory_at(file: Path | None, tenant: str, namespace: str, *, embedder: str = "none") -> LongMemory:
    """A long-term memory that exists. Raises `ConfigError` where it does not, `AgentError` where the file is none."""
    from foreword.agent.long_memory import LongMemory
    from foreword.agent.opening import MEMORY_FILE, embedder_of

    path = file or home() / MEMORY_FILE
    if not path.is_file():
        raise ConfigError(f"There is no memory {path} yet. An agent with `[memory.long_term]` makes one; `--file` names another.")
    return LongMemory(path, tenant=tenant, namespace=namespace, embedder=embedder_of(embedder))


def shower() -> Callable[[Event], None]:
    """Shows steps on standard error as they happen."""
    console = stderr()

    def show(event: Event) -> None:
        lead = f"{event.agent} {event.step}" if event.step else event.agent
        text = plain(event.text.strip())
        cut = f"{text[:MOST_SHOWN]} [...]" if len(text) > MOST_SHOWN else text
        body = cut.replace("\n", "\n    ")
        console.print(Text.assemble((f"{lead} ", "dim"), (f"{event.kind}: ", STYLES.get(event.kind, "")), body), soft_wrap=True)

    return show


def result_row(result: AgentResult) -> dict[str, Any]:
    """A result as JSON, without its trace."""
    usage = result.usage
    return {
        "text": result.text,
        "status": result.status,
        "reason": result.reason,
        "steps": result.steps,
        "calls": result.calls,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "prefix_positions": usage.prefix_positions,
        },
        "cost": None if result.cost is None else str(result.cost),
        "seconds": round(result.seconds, 3),
        "notes": list(result.notes),
    }


def summary_of(result: AgentResult) -> str:
    """A result in a line."""
    tokens = result.usage.prompt_tokens + result.usage.completion_tokens
    cost = "" if result.cost is None else f", cost {result.cost:.6f}"
    reason = f": {result.reason}" if result.reason else ""
    return f"{result.status}{reason} ({result.steps} steps, {result.calls} calls, {tokens:,} tokens{cost}, {result.seconds:.1f} s)"


def echo_json(value: Any) -> None:
    """Prints JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))

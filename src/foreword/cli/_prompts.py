"""Prompts by what the user calls them: a reference into the store, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli._sources import STDIN, read_text
from foreword.errors import ConfigError, DataError

if TYPE_CHECKING:
    from foreword.prompting.store import PromptStore
    from foreword.prompting.template import Template

OTHER_FORMATS = frozenset({".json", ".jsonl", ".yaml", ".yml"})
"""Ends of files that would make poor plain texts."""

PromptsOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="The prompt store.", show_default="prompts in FOREWORD_HOME, or in ~/.foreword"),
]
PromptArgument = Annotated[str, typer.Argument(metavar="PROMPT", help="A stored prompt (support, support@prod, support@v3), or a file.")]
VariableOption = Annotated[
    str | None, typer.Option("--variable", metavar="NAME", help="What takes the rows' texts, where several variables have no default.")
]


def prompt_store(root: Path | None) -> PromptStore:
    """The store in that folder, or the default one."""
    from foreword.prompting.store import PromptStore

    return PromptStore(root)


def read_prompt(file: str, name: str | None) -> Template:
    """The prompt in a file or in standard input. Raises `ConfigError` and `DataError`, which say what is wrong with it."""
    from foreword.prompting.template import parse_text, parse_toml

    if name is None and file == STDIN:
        raise ConfigError("What comes from standard input has no name of its own. Give one: `--name NAME`.")
    suffix = Path(file).suffix.lower()
    if suffix in OTHER_FORMATS:
        raise DataError(
            f"`{file}` is no prompt file: a prompt is TOML (`.toml`) or a plain text (`.txt`, `.md`). Write it as one of these."
        )
    text, source = read_text(file), "standard input" if file == STDIN else f"`{file}`"
    if suffix != ".toml":
        return parse_text(text, source=source, name=name or Path(file).stem)
    return parse_toml(text, source=source, name=name, default_name=Path(file).stem)


def find_prompt(prompt: str, root: Path | None) -> tuple[Template, str]:
    """The prompt that a reference or a path means, and what to call it: `support@v3`, or the file's path.

    Raises:
        StoreError, DataError: there is none, or it cannot be used.
    """
    if os.sep in prompt or Path(prompt).suffix.lower() in (".toml", ".txt", ".md") or Path(prompt).is_file():
        return read_prompt(prompt, None), prompt
    store = prompt_store(root)
    reference = store.resolve(prompt)
    return store.load(reference), str(reference)

"""Where prompts are kept: names with versions and aliases, as `foreword.store.versions` describes them; each version is one JSON file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from foreword.errors import StoreError
from foreword.prefix.header import check_name
from foreword.prompting.template import Template
from foreword.store import versions
from foreword.store.versions import Reference

MOST_BYTES = 16 * 2**20


def default_root() -> Path:
    """The folder `prompts` in `FOREWORD_HOME`, or in `~/.foreword` where that is not set."""
    return versions.default_root("prompts")


class PromptStore(versions.VersionedFiles):
    """Named, versioned prompts in a folder. Several processes may use one; nothing is cached, so each sees the others' changes."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """Args: root: the folder, made when something is first published; by default `default_root()`."""
        place = Path(root) if root is not None else default_root()
        super().__init__(place, noun="prompt", suffix="json", check_name=partial(check_name, composed=False))

    def publish(self, template: Template) -> Reference:
        """Adds `template` as the next version of its name; the version appears whole or not at all, and never in place of another.

        Raises:
            StoreError: the folder cannot be written to, or the disk is full.
        """
        content = template.model_dump_json(indent=2).encode()

        def write(target: Path) -> Path:
            try:
                return versions.write_temporary(target, content)
            except OSError as error:
                raise StoreError(f"Cannot write {target}: {error.strerror or error}. Make room, or choose another folder.") from error

        return self._publish(template.name, write)

    def load(self, ref: str | Reference) -> Template:
        """The prompt that a reference means.

        Raises:
            StoreError: there is no such prompt (see `resolve`), or its file is damaged.
        """
        reference = self.resolve(ref)
        try:
            with reference.path.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise StoreError(f"{reference.path} has more than {MOST_BYTES:,} bytes, and no prompt does. Remove that version.")
            return Template.model_validate_json(content)
        except (OSError, ValidationError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no prompt"
            raise StoreError(f"{reference.path} cannot be used: {reason}. Remove version {reference} and add the prompt again.") from error

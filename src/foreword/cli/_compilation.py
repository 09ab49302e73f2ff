"""What `foreword compile` can be asked to turn into a prefix: one text, several parts, or a stored prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli._console import say
from foreword.cli._loading import load_prefix
from foreword.cli._sources import STDIN, read_text
from foreword.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from foreword.compiling.compiler import Compiler
    from foreword.compiling.observer import Observer
    from foreword.compiling.settings import CompileSettings
    from foreword.prefix.artifact import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """Everything that stays the same, whatever is compiled.

    Attributes:
        folder: where work of minutes goes on after an interruption.
        framed: parts are put between the model's learned header and trailer, where the store has them.
    """

    engine: Any
    name: str
    compiler: Compiler
    settings: CompileSettings
    observer: Observer
    folder: Path | None
    root: Path | None
    framed: bool

    def of_text(self, text: str, *, name: str | None = None) -> Prefix:
        """A prefix of one text."""
        return self.compiler.compile_source(
            self.engine, text, name=name or self.name, settings=self.settings, observer=self.observer, folder=self.folder
        )

    def of_parts(self, sources: Sequence[str]) -> Prefix:
        """A prefix of several parts, in order: texts, which are compiled first, and stored prefixes. Conflicts are told."""
        from foreword.compiling import conflicts
        from foreword.compiling.composing import FROM_PARTS, compose_parts

        texts: dict[int, str] = {}
        parts = []
        for place, source in enumerate(sources):
            if source == STDIN or Path(source).is_file():
                texts[place] = read_text(source)
                parts.append(self.of_text(texts[place], name=_name_of(source, place)))
            else:
                parts.append(load_prefix(source, self.root))
        for conflict in conflicts.find([part.header for part in parts], texts):
            self.observer.note(f"Conflict ({', '.join(conflict.parts)}): {conflict.what}. {conflict.mend}")
        frame = self._frame() if self.framed and len(parts) >= FROM_PARTS else None
        return compose_parts(self.engine, parts, name=self.name, header_trailer=frame)

    def of_prompt(self, reference: str) -> tuple[Prefix, str]:
        """A prefix of what no variable of a stored prompt changes, and that text."""
        from foreword.compiling.from_prompt import compile_template
        from foreword.prompting.store import PromptStore

        store = PromptStore()
        found = store.resolve(reference)
        template = store.load(found)
        prefix = compile_template(self.engine, template, name=self.name, reference=str(found), observer=self.observer)
        return prefix, "\n\n".join(message.content for message in template.fixed())

    def _frame(self) -> Prefix | None:
        from foreword.compiling.composing import reserved_name
        from foreword.prefix.store import PrefixStore

        try:
            return PrefixStore(self.root).load(reserved_name(self.engine.fingerprint))
        except StoreError:
            say("The parts are joined as they are. `foreword prefix learn-frame` learns what lets so many stand side by side.")
            return None


def check_sources(sources: Sequence[str], from_prompt: str | None, *, report: bool, gate: float | None, gate_queries: Path | None) -> None:
    """Raises `ConfigError` unless exactly one kind of thing is to be compiled, and the other options go with it."""
    if from_prompt is not None and sources:
        raise ConfigError(f"`--from-prompt {from_prompt}` names what is compiled; leave {', '.join(sources)} out.")
    if from_prompt is None and not sources:
        raise ConfigError("Name what is to be compiled: a text file, - for standard input, several parts, or `--from-prompt NAME`.")
    if report and (from_prompt is not None or len(sources) != 1):
        raise ConfigError("`--report` measures one text: name one file.")
    if gate is not None and len(sources) > 1:
        raise ConfigError("`--gate` is for one text. Give the parts their own gates; a composition keeps those of its parts.")
    if gate is None and gate_queries is not None:
        raise ConfigError("`--gate-queries` calibrates a gate; say how many of them it may miss, such as `--gate 0.05`.")


def gated(prefix: Prefix, text: str, compilation: Compilation, *, level: float, queries: Path | None) -> Prefix:
    """The prefix with a detector that says which queries are its business, calibrated on own queries where there is a file of them."""
    from foreword.compiling import gate

    if queries is None:
        found = gate.detector(compilation.engine, text, level=level, seed=compilation.settings.seed, observer=compilation.observer)
    else:
        lines = [line for line in read_text(str(queries)).splitlines() if line.strip()]
        found = gate.detector_for_queries(text, lines, level=level, observer=compilation.observer)
    return gate.attach(prefix, found)


def _name_of(source: str, place: int) -> str:
    """A name for a part that is compiled on the way and not stored."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in Path(source).stem.lower()).strip("-")
    return kept[:40] or f"part-{place + 1}"

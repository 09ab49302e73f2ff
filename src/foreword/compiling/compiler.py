"""What a compiler is: a way to turn a text into a prefix. A compiler is a module in `compilers/` with one function, `compile_source`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from foreword import registry
from foreword.engine import Differentiable, Generates, Traceable
from foreword.errors import ConfigError

if TYPE_CHECKING:
    from foreword.compiling.observer import Observer
    from foreword.compiling.settings import CompileSettings
    from foreword.prefix.artifact import Prefix

FOLDER = "foreword.compiling.compilers"


class CompilingEngine(Differentiable, Traceable, Generates, Protocol):
    """A model that reads, answers, and shows what it attends to."""


class Compiler(Protocol):
    """A module that makes a prefix from a text.

    Attributes:
        HONOURS: the settings that have a meaning to it.
    """

    HONOURS: frozenset[str]

    def compile_source(
        self,
        engine: CompilingEngine,
        text: str,
        *,
        name: str,
        settings: CompileSettings = ...,
        observer: Observer = ...,
        folder: Path | None = None,
    ) -> Prefix:
        """A prefix that stands for `text`.

        Args:
            engine: the model that reads the text.
            text: what the prefix is to hold.
            name: the prefix's name.
            folder: where work of minutes keeps what it needs to go on after an interruption; shorter work keeps nothing.

        Raises:
            ConfigError: a setting that this compiler cannot honour, or a size that leaves no position.
            PrefixError: the text is empty, or the name is not allowed.
            WindowError: the prefix leaves no room in the model's window.
            ModelError: the model's chat template cannot be continued after the text.
            TuningError: `folder` holds other work, or cannot be written.
        """
        ...


def get(name: str) -> Compiler:
    """The compiler called `name`.

    Raises:
        RegistryError: there is none.
    """
    return cast(Compiler, registry.find(FOLDER, name))


def check(name: str, settings: CompileSettings) -> Compiler:
    """The compiler called `name`, once it is sure that it honours every setting that was chosen.

    Raises:
        RegistryError: there is none.
        ConfigError: a setting differs from its default and means nothing to this compiler.
    """
    compiler = get(name)
    chosen = [field for field, about in type(settings).model_fields.items() if getattr(settings, field) != about.default]
    for field in chosen:
        if field not in compiler.HONOURS:
            others = [other for other in registry.names(FOLDER) if field in get(other).HONOURS]
            raise ConfigError(f"The method `{name}` has no use for `{field}`, which is for {', '.join(others)}. Leave it out.")
    return compiler

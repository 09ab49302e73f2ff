"""What a compiler is: a way to turn a text into a prefix. A compiler is a module in `compilers/` with one function, `compile_source`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from foreword import registry

if TYPE_CHECKING:
    from foreword.engine import Differentiable
    from foreword.prefix.artifact import Prefix

FOLDER = "foreword.compiling.compilers"


class Compiler(Protocol):
    """A module that makes a prefix from a text."""

    def compile_source(self, engine: Differentiable, text: str, *, name: str, chat: bool = False) -> Prefix:
        """A prefix that stands for `text`.

        Args:
            engine: the model that reads the text.
            text: what the prefix is to hold.
            name: the prefix's name.
            chat: the text is the system message of a conversation; otherwise it stands as it is, before all turns.

        Raises:
            PrefixError: the text is empty, or the name is not allowed.
            WindowError: the text leaves no room in the model's window.
            ModelError: the model's chat template cannot be continued after the text.
        """
        ...


def get(name: str) -> Compiler:
    """The compiler called `name`.

    Raises:
        RegistryError: there is none.
    """
    return cast(Compiler, registry.find(FOLDER, name))

"""What an embedder is: a way to turn texts into vectors that are near where the texts are alike.

Concrete ones live in `embedders/`: a module with one function, `load`. No tensor library is reached from here.

Axes: N text, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from foreword import registry

if TYPE_CHECKING:
    import numpy as np

FOLDER = "foreword.retrieval.embedders"
DEFAULT = "wordllama"


class Embedder(Protocol):
    """Turns texts into vectors. Safe to use from several threads at once."""

    @property
    def name(self) -> str:
        """`key/model`: the name it is looked up by, and which of its models it is. Vectors of different names do not compare."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors N D of the texts in order, float32, of length 1; of length 0 for a text that says nothing, such as an empty one."""
        ...


def get(name: str = DEFAULT) -> Embedder:
    """The embedder called `name`, loaded.

    Args:
        name: a key such as `wordllama`, or an embedder's own name such as `wordllama/l2-supercat-256`.

    Raises:
        RegistryError: there is none.
        ModelError: its package is not installed, or it is no longer the same model.
    """
    key, _, model = name.partition("/")
    embedder: Embedder = registry.find(FOLDER, key).load()
    if model and embedder.name != name:
        from foreword.errors import ModelError

        raise ModelError(f"`{name}` is wanted, and the installed embedder is `{embedder.name}`. Make the vectors again with that one.")
    return embedder

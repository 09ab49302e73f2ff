"""A model as a comparison names it: `smollm2`, or with the engine that loads it, `scripted:arithmetic`."""

from __future__ import annotations

from typing import Any

from foreword import registry

FOLDER = "foreword.engines"
REFERENCE = "transformers"


def split(name: str) -> tuple[str, str]:
    """The engine's key and the model's name; without an engine, the reference engine and the whole name.

    Only what stands before a colon and is an engine's key counts as one, so that paths and addresses stay whole.
    """
    key, colon, rest = name.partition(":")
    return (key, rest) if colon and rest and key in registry.names(FOLDER) else (REFERENCE, name)


def load(name: str, *, dtype: str = "auto", device: str = "auto") -> Any:
    """The engine that a name means, loaded.

    Raises:
        ModelError: there is no such model, or it cannot be loaded.
    """
    key, model = split(name)
    return registry.find(FOLDER, key).load(model, dtype=dtype, device=device)

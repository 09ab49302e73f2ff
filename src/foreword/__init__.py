"""Everything you can do to a language model without touching its weights.

    import foreword as fw

    model = fw.load("smollm2")
    prefix = fw.tune(model, "train.jsonl", dev="dev.jsonl", positions=32)
    print(model.generate("name[Aromi], food[Chinese]", prefix=prefix))

Names are imported when they are first used, so `import foreword` stays light and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.api import compile_text, load, tune
    from foreword.errors import ForewordError
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.store import PrefixStore
    from foreword.types import Message, Sampling

    __version__: str

__all__ = [
    "ForewordError",
    "Message",
    "Prefix",
    "PrefixStore",
    "Sampling",
    "__version__",
    "compile_text",
    "load",
    "tune",
]

_HOMES = {
    "ForewordError": "foreword.errors",
    "Message": "foreword.types",
    "Prefix": "foreword.prefix.artifact",
    "PrefixStore": "foreword.prefix.store",
    "Sampling": "foreword.types",
    "compile_text": "foreword.api",
    "load": "foreword.api",
    "tune": "foreword.api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("foreword")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module `foreword` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

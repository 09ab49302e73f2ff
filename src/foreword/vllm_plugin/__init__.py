"""What loads inside vLLM's own processes: a KV connector and an ASGI middleware. Names load on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.vllm_plugin.connector import PrefixConnector
    from foreword.vllm_plugin.middleware import PrefixMiddleware

_HOMES = {"PrefixConnector": "connector", "PrefixMiddleware": "middleware"}

__all__ = ["PrefixConnector", "PrefixMiddleware"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""The artifact: keys and values for N virtual positions that stand before a prompt. Names load on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix
    from foreword.prefix.header import Fingerprint, Geometry, PrefixHeader, RotaryGroup, read_header
    from foreword.prefix.operations import compose, dequantize, diff, quantize, shift, verify
    from foreword.prefix.store import PrefixStore, Reference, default_root

_HOMES = {
    "Fingerprint": "header",
    "Geometry": "header",
    "Prefix": "artifact",
    "PrefixHeader": "header",
    "PrefixStore": "store",
    "Reference": "store",
    "RotaryGroup": "header",
    "compose": "operations",
    "default_root": "store",
    "dequantize": "operations",
    "diff": "operations",
    "quantize": "operations",
    "read_header": "header",
    "shift": "operations",
    "verify": "operations",
}

__all__ = [
    "Fingerprint",
    "Geometry",
    "Prefix",
    "PrefixHeader",
    "PrefixStore",
    "Reference",
    "RotaryGroup",
    "compose",
    "default_root",
    "dequantize",
    "diff",
    "quantize",
    "read_header",
    "shift",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

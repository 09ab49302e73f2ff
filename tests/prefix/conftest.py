"""Small real prefixes. Axes: L layer, H KV head, N virtual position, D head dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from foreword.prefix.artifact import DTYPES, Prefix
from foreword.prefix.header import Fingerprint, Geometry, RotaryGroup

MakePrefix = Callable[..., Prefix]

FINGERPRINT = Fingerprint(architecture="LlamaForCausalLM", config="0" * 64, weights="1" * 64, tokenizer="2" * 64, chat_template="3" * 64)
GEOMETRY = Geometry(
    layers=2,
    kv_heads=3,
    head_dim=8,
    rotary=(RotaryGroup(layers=(0, 1), rotary_dim=8, inverse_frequencies=(1.0, 0.1, 0.01, 0.001)),),
)


def build(*, positions: int = 5, dtype: str = "float32", seed: int = 0, **changes: Any) -> Prefix:
    fields: dict[str, Any] = {
        "name": "support",
        "kind": "learned",
        "fingerprint": FINGERPRINT,
        "geometry": GEOMETRY,
        "prompt_format": "full",
    } | changes
    geometry = fields["geometry"]
    generator = torch.Generator().manual_seed(seed)
    shape = (geometry.layers, geometry.kv_heads, positions, geometry.head_dim)
    for label in ("key", "value"):
        if dtype == "int8":
            fields.setdefault(f"{label}_LHND", torch.randint(-127, 128, shape, generator=generator).to(torch.int8))
            fields.setdefault(f"{label}_scale_LHN", torch.rand(shape[:3], generator=generator))
        else:
            fields.setdefault(f"{label}_LHND", torch.randn(shape, generator=generator).to(DTYPES[dtype]))
    return Prefix.make(**fields)


@pytest.fixture(scope="session")
def make_prefix() -> MakePrefix:
    """`make_prefix(positions=5, dtype="float32", seed=0, **anything Prefix.make takes)`."""
    return build


@pytest.fixture(scope="session")
def fingerprint() -> Fingerprint:
    return FINGERPRINT


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return GEOMETRY

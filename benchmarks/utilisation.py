"""How much of the machine's matrix-multiply speed training reaches, for each dtype."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import shared_tasks
from benchmarks.tuning_speed import OUR_RATES, Ours, set_up
from foreword.engines._packed import pack_linear_layers

SIZE, REPEATS, STEPS = 4096, 3, 4


def measure(data: Path) -> dict[str, Any]:
    """FLOP/s of training on E2E, of a large matrix product, and their ratio, by dtype."""
    return {dtype: _one(data, dtype) for dtype in ("bfloat16", "float32")}


def _one(data: Path, dtype: str) -> dict[str, float]:
    engine, rows, start = set_up(shared_tasks.e2e(data, pairs=None, seed=0), dtype)
    ours = Ours(engine, rows, start, STEPS + 1, rate=OUR_RATES["e2e"])
    ours.step()
    peak = _peak(engine.dtype)
    fed = targets = 0
    began = time.perf_counter()
    for _ in range(STEPS):
        ours.step()
        fed, targets = fed + ours.last.fed_tokens, targets + ours.last.target_tokens
    seconds = time.perf_counter() - began
    head = engine.module.get_output_embeddings().weight.numel()
    body = engine.parameters - head
    # Two operations per weight forwards, two backwards (the input's gradient only: no weight has one); the output
    # embedding at target tokens alone. Attention is left out, so the share is a little too low.
    flops = 4 * body * fed + 4 * head * targets
    return {"flops_per_second": flops / seconds, "peak_flops_per_second": peak, "share": flops / seconds / peak}


def _peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large product, by torch's own path or with the weight laid out as the engine does it, whichever is faster."""
    layer = nn.Linear(SIZE, SIZE, bias=False, dtype=dtype).requires_grad_(False)
    laid_out = nn.Sequential(nn.Linear(SIZE, SIZE, bias=False, dtype=dtype).requires_grad_(False))
    pack_linear_layers(laid_out)
    rows = torch.randn(SIZE, SIZE).to(dtype)
    best = float("inf")
    for product in (layer, laid_out) * (1 + REPEATS):
        began = time.perf_counter()
        product(rows)
        best = min(best, time.perf_counter() - began)
    return 2 * SIZE**3 / best

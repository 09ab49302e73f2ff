"""Questions of two kinds, of which a small model gets one right and a strong one both, as a table for routers."""

from __future__ import annotations

import random

import numpy as np

from foreword.gateway.routing.table import Table

EASY = ("colour", "animal", "capital", "river", "fruit")
HARD = ("theorem", "integral", "lemma", "topology", "manifold")


def question(kind: str, number: int) -> str:
    """One of many of its kind: `easy` or `hard`."""
    word = random.Random(number).choice(EASY if kind == "easy" else HARD)
    return f"Tell me about the {word} with the number {number}." if kind == "easy" else f"Prove the {word} with the number {number}."


def table(rows: int = 400, *, seed: int = 0, noise: float = 0.05, costs: tuple[float, float] = (1.0, 20.0)) -> Table:
    """`small` gets the easy half right and `strong` everything, but for a share of `noise`."""
    generator = np.random.default_rng(seed)
    kinds = ["easy" if generator.random() < 0.5 else "hard" for _ in range(rows)]
    right_NK = np.array([[kind == "easy", True] for kind in kinds], dtype=np.float64)
    flipped_NK = generator.random((rows, 2)) < noise
    questions = tuple(question(kind, number) for number, kind in enumerate(kinds, start=seed * 100_000))
    return Table(
        tiers=("small", "strong"),
        questions=questions,
        groups=questions,
        success_NK=np.where(flipped_NK, 1 - right_NK, right_NK),
        cost_NK=np.tile(np.array(costs), (rows, 1)),
    )

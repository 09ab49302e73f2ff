import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.routing import READERS, Size, measure

from routed_questions import table

pytest.importorskip("wordllama", reason="the embedder is not installed")

PRICES = {
    "mistralai/mixtral-8x7b-instruct": (0.6, 0.6),
    "gpt-4-1106-preview": (10, 30),
    "gpt-3.5-turbo-1106": (1, 2),
}


def packed(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The same questions in the form of each of the data sets."""
    given = table(300)
    rows = [(text, float(small), float(strong)) for text, (small, strong) in zip(given.questions, given.success_NK, strict=True)]

    def write(name: str, form: Callable[[str, float, float], dict[str, Any]]) -> None:
        packed(tmp_path / name, [form(*row) for row in rows])

    def bench(text: str, small: float, strong: float) -> dict[str, Any]:
        # What tells the questions apart comes first: those that begin alike are kept together.
        prompt = repr([f"An example.\nAnswer: A\n\n{' '.join(reversed(text.split()))}"])
        return {"prompt": prompt, "score": {"dear": strong, "cheap": small}, "cost": {"dear": 0.01, "cheap": 0.0001}}

    write("routerbench/train.jsonl.gz", bench)
    write("routellm/mmlu_dev.jsonl.gz", lambda text, a, b: {"prompt": text, "weak_mixtral_8x7b": bool(a), "strong_gpt4_1106": bool(b)})
    write("llmrouter/train.jsonl.gz", lambda text, a, b: {"question": text, "scores": {"dear": b, "cheap": a}})
    write(
        "alpaca_eval/dev.jsonl.gz",
        lambda text, a, b: {
            "instruction": text,
            "pref": {"gpt-3.5-turbo-1106": a / 2, "gpt4_1106_preview": 0.5},
            "len": {"gpt-3.5-turbo-1106": 400, "gpt4_1106_preview": 500},
        },
    )
    (tmp_path / "llmrouter/prices.json").write_text(json.dumps({"dear": {"input_price": 0.9}, "cheap": {"input_price": 0.1}}))
    (tmp_path / "routerarena").mkdir()
    costs = {name: {"input_token_price_per_million": a, "output_token_price_per_million": b} for name, (a, b) in PRICES.items()}
    (tmp_path / "routerarena/cost.json").write_text(json.dumps(costs))
    return tmp_path


def test_tiers_are_put_in_the_order_of_their_price(data: Path) -> None:
    tables = {name: reader(data) for name, reader in READERS.items()}
    assert tables["routerbench"].tiers == tables["llmrouter"].tiers == ("cheap", "dear")
    assert tables["routellm"].tiers == ("weak_mixtral_8x7b", "strong_gpt4_1106")
    for found in tables.values():
        assert (found.cost_NK[:, 0] < found.cost_NK[:, 1]).all()
        assert (found.success_NK[:, 1].mean() > found.success_NK[:, 0].mean()) and len(found) == 300


def test_wordings_that_begin_alike_are_kept_together(data: Path) -> None:
    found = READERS["llmrouter"](data)
    assert all(group == question.strip()[:60] for group, question in zip(found.groups, found.questions, strict=True))


def test_measures_all_figures(data: Path) -> None:
    *_, figures = measure(data, Size(share=1.0, resamples=20, times=10))
    assert figures["dataset"] == list(READERS)
    for key in ("saving_at_95", "saving_low", "saving_high", "area", "area_random", "best_single"):
        assert len(figures[key]) == len(READERS)
    for found in figures["datasets"].values():
        assert found["area"] > 0.6
        assert found["saving_low"] <= found["saving_at_95"] <= found["saving_high"]
        assert found["best_single"]["saving"] == 0
        assert found["rows_learned"] + found["rows_judged"] == 300
        assert found["choice_p50_ms"] > 0

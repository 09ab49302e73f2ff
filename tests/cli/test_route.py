from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from foreword.cli import route
from foreword.cli._console import ForewordGroup
from foreword.gateway.routing import Router
from foreword.retrieval import embedder
from routed_questions import table

root = typer.Typer(cls=ForewordGroup, pretty_exceptions_enable=False)
root.add_typer(route.app, name="route")


@root.callback()
def _root(verbose: bool = False) -> None:
    """As in the whole command line."""


def foreword(*arguments: Any) -> Result:
    return CliRunner().invoke(root, ["route", *map(str, arguments)], env={"COLUMNS": "80"})


def write(path: Path, seed: int, *, costs: bool = False) -> Path:
    """A table as CSV."""
    given = table(300, seed=seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", *given.tiers, *([f"cost:{tier}" for tier in given.tiers] if costs else [])])
        for text, success_K, cost_K in zip(given.questions, given.success_NK, given.cost_NK, strict=True):
            writer.writerow([text, *success_K, *(cost_K if costs else [])])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables, and a router that was fitted to the first."""
    folder = tmp_path_factory.mktemp("routes")
    write(folder / "answers.csv", 0, costs=True)
    write(folder / "later.csv", 1)
    done = foreword("fit", "--table", folder / "answers.csv", "--tiers", "small, strong", "-o", folder / "router.safetensors", "--json")
    assert done.exit_code == 0, done.output
    (folder / "fit.json").write_text(done.stdout)
    return folder


def test_fit_tells_what_it_is_worth(folder: Path):
    told = json.loads((folder / "fit.json").read_text())
    assert told["path"] == str(folder / "router.safetensors")
    assert told["rows_learned"] + told["rows_judged"] == 300
    assert told["saving_low"] <= told["saving"] <= told["saving_high"]
    assert told["area"] > told["area_random"]
    assert told["best_single"] == {"model": "strong", "saving": 0.0}
    assert set(told["chosen"]["asked"]) == {"small", "strong"}
    router = Router.read(folder / "router.safetensors", embedder.get())
    assert router.tiers == ("small", "strong")
    assert router.header.measured["rows_judged"] == told["rows_judged"]


def test_fit_shows_a_table_and_draws(folder: Path, tmp_path: Path):
    done = foreword(
        *("fit", "--table", folder / "later.csv", "--tiers", "small,strong", "--costs", "1,20"),
        *("-o", tmp_path / "r.safetensors", "--plot", tmp_path / "curve.svg"),
    )
    assert done.exit_code == 0, done.output
    assert "strong (most accurate)" in done.stdout
    assert "Without a router: one model 0.0%" in done.stdout
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")


def test_eval_of_the_same_table_counts_what_was_held_out(folder: Path):
    judge = ("eval", "--table", folder / "answers.csv", "--router", folder / "router.safetensors", "--json")
    held_out, everything = foreword(*judge), foreword(*judge, "--all")
    fitted = json.loads((folder / "fit.json").read_text())
    told = json.loads(held_out.stdout)
    assert "only the questions that were held out count" in held_out.stderr
    for key in ("rows_judged", "saving", "saving_low", "area", "chosen"):
        assert told[key] == fitted[key]
    assert json.loads(everything.stdout)["rows_judged"] == 300


def test_eval_of_another_table(folder: Path, tmp_path: Path):
    done = foreword(
        *("eval", "--table", folder / "later.csv", "--router", folder / "router.safetensors", "--costs", "1,20"),
        *("--keep", "0.9", "--plot", tmp_path / "c.png", "--json"),
    )
    told = json.loads(done.stdout)
    assert (told["rows_judged"], told["keep"]) == (300, 0.9)
    assert np.allclose(told["cost"]["strong"], 20)
    assert (tmp_path / "c.png").is_file()


def test_a_router_that_learned_from_everything_is_judged_on_nothing(folder: Path, tmp_path: Path):
    out = tmp_path / "r.safetensors"
    learned = foreword("fit", "--table", folder / "answers.csv", "--tiers", "small,strong", "-o", out, "--held-out", "0")
    assert learned.exit_code == 0, learned.output
    assert "nothing was held out" in learned.stderr
    done = foreword("eval", "--table", folder / "answers.csv", "--router", out)
    assert done.exit_code == 2
    assert "learned from every row" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--tiers", "small,strong", "--costs", "one,two"), "numbers between commas"),
        (("--tiers", "small,strong", "--costs", "1"), "one for each"),
        (("--tiers", "small,strong"), "no column `cost:small`"),
        (("--tiers", "small,weak", "--costs", "1,2"), "no column `weak`"),
        (("--tiers", "small", "--costs", "1"), "two different models"),
    ],
)
def test_what_cannot_be_used_is_told(folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str):
    out = tmp_path / "r.safetensors"
    done = foreword("fit", "--table", folder / "later.csv", "-o", out, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not out.exists()


def test_a_table_that_is_not_there(tmp_path: Path):
    done = foreword("fit", "--table", tmp_path / "none.csv", "--tiers", "a,b", "-o", tmp_path / "r.safetensors")
    assert done.exit_code == 2
    assert "none.csv" in done.stderr

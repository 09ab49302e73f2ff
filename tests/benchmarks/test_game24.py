"""The search's benchmark on a handful of puzzles: what is counted, and that its peer is the harder way."""

from __future__ import annotations

from pathlib import Path

from benchmarks import game24

from foreword.prompting import strategy


def test_exact_thoughts_solve_puzzles_in_fewer_expansions_than_without_judgements() -> None:
    figures = game24.exact([(4, 9, 10, 13), (3, 3, 8, 8), (1, 5, 5, 5)])
    assert figures["solved"] == figures["solved_dfs"] == 1.0 and figures["bars_held"]
    assert figures["expansions_dfs"] == 9 <= figures["expansions"] < figures["expansions_without_evaluation"]
    assert figures["ratio"] == figures["expansions_without_evaluation"] / figures["expansions"]
    alone = figures["searches"]["without evaluation"]
    assert alone["calls"] == alone["expansions_mean"] and alone["ended"]["answered"] == 3
    assert figures["searches"]["bfs"]["puzzles_with_fewer_than_without_evaluation"] == 3


def test_every_way_to_ask_can_be_read() -> None:
    assert all(strategy.parse(text) for text in (*game24.EXACT.values(), *game24.SMALL.values()))


def test_all_puzzles_are_read(shared_data: Path) -> None:
    found = game24.puzzles(shared_data)
    assert len(found) == 1_262 == len(set(found)) and all(len(numbers) == 4 for numbers in found)

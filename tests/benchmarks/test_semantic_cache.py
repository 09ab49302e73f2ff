import gzip
import json
from pathlib import Path

import pytest
from benchmarks.semantic_cache import BOUNDS, Judgements, Size, measure, read, upper_limit

pytest.importorskip("usearch", reason="the semantic cache's index is not installed")


def pairs() -> list[dict[str, object]]:
    """Eighty things, each asked about in four ways; two of them mean the same, and two are about another thing of the same name."""
    things = [f"{one}{two}" for one in "bdfgklmnps" for two in ("allot", "ecker", "indle", "ossom", "unter", "aple", "ivet", "orgon")]
    rows = []
    for thing in things:
        ways = (f"How do I clean a {thing}?", f"How can I clean a {thing}?", f"Where is a {thing} sold?", f"Why is a {thing} so dear?")
        rows.append({"text_a": ways[0], "text_b": ways[1], "label": 1})
        rows += [{"text_a": ways[0], "text_b": way, "label": 0} for way in ways[2:]]
    return rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "qqp_cache"
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in pairs())
    (folder / "some.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "other.jsonl").write_text('{"origin": "not a pair", "similar": "of this kind"}\n')
    return tmp_path


def test_reads_every_file_of_judged_pairs(data: Path) -> None:
    assert list(read(data)) == pairs()


def test_duplicates_of_duplicates_are_duplicates_and_the_rest_is_not_judged() -> None:
    rows = [("a", "b", 1), ("b", "c", 1), ("c", "d", 0), ("e", "f", 1)]
    judgements = Judgements({"text_a": one, "text_b": other, "label": label} for one, other, label in rows)
    assert judgements.same("a", "c") is True
    assert judgements.same("a", "d") is False
    assert judgements.same("d", "a") is False
    assert judgements.same("a", "e") is None
    assert judgements.group["a"] == judgements.group["d"] != judgements.group["e"]


def test_the_upper_limit_of_a_rate() -> None:
    # Of none in n it is 1 - 0.05 ** (1 / n), the exact rule of three.
    assert upper_limit(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert upper_limit(3, 100) > 0.03
    assert upper_limit(5, 5) == 1.0


def test_measures_all_figures(data: Path) -> None:
    size = Size(share=1.0, orders=(0,), more=False, entries=200, look_ups=20)
    *_, figures = measure(data, size)
    assert figures["bound"] == list(BOUNDS)
    assert all(len(figures[key]) == len(BOUNDS) for key in ("wrong_hit_upper", "hit_rate", "fixed_hit_rate"))
    assert figures["lookup_p50_ms"] > 0
    half = figures["runs"][0]["bounds"]["0.05"]
    assert half["requests"] == figures["runs"][0]["questions"] // 2
    assert half["wrong_rate"] <= half["hit_rate"]

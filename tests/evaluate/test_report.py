from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from foreword.cost.prices import Price
from foreword.evaluate import report
from foreword.evaluate.comparison import Comparison
from foreword.evaluate.row import Asking, ContenderRow, Difference, Estimate, Measured, Sample

HOSTILE = "<script>alert('x')</script> & | `y`"


def measured(value: float, **fields: Any) -> Measured:
    values: dict[str, Any] = {
        "quality": Estimate(value=value, low=value - 2, high=value + 2),
        "scores": {"bleu": value, "rouge-l": 0.5},
        "successes": 30,
        "success_rate": Estimate(value=0.3, low=0.2, high=0.4),
        "trained_parameters": 0,
        "artifact_bytes": 0,
        "prefix_positions": 0,
        "prompt_tokens": 61.4,
        "completion_tokens": 20.0,
        "latency_seconds": 0.42,
        "training_seconds": 0.0,
        "training_memory_bytes": 10**9,
        "peak_memory_bytes": 2 * 10**9,
        "machine_seconds_per_request": 0.1,
        "machine_seconds_per_success": 0.333,
        "cost_per_request": Decimal("0.0001"),
        "cost_per_success": Decimal("0.000333"),
        "training_cost": Decimal(0),
        "against_reference": Difference(value=-43.2, low=-50, high=-40, p_value=0.001, p_adjusted=0.002),
        "dtype": "bfloat16",
        "notes": (),
        "sample_answers": ("an answer",),
    }
    return Measured(**values | fields)


@pytest.fixture
def comparison() -> Comparison:
    prefix = measured(
        56.1,
        trained_parameters=368_640,
        artifact_bytes=740_000,
        prefix_positions=32,
        training_seconds=80.0,
        against_reference=None,
        notes=(f"note {HOSTILE}",),
    )
    return Comparison(
        task="e2e",
        kind="generation",
        primary="bleu",
        higher_is_better=True,
        success_rule="rouge-l ≥ 0.5",
        model="smollm2",
        device="cpu",
        budget_seconds=80,
        clock="wall",
        seed=0,
        train_rows=800,
        dev_rows=100,
        reference="prefix:e2e",
        price=Price(machine_hour=Decimal("0.4")),
        machine="Linux x86_64, 2 CPU cores",
        versions={"torch": "2.13.0"},
        created=datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
        samples=(Sample(prompt=f"name[{HOSTILE}]", references=("wanted",)),),
        rows=(
            ContenderRow(contender="zero-shot", measured=measured(12.9, sample_answers=(HOSTILE,))),
            ContenderRow(contender="prefix:e2e", measured=prefix),
            ContenderRow(contender="finetune", failed=f"Memory ran out.\n{HOSTILE}"),
        ),
    )


class Structure(HTMLParser):
    """Checks that tags nest, and remembers what there is."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def test_the_terminal_table_has_the_best_first_and_failures_apart(comparison: Comparison) -> None:
    table = report.to_table(comparison)
    assert [row[0] for row in table.rows] == ["prefix:e2e", "zero-shot"]
    assert all(len(row) == len(table.headers) for row in table.rows)
    cells = dict(zip(table.headers, table.rows[0], strict=True))
    assert cells["bleu"] == "56.1 [54.1, 58.1]"
    assert cells["vs prefix:e2e"] == "reference"
    assert cells["positions"] == "93 (32 prefix)"
    assert (cells["trained"], cells["artifact"], cells["training"], cells["memory"]) == ("369 k", "740 kB", "80.0 s", "2.0 GB")
    assert cells["cost/success"] == "0.000333"
    assert dict(zip(table.headers, table.rows[1], strict=True))["vs prefix:e2e"] == "−43.2 (p < .01)"
    assert table.failures == (("finetune", f"Memory ran out.\n{HOSTILE}"),)


def test_without_a_price_the_cost_is_machine_time(comparison: Comparison) -> None:
    bare = measured(5.0, cost_per_success=None, cost_per_request=None)
    free = comparison.model_copy(update={"price": None, "rows": (ContenderRow(contender="zero-shot", measured=bare),)})
    cells = dict(zip(report.to_table(free).headers, report.to_table(free).rows[0], strict=True))
    assert cells["cost/success"] == "333 ms"
    assert "No price was given." in report.to_markdown(free)


def test_markdown_is_one_table_with_its_pipes_escaped(comparison: Comparison) -> None:
    text = report.to_markdown(comparison)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "- **finetune** failed: Memory ran out." in text
    assert "0.4 USD per machine-hour" in text


def test_json_reads_back(comparison: Comparison) -> None:
    assert Comparison.model_validate_json(report.to_json(comparison)) == comparison
    assert json.loads(report.to_json(comparison))["rows"][1]["measured"]["cost_per_success"] == "0.000333"


def test_the_page_stands_alone_nests_and_escapes(comparison: Comparison) -> None:
    page = report.to_html(comparison)
    structure = parsed(page)
    assert "<script>alert" not in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert [tag for tag, _ in structure.tags].count("svg") == 4
    assert '<html lang="en">' in page and "prefers-color-scheme: dark" in page
    assert "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.S), "a placeholder of the template is left"


def test_the_table_can_be_sorted_by_every_column(comparison: Comparison) -> None:
    structure = parsed(report.to_html(comparison))
    buttons = [attributes["data-column"] for tag, attributes in structure.tags if tag == "button"]
    titles = report.to_table(comparison).headers
    assert buttons == [str(index) for index in range(len(titles))]
    values = [attributes["data-value"] for tag, attributes in structure.tags if tag == "td" and "data-value" in attributes]
    assert len(values) == 2 * (len(titles) - 1)
    assert all(value == "" or math.isfinite(float(value or "")) for value in values)
    assert [attributes.get("class") for tag, attributes in structure.tags if tag == "tr"].count("failed") == 1


def test_pictures_are_sound_and_speak(comparison: Comparison) -> None:
    for picture in re.findall(r"<svg.*?</svg>", report.to_html(comparison), flags=re.S):
        root = ElementTree.fromstring(picture)
        assert root.attrib["role"] == "img"
        assert "prefix:e2e" in root.attrib["aria-label"] and "zero-shot" in root.attrib["aria-label"]
        width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
        for shape in root.iter():
            for name in ("x", "cx", "x1", "x2"):
                assert 0 <= float(shape.attrib.get(name, 0)) <= width
            for name in ("y", "cy", "y1", "y2"):
                assert 0 <= float(shape.attrib.get(name, 0)) <= height


def test_the_data_in_the_page_is_the_comparison(comparison: Comparison) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.to_html(comparison), flags=re.S)
    assert found is not None
    assert Comparison.model_validate_json(found.group(1)) == comparison


@pytest.mark.parametrize(
    "rows",
    [
        (ContenderRow(contender="lora", failed="no"),),
        (ContenderRow(contender="a", measured=measured(0.0, quality=Estimate(value=0, low=0, high=0))),),
        (ContenderRow(contender="a", measured=measured(1.0, quality=Estimate(value=math.inf, low=1, high=math.inf))),),
        (ContenderRow(contender="a", measured=measured(-3.0)), ContenderRow(contender="b", measured=measured(-5.0))),
    ],
    ids=["all failed", "all zero", "infinite", "negative"],
)
def test_odd_tables_still_make_a_page(comparison: Comparison, rows: tuple[ContenderRow, ...]) -> None:
    odd = comparison.model_copy(update={"rows": rows, "reference": None})
    parsed(report.to_html(odd))
    assert report.to_markdown(odd)
    assert Comparison.model_validate_json(report.to_json(odd)) == odd


def test_a_table_with_strategies_shows_how_they_asked(comparison: Comparison) -> None:
    asking = Asking(
        first_answer=Estimate(value=0.2, low=0.1, high=0.3),
        any_of_k=Estimate(value=0.6, low=0.5, high=0.7),
        answers=9.5,
        calls=12.25,
        statuses={"budget": 1, "answered": 98, "failed": 1},
        reasons={"The budget of 20 calls is spent.": 1, f"It never said it: {HOSTILE}": 1},
    )
    voted = ContenderRow(contender="self-consistency", strategy=True, measured=measured(20.0, prompt_tokens=1234.0, asking=asking))
    plain = ContenderRow(contender="zero-shot", measured=measured(12.9))
    several = comparison.model_copy(update={"rows": (plain, voted), "reference": "self-consistency"})
    table = report.to_table(several)
    cells = {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}
    wanted = {"first": "20%", "any of k": "60% of 9.5", "calls": "12.2", "tokens": "1,234 + 20", "cost": "0.000100"}
    assert wanted.items() <= cells["self-consistency"].items()
    assert cells["self-consistency"]["ended"] == "98 answered, 1 out of budget, 1 failed"
    single = {"first": "30%", "any of k": "30%", "calls": "1", "success": "30% [20%, 40%]"}
    assert single.items() <= cells["zero-shot"].items(), "what asks once has one answer"
    assert not {"trained", "artifact", "training", "positions"} & set(table.headers)
    assert "1 × The budget of 20 calls is spent." in report.to_markdown(several)
    page = report.to_html(several)
    parsed(page)
    assert "1 rows: The budget of 20 calls is spent." in page and "<script>alert" not in page
    assert Comparison.model_validate_json(report.to_json(several)) == several


def test_one_that_trained_beside_strategies_keeps_its_columns(comparison: Comparison) -> None:
    rows = (*comparison.rows, ContenderRow(contender="cot", strategy=True, measured=measured(20.0)))
    assert {"first", "trained", "training"} <= set(report.to_table(comparison.model_copy(update={"rows": rows})).headers)


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.md"
    report.write("one", target)
    report.write("two", target)
    assert target.read_text() == "two"
    assert list(target.parent.iterdir()) == [target]

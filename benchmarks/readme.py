"""Writes the committed results into the README and draws its picture: `python -m benchmarks.readme [--check]`.

Every table between `<!-- table:NAME -->` and `<!-- /table -->` is made from `benchmarks/results/`; nothing is typed in.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tuning import PARTS
from foreword.evaluate.comparison import Comparison
from foreword.evaluate.report import to_markdown

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "comparison.png"
TABLES = {"e2e": "e2e-table", "hate-speech": "hate-table"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills the tables; with `--check`, only says whether they are current."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a table is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = _filled(before)
        if after != before:
            stale.append(str(page.relative_to(ROOT)))
            if not options.check:
                page.write_text(after, encoding="utf-8")
    if not options.check:
        _draw()
    sys.stdout.write(f"{'out of date' if options.check else 'written'}: {', '.join(stale) or 'none'}\n")
    return 1 if options.check and stale else 0


def _filled(text: str) -> str:
    for name, part in TABLES.items():
        comparison = _comparison(part)
        if comparison is not None:
            pattern = rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)"
            table = to_markdown(comparison).strip()
            text = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, flags=re.DOTALL)
    return text


def _comparison(part: str) -> Comparison | None:
    path = PARTS / f"{part}.json"
    return Comparison.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _draw() -> None:
    """Quality against prompt positions, one panel a task: what each way of steering costs at every request."""
    from matplotlib.figure import Figure

    found = [comparison for part in TABLES.values() if (comparison := _comparison(part)) is not None]
    if not found:
        return
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for axes, comparison in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for row in comparison.rows:
            if (measured := row.measured) is None:
                continue
            value = measured.quality
            ours = row.contender.startswith("prefix")
            axes.errorbar(
                measured.prompt_positions,
                value.value,
                yerr=[[value.value - value.low], [value.high - value.value]],
                marker="*" if ours else "o",
                markersize=14 if ours else 7,
                color="C3" if ours else "C0",
                capsize=3,
            )
            axes.annotate(row.contender, (measured.prompt_positions, value.value), xytext=(7, 5), textcoords="offset points", fontsize=9)
        axes.set(xscale="log", xlabel="positions attended before the answer (log)", ylabel=comparison.primary, title=comparison.task)
        axes.margins(x=0.18)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    sys.exit(main())

"""Writes the committed results into the README and draws its picture: `python -m benchmarks.readme [--check]`.

Every table between `<!-- table:NAME -->` and `<!-- /table -->` is made from `benchmarks/results/`; nothing is typed in.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.picture import draw

from benchmarks import figures
from benchmarks.tuning import PARTS
from foreword.evaluate.comparison import Comparison
from foreword.evaluate.report import to_markdown

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "comparison.svg"
TABLES = {"e2e": ("e2e-table", "e2e-32-positions"), "hate-speech": ("hate-table",)}
"""Each table's parts; the rows of all of them, which were judged on the same dev rows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fills the tables; with `--check`, only says whether they are current."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a table is out of date")
    options = parser.parse_args(arguments)
    if not options.check and (found := [comparison for parts in TABLES.values() if (comparison := _comparison(parts)) is not None]):
        draw(found, PICTURE)
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = _filled(before)
        if after != before:
            stale.append(str(page.relative_to(ROOT)))
            if not options.check:
                page.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{'out of date' if options.check else 'written'}: {', '.join(stale) or 'none'}\n")
    return 1 if options.check and stale else 0


def _filled(text: str) -> str:
    for name, parts in TABLES.items():
        if (comparison := _comparison(parts)) is not None:
            there = [part for part in parts if (PARTS / f"{part}.json").is_file()]
            command = f"Made by `python -m benchmarks.tuning --only {','.join(there)}`; budgets are processor seconds of one thread."
            text = _between(text, f"table:{name}", "table", f"{to_markdown(comparison).strip()}\n\n{command}")
    text = _between(text, "table:figures", "table", figures.table())
    text = _between(text, "table:dictionary", "table", figures.dictionary_table())
    text = _between(text, "table:path", "table", figures.path_table())
    text = _between(text, "table:intake", "table", figures.intake_table())
    if PICTURE.is_file():
        picture = "![Quality against the positions that every request attends to.](docs/images/comparison.svg)"
        text = _between(text, "picture:comparison", "picture", picture)
    return text


def _between(text: str, start: str, end: str, content: str) -> str:
    pattern = rf"(<!-- {start} -->\n).*?(<!-- /{end} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)


def _comparison(parts: Sequence[str]) -> Comparison | None:
    """The first part's comparison with the rows of the others."""
    found = [
        Comparison.model_validate_json(path.read_text(encoding="utf-8")) for part in parts if (path := PARTS / f"{part}.json").is_file()
    ]
    if not found:
        return None
    return found[0].model_copy(update={"rows": tuple(row for comparison in found for row in comparison.rows)})


if __name__ == "__main__":
    sys.exit(main())

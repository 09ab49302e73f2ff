"""Draws finished comparisons as one picture: quality against what every request pays in positions.

    foreword compare --task examples/support --json > support.json
    python docs/picture.py support.json --out docs/images/comparison.svg

Each file is what `foreword compare --json` prints. The same files give the same picture, byte for byte.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.evaluate.comparison import Comparison

PANEL_INCHES = (5.6, 4.2)
LABEL_GAP = 0.06
"""Least distance between two labels, as a share of the height drawn."""
OURS, OTHERS = "#3f51b5", "#7a8296"
# Fixed, so that the picture depends on nothing but the results.
STYLE = {"svg.hashsalt": "foreword", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}


def read(path: Path) -> Comparison:
    """A finished comparison from its JSON."""
    from foreword.evaluate.comparison import Comparison

    return Comparison.model_validate_json(path.read_text(encoding="utf-8"))


def draw(comparisons: Sequence[Comparison], out: Path) -> None:
    """Writes one panel per comparison to an SVG file."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        width, height = PANEL_INCHES
        figure = Figure(figsize=(width * len(comparisons), height), layout="constrained", facecolor="white")
        for axes, comparison in zip(figure.subplots(1, len(comparisons), squeeze=False)[0], comparisons, strict=True):
            panel(axes, comparison)
        out.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    # matplotlib ends lines in blanks, which no editor keeps.
    out.write_text("\n".join(line.rstrip() for line in out.read_text(encoding="utf-8").splitlines()) + "\n", encoding="utf-8")


def panel(axes: Any, comparison: Comparison) -> None:
    """One comparison: a point with its 95 % interval for each contender that ran."""
    found = [(row.contender, row.measured) for row in comparison.ranked() if row.measured is not None]
    label_heights = spread([measured.quality.value for _, measured in found], gap=LABEL_GAP * _height(found))
    for (contender, measured), label_height in zip(found, label_heights, strict=True):
        quality, positions = measured.quality, measured.prompt_positions
        ours = contender.partition(":")[0] == "prefix"
        colour = OURS if ours else OTHERS
        interval = [[quality.value - quality.low], [quality.high - quality.value]]
        axes.errorbar(positions, quality.value, yerr=interval, fmt="o", color=colour, capsize=3, linewidth=1)
        axes.annotate(
            contender,
            (positions, label_height),
            xytext=(9, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=colour,
            fontweight="bold" if ours else "normal",
        )
    axes.set_title(f"{comparison.task}: {comparison.train_rows} training rows, {comparison.dev_rows} dev rows", fontsize=10)
    axes.set_xlabel("positions before the answer, prefix and prompt")
    axes.set_ylabel(comparison.primary)
    axes.set_xlim(0, 1.35 * max(measured.prompt_positions for _, measured in found))
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Heights at least `gap` apart in the same order, moved down from the highest where they would be closer."""
    placed: dict[int, float] = {}
    limit = float("inf")
    for index in sorted(range(len(heights)), key=lambda index: -heights[index]):
        placed[index] = min(heights[index], limit)
        limit = placed[index] - gap
    return [placed[index] for index in range(len(heights))]


def _height(found: Sequence[tuple[str, Any]]) -> float:
    """Span of everything drawn."""
    return max(measured.quality.high for _, measured in found) - min(measured.quality.low for _, measured in found)


def main() -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(description="Draws finished comparisons as one picture.")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of `foreword compare --json`")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "comparison.svg")
    arguments = parser.parse_args()
    draw([read(path) for path in arguments.results], arguments.out)


if __name__ == "__main__":
    main()

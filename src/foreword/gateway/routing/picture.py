"""A router's curve as a picture, drawn with matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from foreword.errors import ConfigError
from foreword.gateway.routing.curve import Evaluation
from foreword.store.versions import write_temporary

FORMATS = ("svg", "png", "pdf")


def draw(found: Evaluation, path: Path) -> None:
    """Success against cost: the router, single models, chance, and where enough is kept.

    Raises:
        ConfigError: matplotlib is not installed, or the file's name or place cannot be used.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"A picture's name ends in {', '.join(f'.{name}' for name in FORMATS)}; got {path.name}.")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("A picture needs matplotlib. Install it: pip install 'foreword[compare]'.") from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    costs, successes = zip(*sorted(found.curve), strict=True)
    axes.plot(costs, successes, color="C0", label="router")
    cheapest = min(found.cost, key=found.cost.__getitem__)
    ends = (cheapest, found.reference)
    axes.plot([found.cost[end] for end in ends], [found.accuracy[end] for end in ends], "--", color="0.5", label="by chance")
    axes.plot(list(found.cost.values()), list(found.accuracy.values()), "o", color="C1", label="one model")
    for tier, cost in found.cost.items():
        axes.annotate(tier, (cost, found.accuracy[tier]), textcoords="offset points", xytext=(5, -10), fontsize=7, parse_math=False)
    axes.axhline(found.keep * found.accuracy[found.reference], color="0.8", linewidth=1)
    chosen = 1 - found.chosen_saving.value, found.chosen_kept.value
    place = chosen[0] * found.cost[found.reference], chosen[1] * found.accuracy[found.reference]
    axes.plot(*place, "*", color="C0", markersize=12, label="as fitted")
    axes.set_xlabel("cost of a request")
    axes.set_ylabel("success")
    axes.legend(loc="lower right", fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind)
    try:
        write_temporary(path, drawn.getvalue()).replace(path)
    except OSError as error:
        raise ConfigError(f"The picture {path} cannot be written: {error.strerror or error}. Choose another place.") from None

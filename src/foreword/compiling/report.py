"""What a text loses when it is made smaller, measured on the text at hand before one chooses: quality against size against cost.

Axes: L layer, H KV head, N virtual position, D head dimension.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foreword.compiling import compaction, references, source
from foreword.compiling.divergence import Taught, mean_divergence, teach
from foreword.compiling.observer import Observer
from foreword.compiling.settings import CompileSettings
from foreword.errors import WindowError

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

RATIOS = (4.0, 8.0, 16.0, 32.0)
METHODS = {"truncate": "truncate", "heavy-hitter": "heavy-hitter", "kvzip": "kvzip", "compact": "fitted"}
"""Name in the report, and how it chooses positions."""
LISTENING = ("kvzip", "fitted")
"""Ways to choose that need reference queries."""
LEAST_QUESTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way to make the text smaller.

    Attributes:
        positions, nbytes: size of the prefix.
        nats: mean divergence from the whole text, per token of the model's own answers to questions that no method saw.
        gain: 1 for the whole text, 0 for no text.
        prefills: processor time that it took, in units of reading the text once; what all methods share (the reference queries) is counted
            for each that needs it.
    """

    method: str
    positions: int
    nbytes: int
    nats: float
    gain: float
    prefills: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Lines in order of size, largest first; the text itself is the first.

    Attributes:
        tokens: of the text.
        questions: that quality was measured on.
        nats_without: divergence with no text at all.
    """

    tokens: int
    questions: int
    nats_without: float
    lines: tuple[Line, ...]


def report(
    engine: CompilingEngine,
    text: str,
    *,
    settings: CompileSettings,
    observer: Observer,
    ratios: Sequence[float] = RATIOS,
) -> Report:
    """Compacts the text in every way and measures each.

    Raises:
        WindowError: the text does not fit the window with questions behind it.
        PrefixError: the text is empty.
    """
    token_ids = source.tokens_of(engine, text, chat=settings.chat)
    if len(compaction.split(engine, token_ids, len(token_ids))) > 1:
        raise WindowError(
            f"The text has {len(token_ids):,} tokens. A report compares with the whole text, which must fit the window of `{engine.name}` "
            f"({engine.window:,}) with questions behind it. Report on a part of it."
        )
    began = time.process_time()
    reading = compaction.Reading(engine, token_ids, name="report", observer=observer)
    prefill = time.process_time() - began
    taught = _questions(engine, token_ids, reading.whole, settings, observer)
    without = float(mean_divergence(engine, taught, None, None).mean())

    def line(method: str, prefix: Prefix, seconds: float) -> Line:
        nats = float(mean_divergence(engine, taught, prefix.key_LHND, prefix.value_LHND).mean())
        gain = 1 - nats / without if without > 0 else 0.0
        return Line(method=method, positions=prefix.positions, nbytes=prefix.nbytes, nats=nats, gain=gain, prefills=seconds / prefill)

    sizes = sorted({positions for ratio in ratios if (positions := round(len(token_ids) / ratio)) >= 2}, reverse=True)
    lines = [line("text", reading.whole, prefill)]
    listening = 0.0
    for positions in sizes:
        for method, select in METHODS.items():
            chosen = settings.model_copy(update={"select": select})
            began = time.process_time()
            if reading.heard is None and select in LISTENING:
                reading.listen(sizes[0], settings)
                listening = time.process_time() - began
                began = time.process_time()
            prefix = reading.compact(positions, chosen)
            shared = prefill + (listening if select in LISTENING else 0.0)
            lines.append(line(method, prefix, time.process_time() - began + shared))
    return Report(tokens=len(token_ids), questions=len(taught), nats_without=without, lines=tuple(lines))


def _questions(engine: CompilingEngine, token_ids: Sequence[int], whole: Prefix, settings: CompileSettings, observer: Observer) -> Taught:
    """Questions of another draw than those that prefixes are fitted to."""
    count = max(LEAST_QUESTIONS, settings.questions // 2)
    observer.stage("asking questions to judge by", 2 * count)
    rows = references.asking_rows(engine, token_ids, whole, questions=count, seed=settings.seed + 1, observer=observer)
    return teach(engine, list(dict.fromkeys(rows)), whole.key_LHND, whole.value_LHND)


def drawn(found: Report) -> bytes | None:
    """The report as a picture (PNG), where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method in dict.fromkeys(line.method for line in found.lines[1:]):
        points = [(line.positions, line.gain) for line in found.lines if line.method == method]
        axes.plot(*zip(*points, strict=True), marker="o", label=method)
    axes.axhline(1.0, color="grey", linewidth=1, linestyle="--", label=f"the text itself, {found.tokens:,} positions")
    axes.set(xscale="log", xlabel="positions", ylabel="gain: 0 without the text, 1 with all of it")
    axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()

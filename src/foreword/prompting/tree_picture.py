"""Draws what a tree of thoughts searched: as indented text, or as an SVG picture that needs nothing else.

    solved = await solve(parse("tot(decomposition=game24)"), conversation, model)
    print(as_text(solved.trace))
    Path("tree.svg").write_text(as_svg(solved.trace), encoding="utf-8")

A trace that was written and read again draws the same picture: the spans of kind `search` have it all. Thoughts that were not gone on from
are many and alike, so of each state's only the first few are drawn, and the rest counted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from xml.sax.saxutils import escape

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foreword.errors import DataError
from foreword.prompting.tree import Node, Status, Tree
from foreword.telemetry.trace import Span, Trace

MOST_DEPTH = 100
MOST_LABEL = 60
"""Characters of a label; what is more is cut."""
SHOWN_OF_DROPPED = 3
"""Of one state's thoughts that were not gone on from, so many are drawn."""
_TOO_DEEP = f"A tree more than {MOST_DEPTH} thoughts deep cannot be drawn."
_DROPPED = ("pruned", "repeated", "open")
_MARKS: dict[str, str] = {"kept": "●", "open": "○", "pruned": "✗", "repeated": "=", "finished": "◆", "failed": "✗", "solved": "★"}
_UNDRAWABLE = re.compile("[^\\x20-\\x7e\\u00a1-\\ud7ff\\ue000-\\ufffd\U00010000-\U0010ffff]")

ROW, LETTER, GAP, MARGIN, HEAD = 24, 7.3, 46, 16, 30
"""Pixels: between rows, of a letter, between columns, around everything, above the tree."""
_STYLE = """\
:root{--paper:#fff;--ink:#1d2433;--quiet:#6b7280;--line:#aab1bf;--kept:#e8ecfb;--edge:#4a5fc1;--won:#dcf3e2;--good:#1e7d3c}
@media (prefers-color-scheme:dark){
:root{--paper:#14171f;--ink:#e8eaf0;--quiet:#98a0b0;--line:#4b5365;--kept:#242c4d;--edge:#8fa1f2;--won:#15391f;--good:#6fd38c}}
.paper{fill:var(--paper)}text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:var(--ink)}
.edge{fill:none;stroke:var(--line)}.box{fill:var(--paper);stroke:var(--line)}
.kept .box,.finished .box{fill:var(--kept);stroke:var(--edge)}.kept.edge{stroke:var(--edge)}
.pruned .box,.repeated .box,.failed .box{stroke-dasharray:3 3}
.pruned text,.repeated text,.failed text,.open text,.more text{fill:var(--quiet)}
.on .box{fill:var(--won);stroke:var(--good);stroke-width:2}.on.edge{stroke:var(--good);stroke-width:2}
"""


@dataclass(slots=True, kw_only=True, eq=False)
class Branch:
    """One state as it is drawn. `on_way`: it leads to the solution."""

    label: str
    value: float | None
    status: Status
    branches: list[Branch] = field(default_factory=list)
    on_way: bool = False

    def shown(self) -> tuple[list[Branch], int]:
        """The branches to draw, and how many are left out."""
        dropped = [branch for branch in self.branches if branch.status in _DROPPED and not branch.branches]
        hidden = set(map(id, dropped[SHOWN_OF_DROPPED:]))
        return [branch for branch in self.branches if id(branch) not in hidden], len(hidden)


def as_text(source: Trace | Tree) -> str:
    """The tree as indented lines: a mark, the thought, its value and what became of it.

    Raises:
        DataError: the trace has no search, or one that is not sound.
    """
    return "\n".join(line for branch in branches(source) for line in _lines(branch, 0))


def as_svg(source: Trace | Tree, *, title: str = "Tree of thoughts") -> str:
    """The tree as an SVG picture, light or dark as its reader's screen is; several searches of a trace stand below each other.

    Raises:
        DataError: as `as_text`.
    """
    found = branches(source)
    boxes: list[_Box] = []
    rows = itertools.count()
    roots = [_placed(branch, 0, rows, boxes) for branch in found]
    widths = [max(box.width for box in boxes if box.column == column) for column in range(max(box.column for box in boxes) + 1)]
    lefts = list(itertools.accumulate((width + GAP for width in widths), initial=float(MARGIN)))
    width, height = lefts[-1] - GAP + MARGIN, HEAD + next(rows) * ROW + 2 * MARGIN + ROW
    parts = [part for root in roots for part in _edges(root, lefts)] + [_drawn(box, lefts) for box in boxes]
    legend = "★ passed the check · ◆ at its end · ● gone on from · ✗ pruned or wrong · = seen before · ○ not judged"
    width = max(width, 2 * MARGIN + LETTER * len(legend))
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{_safe(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
            f'<text x="{MARGIN}" y="{MARGIN + 10}" font-weight="bold">{_safe(title)}</text>',
            *parts,
            f'<g class="more"><text x="{MARGIN}" y="{height - MARGIN:.0f}">{legend}</text></g>',
            "</svg>\n",
        ]
    )


def branches(source: Trace | Tree) -> list[Branch]:
    """The trees in a trace, one for each search, or the one tree. Raises `DataError` as `as_text`."""
    if isinstance(source, Tree):
        if max(node.depth for node in source.nodes) > MOST_DEPTH:
            raise DataError(_TOO_DEEP)
        found = [_of_node(source.root, source.solution)]
    else:
        searches: dict[int | None, list[Span]] = {}
        for span in source.of_kind("search"):
            searches.setdefault(span.parent, []).append(span)
        found = [_of_spans(spans) for spans in searches.values()]
    if not found:
        raise DataError("There is no tree to draw: the trace has no step of kind `search`. Give the trace of a tree of thoughts.")
    for branch in found:
        _mark(branch, 0)
    return found


class _Told(BaseModel):
    """A thought as an expansion's span tells it."""

    model_config = ConfigDict(frozen=True)

    node: Annotated[int, Field(ge=0)]
    state: str
    value: float | None = None
    status: Status = "open"
    solution: bool = False


class _Expansion(_Told):
    thoughts: tuple[_Told, ...] = ()


def _of_spans(spans: Sequence[Span]) -> Branch:
    try:
        expansions = [_Expansion.model_validate(span.attributes) for span in spans]
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise DataError(f"The trace's search cannot be drawn: `{place}`: {problem['msg']}. Give the trace of a tree of thoughts.") from None
    first = expansions[0]
    nodes = {first.node: _branch(first)}
    for expansion in sorted(expansions, key=lambda one: one.node):
        parent = nodes.get(expansion.node)
        for told in expansion.thoughts:
            # Thoughts are numbered as they are made, so a tree cannot run in a circle.
            if parent is None or told.node <= expansion.node or told.node in nodes:
                raise DataError(
                    f"The trace's search is no tree: thought {told.node} stands where it cannot. Give a trace as it was written."
                )
            nodes[told.node] = _branch(told)
            parent.branches.append(nodes[told.node])
    return nodes[first.node]


def _branch(told: _Told) -> Branch:
    return Branch(label=told.state, value=told.value, status=told.status, on_way=told.solution)


def _of_node(node: Node, solution: Node | None) -> Branch:
    below = [_of_node(child, solution) for child in node.children]
    return Branch(label=str(node.state), value=node.value, status=node.status, branches=below, on_way=node is solution)


def _mark(branch: Branch, depth: int) -> bool:
    """Finds the way to the solution, and shortens labels to what can be drawn."""
    if depth > MOST_DEPTH:
        raise DataError(_TOO_DEEP)
    label = _UNDRAWABLE.sub("�", " ".join(branch.label.split()))
    branch.label = label if len(label) <= MOST_LABEL else f"{label[: MOST_LABEL - 1]}…"
    below = [_mark(child, depth + 1) for child in branch.branches]
    branch.on_way = branch.on_way or any(below)
    return branch.on_way


def _lines(branch: Branch, depth: int) -> Iterator[str]:
    told = [] if branch.value is None else [f"{branch.value:.4g}"]
    if branch.status not in ("kept", "open"):
        told.append(branch.status)
    end = f"  [{', '.join(told)}]" if told else ""
    yield f"{'  ' * depth}{_MARKS[branch.status]} {branch.label}{end}"
    shown, hidden = branch.shown()
    for child in shown:
        yield from _lines(child, depth + 1)
    if hidden:
        yield f"{'  ' * (depth + 1)}… {hidden} more not gone on from"


@dataclass(slots=True, kw_only=True, eq=False)
class _Box:
    """Where a state is drawn."""

    text: str
    css: str
    column: int
    row: float
    below: list[_Box] = field(default_factory=list)

    @property
    def width(self) -> float:
        return LETTER * len(self.text) + 16

    @property
    def y(self) -> float:
        return HEAD + MARGIN + self.row * ROW


def _placed(branch: Branch, column: int, rows: Iterator[int], boxes: list[_Box]) -> _Box:
    """A box for a state and for all below it: ends take a row each, others stand in the middle of theirs."""
    value = "" if branch.value is None else f" · {branch.value:.4g}"
    css = f"{branch.status}{' on' if branch.on_way else ''}"
    box = _Box(text=f"{_MARKS[branch.status]} {branch.label}{value}", css=css, column=column, row=0.0)
    shown, hidden = branch.shown()
    box.below = [_placed(child, column + 1, rows, boxes) for child in shown]
    if hidden:
        rest = _Box(text=f"… {hidden} more", css="more", column=column + 1, row=next(rows))
        boxes.append(rest)
        box.below.append(rest)
    box.row = (box.below[0].row + box.below[-1].row) / 2 if box.below else next(rows)
    boxes.append(box)
    return box


def _edges(box: _Box, lefts: Sequence[float]) -> Iterator[str]:
    x, y = lefts[box.column] + box.width, box.y
    for child in box.below:
        to = lefts[child.column]
        middle = to - GAP / 2
        curve = f"M{x:.1f} {y:.1f}H{to - GAP:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {child.y:.1f} {to:.1f} {child.y:.1f}"
        yield f'<path class="edge {child.css}" d="{curve}"/>'
        yield from _edges(child, lefts)


def _drawn(box: _Box, lefts: Sequence[float]) -> str:
    x = lefts[box.column]
    frame = "" if box.css == "more" else f'<rect class="box" x="{x:.1f}" y="{box.y - 9:.1f}" width="{box.width:.1f}" height="18" rx="4"/>'
    return f'<g class="{box.css}">{frame}<text x="{x + 8:.1f}" y="{box.y + 4:.1f}">{_safe(box.text)}</text></g>'


def _safe(text: str) -> str:
    return escape(_UNDRAWABLE.sub("�", text))

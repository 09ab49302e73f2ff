"""Trees as text and as pictures: what is drawn, that nothing in it can do harm, and that a trace read again draws the same."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from foreword.engines import scripted
from foreword.errors import DataError
from foreword.prompting import model, strategy
from foreword.prompting.tree import Node, Tree
from foreword.prompting.tree_picture import MOST_LABEL, SHOWN_OF_DROPPED, as_svg, as_text, branches
from foreword.prompting.verifiers.game24 import question
from foreword.telemetry.trace import Span, Trace, read
from foreword.types import Message


@pytest.fixture(scope="module")
def trace() -> Trace:
    """The search of one puzzle."""

    async def solved() -> Trace:
        script = model.of(scripted.load("arithmetic"))
        way = strategy.get("tot", decomposition="game24", verifier="game24", evaluations=1, beam=3)
        found = await strategy.solve(way, [Message(role="user", content=question((4, 9, 10, 13)))], script)
        await script.close()
        return found.trace

    return asyncio.run(solved())


def tree(label: str) -> Tree[str]:
    found: Tree[str] = Tree.of(label)
    child = Node(number=1, state=label, parent=found.root, depth=1, value=1.0, status="solved")
    found.root.children.append(child)
    found.nodes.append(child)
    found.solution = child
    return found


def test_text_shows_thoughts_values_and_what_became_of_them(trace: Trace) -> None:
    lines = as_text(trace).splitlines()
    assert lines[0] == "● 4 9 10 13"
    assert lines[1] == "  ✗ 4 + 9 = 13 (left: 10 13 13)  [0.001, pruned]"
    assert "  ● 10 - 4 = 6 (left: 6 9 13)  [20]" in lines
    assert "      ★ 4 * 6 = 24 (left: 24)  [solved]" in lines
    assert any(re.fullmatch(r"  … \d+ more not gone on from", line) for line in lines)


def test_the_way_to_the_solution_is_marked(trace: Trace) -> None:
    (root,) = branches(trace)
    way = [root]
    while way[-1].branches:
        (following,) = (branch for branch in way[-1].branches if branch.on_way)
        way.append(following)
    assert [branch.label for branch in way][1:] == ["10 - 4 = 6 (left: 6 9 13)", "13 - 9 = 4 (left: 4 6)", "4 * 6 = 24 (left: 24)"]
    assert as_svg(trace).count('<g class="solved on">') == 1


def test_of_what_was_dropped_a_few_are_drawn_and_the_rest_counted(trace: Trace) -> None:
    (root,) = branches(trace)
    shown, hidden = root.shown()
    assert len([branch for branch in shown if branch.status == "pruned"]) == SHOWN_OF_DROPPED
    assert len(shown) + hidden == len(root.branches) and hidden > 0


def test_a_picture_is_one_well_formed_file_that_asks_for_nothing(trace: Trace) -> None:
    picture = as_svg(trace, title="Game of 24 & <b>more</b>")
    root = ET.fromstring(picture)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "title", "style", "rect", "text", "g", "path"}
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "") and "url(" not in picture
    assert "prefers-color-scheme:dark" in picture
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")]
    assert "Game of 24 & <b>more</b>" in texts
    assert "★ 4 * 6 = 24 (left: 24)" in texts and "● 10 - 4 = 6 (left: 6 9 13) · 20" in texts


def test_boxes_do_not_overlap_and_stay_inside(trace: Trace) -> None:
    root = ET.fromstring(as_svg(trace))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [element.attrib for element in root.iter() if element.attrib.get("class") == "box"]
    corners = [tuple(float(box[key]) for key in ("x", "y", "width", "height")) for box in boxes]
    assert len(corners) > 10
    for index, (x, y, w, h) in enumerate(corners):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for other_x, other_y, other_w, other_h in corners[:index]:
            assert x >= other_x + other_w or other_x >= x + w or y >= other_y + other_h or other_y >= y + h


def test_a_trace_that_was_written_and_read_draws_the_same(trace: Trace, tmp_path: Path) -> None:
    trace.write(tmp_path / "trace.jsonl")
    again = read(tmp_path / "trace.jsonl")
    assert as_svg(again) == as_svg(trace) and as_text(again) == as_text(trace)


@pytest.mark.parametrize(
    "label", ['</text><script>alert("x")</script>', "a\x00b\x1bc\ud800d\u202e", "many\nlines\n" * 100, "&amp; <&> ]]>"]
)
def test_labels_are_escaped_and_short(label: str) -> None:
    picture = as_svg(tree(label), title=label)
    root = ET.fromstring(picture.encode())
    assert not any(element.tag.endswith("script") for element in root.iter())
    for branch in branches(tree(label)):
        assert len(branch.label) <= MOST_LABEL and "\n" not in branch.label and "\x00" not in branch.label
    assert len(as_text(tree(label)).splitlines()) == 2


def test_a_tree_draws_as_its_trace_would() -> None:
    assert as_text(tree("step")) == "● step\n  ★ step  [1, solved]"


def span(number: int, parent: int | None = None, **attributes: object) -> Span:
    return Span(id=number, parent=parent, kind="search", name="expand", start=0.0, seconds=0.0, attributes=attributes)  # type: ignore[arg-type]


def test_several_searches_of_a_trace_stand_below_each_other() -> None:
    spans = (span(1, None, node=0, state="first"), span(2, 7, node=0, state="second", thoughts=[{"node": 1, "state": "x"}]))
    assert as_text(Trace(spans=spans)) == "○ first\n○ second\n  ○ x"
    ET.fromstring(as_svg(Trace(spans=spans)))


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ((), "no tree to draw"),
        ((span(1, state="x"),), "`node`"),
        ((span(1, node=0, state="x", thoughts="none"),), "`thoughts`"),
        ((span(1, node=0, state="x", thoughts=[{"node": 0, "state": "x"}]),), "thought 0 stands where it cannot"),
        ((span(1, node=1, state="x"), span(2, node=2, state="x", thoughts=[{"node": 3, "state": "y"}])), "thought 3"),
        (tuple(span(n + 1, node=n, state="x", thoughts=[{"node": n + 1, "state": "y"}]) for n in range(3_000)), "thoughts deep"),
    ],
)  # fmt: skip
def test_what_is_no_tree_is_refused(spans: tuple[Span, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_svg(Trace(spans=spans))

"""The path in the documentation is the one that the code walks."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from foreword.gateway.stage import ORDER

SVG = "{http://www.w3.org/2000/svg}"


def test_the_path_that_is_shown_is_the_one_that_is_walked(tools: Callable[[str], ModuleType]) -> None:
    drawing: Any = tools("path_picture")
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.picture(), "run `python docs/path_picture.py`"


def test_every_stage_stands_in_its_place_and_within_the_picture(tools: Callable[[str], ModuleType]) -> None:
    drawing: Any = tools("path_picture")
    picture = ElementTree.fromstring(drawing.picture())
    names = [text.text for text in picture.iter(f"{SVG}text") if text.get("font-weight") == "bold"]
    assert tuple(names) == ORDER == tuple(drawing.SAYS)
    for box in picture.iter(f"{SVG}rect"):
        assert float(box.get("x", 0)) + float(box.get("width", 0)) <= drawing.WIDTH

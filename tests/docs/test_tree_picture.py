"""The tree in the documentation is the one that the code draws."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def test_the_tree_that_is_shown_is_the_one_that_is_searched(tools: Callable[[str], ModuleType]) -> None:
    drawing: Any = tools("tree_picture")
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.picture(), "run `python docs/tree_picture.py`"

"""Compilers are found by name."""

from __future__ import annotations

import pytest

from foreword.compiling import compiler
from foreword.compiling.compilers import text
from foreword.errors import RegistryError


def test_a_compiler_is_the_module_of_its_name():
    assert compiler.get("text") is text


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RegistryError, match=r"No `telepathy` among compilers. Known: .*text"):
        compiler.get("telepathy")

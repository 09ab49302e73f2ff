"""Compilers are found by name."""

from __future__ import annotations

import pytest

from foreword.compiling import compiler
from foreword.compiling.compilers import text
from foreword.compiling.settings import CompileSettings
from foreword.errors import ConfigError, RegistryError


def test_a_compiler_is_the_module_of_its_name():
    assert compiler.get("text") is text


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RegistryError, match=r"No `telepathy` among compilers. Known: .*text"):
        compiler.get("telepathy")


def test_settings_that_mean_nothing_to_a_compiler_are_refused():
    assert compiler.check("text", CompileSettings(chat=True)) is text
    with pytest.raises(ConfigError, match=r"`text` has no use for `ratio`, which is for compact, .*distil"):
        compiler.check("text", CompileSettings(ratio=2))
    with pytest.raises(ConfigError, match="no use for `steps`, which is for distil"):
        compiler.check("compact", CompileSettings(ratio=2, steps=7))

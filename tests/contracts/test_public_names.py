"""`import foreword as fw` offers what it lists, and says so plainly when asked for more."""

from __future__ import annotations

import importlib.metadata

import pytest

import foreword


@pytest.mark.parametrize("name", foreword.__all__)
def test_every_listed_name_resolves(name: str) -> None:
    assert getattr(foreword, name) is not None
    assert name in dir(foreword)


def test_version_is_the_installed_one() -> None:
    assert foreword.__version__ == importlib.metadata.version("foreword")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute `lode`"):
        _ = foreword.lode

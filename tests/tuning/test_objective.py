"""Objectives by name."""

from __future__ import annotations

import pytest

from foreword.errors import RegistryError
from foreword.tuning import objective as contract
from foreword.tuning.objectives import lm


def test_the_default_is_found():
    assert contract.get("lm") is lm


def test_an_unknown_one_lists_the_known():
    with pytest.raises(RegistryError, match=r"No `warp` among objectives\. Known: .*lm"):
        contract.get("warp")


def test_a_plug_in_is_found(objective):
    assert contract.get(objective("return 0")).loss(None, [], None, None) == 0

"""Stages by their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foreword.errors import RegistryError
from foreword.gateway import stage
from walking import parts_of, settings_of


def test_every_stage_has_its_place_and_every_place_its_stage() -> None:
    assert set(stage.names()) == set(stage.ORDER) and len(set(stage.ORDER)) == len(stage.ORDER)


@pytest.mark.parametrize("name", stage.ORDER)
def test_each_can_be_made_without_anything_to_start(name: str) -> None:
    made = stage.make(name, parts_of(settings_of()))
    assert isinstance(made, Callable)  # type: ignore[arg-type]


def test_an_unknown_one_is_told_with_those_that_there_are() -> None:
    with pytest.raises(RegistryError, match="guard-in"):
        stage.make("guard", parts_of(settings_of()))

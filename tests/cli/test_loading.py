"""Models, prefixes and settings by what the user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foreword.cli._loading import check_device, check_prefix_name, conversion_bar, prefix_file, settings_from_options
from foreword.cost.prices import Price
from foreword.errors import ConfigError, StoreError
from foreword.tuning.settings import TuneSettings


@pytest.mark.parametrize("ref", ["some/where.bin", "other.safetensors", "/abs/x.safetensors"])
def test_a_path_is_taken_as_it_is(tmp_path: Path, ref: str):
    assert prefix_file(ref, tmp_path) == Path(ref)


def test_anything_else_is_looked_up(tmp_path: Path):
    with pytest.raises(StoreError, match="No prefix is named `support`"):
        prefix_file("support", tmp_path)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_devices_that_are_here(device: str):
    check_device(device)


@pytest.mark.parametrize("device", ["gpu", "toaster:3", *([] if torch.cuda.is_available() else ["cuda"])])
def test_devices_that_are_not(device: str):
    with pytest.raises(ConfigError, match=f"There is no device `{device}` here"):
        check_device(device)


def test_settings_name_the_option_at_fault():
    with pytest.raises(ConfigError, match=r"`learning-rate`: .*greater than 0.*See `--help`"):
        settings_from_options(TuneSettings, learning_rate=-1.0)
    with pytest.raises(ConfigError, match="`output_per_million` is missing"):
        settings_from_options(Price, input_per_million=1.0)
    assert settings_from_options(TuneSettings, seed=3).seed == 3


@pytest.mark.parametrize("name", ["", "Up", "a b", "a+b", "../x", "x" * 65])
def test_names_that_cannot_be(name: str):
    with pytest.raises(ConfigError, match="cannot name a prefix"):
        check_prefix_name(name)


def test_a_conversion_is_told_line_by_line_where_no_screen_is(capsys: pytest.CaptureFixture[str]):
    with conversion_bar("smollm2") as told:
        told("unpacking the weights", 1, 4)
    assert capsys.readouterr().err == "Preparing smollm2 (once): unpacking the weights (1/4)\n"

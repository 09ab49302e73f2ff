"""Names found in folders and through entry points."""

from __future__ import annotations

import sys

import pytest

from foreword.errors import RegistryError
from foreword.registry import find, names


def test_the_file_name_is_the_key():
    assert "transformers" in names("foreword.engines")
    assert find("foreword.engines", "transformers").__name__ == "foreword.engines.transformers"
    assert names("foreword.engines") == tuple(sorted(names("foreword.engines")))


def test_private_modules_are_no_implementations():
    assert not [name for name in names("foreword.engines") if name.startswith(("_", "-"))]
    with pytest.raises(RegistryError):
        find("foreword.engines", "_attention")


def test_underscores_become_hyphens():
    assert "macro-f1" in names("foreword.evaluate.scorers") and "macro_f1" not in names("foreword.evaluate.scorers")
    assert find("foreword.evaluate.scorers", "macro-f1").__name__.endswith(".macro_f1")
    with pytest.raises(RegistryError):
        find("foreword.evaluate.scorers", "macro_f1")


@pytest.mark.parametrize("key", ["warp", "", "os", "..errors", "transformers.load"])
def test_an_unknown_key_lists_the_known_ones(key):
    with pytest.raises(RegistryError, match=r"among engines\. Known: .*transformers"):
        find("foreword.engines", key)


def test_looking_for_names_imports_no_implementation():
    import subprocess

    code = "import sys; from foreword.registry import names; names('foreword.engines'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """An installed distribution that brings an engine of its own and another `transformers`."""
    (tmp_path / "plugged.py").write_text("WHERE = 'plug-in'\n")
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[foreword.engines]\nwarp = plugged\n[foreword.objectives]\nother = plugged\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("plugged", None)


def test_an_entry_point_adds_a_name(plug_in):
    assert {"transformers", "warp"} <= set(names("foreword.engines"))
    assert find("foreword.engines", "warp").WHERE == "plug-in"
    assert "other" not in names("foreword.engines") and "other" in names("foreword.tuning.objectives")


def test_a_name_is_gone_with_its_plug_in():
    assert "warp" not in names("foreword.engines")

"""Which versions of vLLM are taken."""

from __future__ import annotations

import pytest

from foreword.errors import ConfigError
from foreword.vllm_plugin import versions


@pytest.mark.parametrize("version", ["0.32.0", "0.32.7", "0.32.0+cpu", "0.32.1rc2.dev3+g1234"])
def test_versions_that_are_supported(version):
    versions.check(version)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.32.0", "0.3.2", "dev", ""])
def test_other_versions_are_refused_with_the_range(version):
    with pytest.raises(ConfigError, match=r"vLLM .*>=0\.32,<0\.33.*pip install"):
        versions.check(version)

"""Which vLLM the connector was proven on. Its connector interface is experimental and changes from one minor version to the next."""

from __future__ import annotations

import re

from foreword.errors import ConfigError

LOWEST, ABOVE = (0, 32), (0, 33)
SUPPORTED = f">={'.'.join(map(str, LOWEST))},<{'.'.join(map(str, ABOVE))}"


def check(version: str) -> None:
    """Raises `ConfigError` unless `version` is one of vLLM that prefixes were tested on, e.g. `0.32.0` or `0.32.1+cpu`."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or not LOWEST <= (int(match[1]), int(match[2])) < ABOVE:
        raise ConfigError(
            f"This is vLLM {version}; Foreword serves prefixes on vLLM {SUPPORTED}, whose connector interface it was tested with. "
            f"Install one of these (`pip install 'vllm{SUPPORTED}'`), or a Foreword made for yours."
        )

"""What vLLM's processes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import ConfigError
from foreword.vllm_plugin.settings import PluginSettings


def test_settings_come_from_json():
    prints = {"architecture": "LlamaForCausalLM"} | {name: "0" * 64 for name in ("config", "weights", "tokenizer", "chat_template")}
    settings = PluginSettings.read({"prefixes": "/srv/prefixes", "fingerprint": prints, "resident_bytes": 5})
    assert settings.prefixes == Path("/srv/prefixes") and settings.resident_bytes == 5 and settings.placeholder is None
    assert settings.fingerprint is not None and settings.fingerprint.weights == "0" * 64


@pytest.mark.parametrize(
    "extra",
    [{}, {"prefixes": "p", "prefix": "q"}, {"prefixes": "p", "resident_bytes": -1}, {"prefixes": "p", "fingerprint": {"weights": "x"}}],
)
def test_what_is_missing_unknown_or_not_allowed_is_named(extra):
    with pytest.raises(ConfigError, match=r"kv_connector_extra_config.*It takes prefixes, fingerprint, resident_bytes, placeholder"):
        PluginSettings.read(extra)

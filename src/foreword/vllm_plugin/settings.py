"""What the connector and the middleware are told, as `kv_connector_extra_config` in vLLM's `--kv-transfer-config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foreword.errors import ConfigError
from foreword.prefix.header import Fingerprint, describe


class PluginSettings(BaseModel):
    """Settings shared by all processes of one vLLM.

    Attributes:
        prefixes: folder of the prefix store.
        fingerprint: of the model that vLLM serves. A prefix made for another is refused. Without it only the shape of keys and values
            and their rotary encoding are compared.
        resident_bytes: how much memory each worker may spend on prefixes kept ready; what a step needs is kept whatever its size.
        placeholder: token id that stands for a prefix position in vLLM's book-keeping; by default one that the model never writes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefixes: Path
    fingerprint: Fingerprint | None = None
    resident_bytes: int = Field(default=2**30, ge=0)
    placeholder: int | None = Field(default=None, ge=0)

    @classmethod
    def read(cls, extra: Mapping[str, Any]) -> PluginSettings:
        """Raises `ConfigError`, naming each field, where something is missing, unknown or not allowed."""
        try:
            return cls.model_validate(dict(extra))
        except ValidationError as error:
            raise ConfigError(
                f"`kv_connector_extra_config` cannot be used: {describe(error)}. It takes {', '.join(cls.model_fields)}; "
                "`foreword.engines.vllm.command` writes it."
            ) from None

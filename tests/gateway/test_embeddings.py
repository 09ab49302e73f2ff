"""There are none, and that is said."""

from __future__ import annotations

from typing import Any

import openai
import pytest


def test_embeddings_are_not_configured(client: Any):
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="echo", input="x")
    assert refused.value.code == "not_configured" and "not configured" in refused.value.message

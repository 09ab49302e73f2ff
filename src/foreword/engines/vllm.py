"""The `vllm` engine: prefixes on a stock vLLM server, which runs in processes of its own.

`command` and `launch` start the server; `load` gives a client that answers conversations through it. Nothing here imports vllm: it may be
installed in another environment. What runs inside its processes is `foreword.vllm_plugin`.
"""

from __future__ import annotations

from foreword.engines._vllm_client import VllmClient
from foreword.engines._vllm_command import command, find_vllm, launch

__all__ = ["VllmClient", "command", "find_vllm", "launch", "load"]

DEFAULT_URL = "http://127.0.0.1:8000/v1"


def load(name: str = "smollm2", *, base_url: str | None = None, api_key: str | None = None, **_: object) -> VllmClient:
    """A client of a vLLM server that runs already.

    Args:
        name: the model, as the server calls it.
        base_url: where its endpoints lie; by default `FOREWORD_VLLM_URL`, or port 8000 of this machine.
        api_key: by default `FOREWORD_VLLM_KEY`, where it is set.

    Further settings, such as dtype and device, are the server's own and are not looked at.

    Raises:
        ModelError: the server serves no model of that name.
        ServingError: there is no server.
    """
    import os

    url = base_url or os.environ.get("FOREWORD_VLLM_URL") or DEFAULT_URL
    return VllmClient.connect(name, url=url.rstrip("/"), api_key=api_key or os.environ.get("FOREWORD_VLLM_KEY"))

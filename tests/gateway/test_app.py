"""The application as a whole: what importing it loads, and that what it documents is what it routes."""

from __future__ import annotations

import json
import subprocess
import sys

from foreword.engine import Serves
from foreword.engines.echo import load
from foreword.gateway.app import ROUTES, build
from foreword.gateway.openapi import document
from foreword.prefix.store import PrefixStore

HEAVY = {"torch", "transformers", "tokenizers", "numpy", "safetensors", "vllm"}
PROBE = "import json, sys; import foreword.gateway.app, foreword.gateway.server; print(json.dumps(sorted(sys.modules)))"


def test_importing_it_loads_no_tensor_library():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "starlette" in loaded and sorted(loaded & HEAVY) == []


def test_every_route_is_documented():
    routed = {route.path.replace(":path", "") for route in ROUTES} - {"/openapi.json", "/v1/embeddings"}
    assert routed == set(document()["paths"])


def test_it_takes_what_serves(tmp_path):
    engine = load().serve()
    assert isinstance(engine, Serves)
    app = build(engine, base="echo", store=PrefixStore(tmp_path))
    assert app.state.service.names.base == "echo" and not app.state.service.traffic.draining
    engine.close()

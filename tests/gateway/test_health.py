"""What a watcher sees."""

from __future__ import annotations

from typing import Any


def test_alive_and_ready(http: Any):
    for path in ("/healthz", "/readyz"):
        answer = http.get(path)
        assert answer.status_code == 200 and answer.json() == {"status": "ok"}


def test_figures_are_text(http: Any):
    assert http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_unknown_routes_and_methods(http: Any):
    answer = http.get("/v2/anything")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_route"
    answer = http.get("/v1/chat/completions")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST" and answer.json()["error"]["code"] == "method_not_allowed"
    assert http.get("/v1/models/", follow_redirects=False).status_code == 404

"""The admin routes: list, load, pin, unload."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from foreword.gateway.tenants import admin_key


@pytest.fixture
def admin(start: Any) -> Any:
    server = start(admin_key=admin_key("key-of-admin"))
    with server.http("key-of-admin") as http:
        yield http


def entry(admin: httpx2.Client, name: str) -> dict[str, Any]:
    return next(prefix for prefix in admin.get("/admin/prefixes").json()["prefixes"] if prefix["name"] == name)


def test_the_store_and_the_memory(admin: httpx2.Client):
    body = admin.get("/admin/prefixes").json()
    assert [prefix["name"] for prefix in body["prefixes"]] == ["anna", "ben", "support"] and body["resident_bytes"] == 0
    support = entry(admin, "support")
    assert support["aliases"] == {"prod": 1} and [version["version"] for version in support["versions"]] == [1, 2]
    assert all(version["bytes"] > 0 and not version["resident"] and not version["pinned"] for version in support["versions"])


def test_load_pin_and_unload(admin: httpx2.Client):
    assert admin.post("/admin/prefixes/anna/load").json() == {"name": "anna", "resident": True, "pinned": False}
    assert admin.post("/admin/prefixes/support@prod/load", json={"pinned": True}).json()["pinned"] is True
    assert admin.post("/admin/prefixes/support+ben/load", json={}).status_code == 200
    assert [version["resident"] for version in entry(admin, "support")["versions"]] == [True, False]
    assert entry(admin, "support")["versions"][0]["pinned"] and not entry(admin, "anna")["versions"][0]["pinned"]
    body = admin.get("/admin/prefixes").json()
    assert body["compositions"] == [["support", "ben"]] and body["resident_bytes"] > 0
    for name in ("anna", "support@prod", "support+ben"):
        assert admin.post(f"/admin/prefixes/{name}/unload").json() == {"name": name, "resident": False, "pinned": False}
    assert admin.get("/admin/prefixes").json()["resident_bytes"] == 0
    assert not entry(admin, "support")["versions"][0]["pinned"]


def test_what_cannot_be_loaded(admin: httpx2.Client, store: Any):
    for path in ("nobody/load", "nobody/unload", "support@nope/load"):
        answer = admin.post(f"/admin/prefixes/{path}")
        assert answer.status_code == 404 and str(store.root) not in answer.text
    assert admin.post("/admin/prefixes/anna/load", json={"pinned": "yes"}).status_code == 400
    assert admin.post("/admin/prefixes/anna/load", json={"pin": True}).json()["error"]["param"] == "pin"
    store.resolve("anna").path.write_bytes(b"half")
    answer = admin.post("/admin/prefixes/anna/load")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "prefix_unavailable" and str(store.root) not in answer.text


@pytest.mark.parametrize("header", ["", "Bearer key-of-admim", "Bearer", "Basic key-of-admin"])
def test_only_the_admin_key_opens(admin: httpx2.Client, header: str):
    headers = {"authorization": header}
    for method, path in (("GET", ""), ("POST", "/anna/load"), ("POST", "/anna/unload")):
        assert admin.request(method, f"/admin/prefixes{path}", headers=headers).status_code == 401


def test_without_an_admin_key_there_are_no_admin_routes(http: Any):
    assert http.get("/admin/prefixes").status_code == 404
    assert http.post("/admin/prefixes/anna/load").json()["error"]["code"] == "admin_closed"

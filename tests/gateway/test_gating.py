"""The gate, on a real server with the echo engine: its answers begin with the names of the prefixes that are attached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreword.compiling import gate
from foreword.engines.echo import load
from foreword.gateway.gating import Gate, gated, said
from foreword.gateway.metrics import Metrics
from foreword.gateway.naming import Named
from foreword.prefix.store import PrefixStore
from foreword.types import Message
from word_vectors import WordVectors

MILL = "The mill grinds coffee beans. Its burrs are made of steel and must be cleaned weekly. The motor has a guarantee of two years."
TAX = "Income tax is due in April. Deductions for travel and rent are listed in the annex. Late filing costs a penalty."
QUERIES = {
    "mill": [f"{lead} the {rest}?" for lead in ("How do I clean", "When do I replace") for rest in ("burrs", "motor", "steel burrs")],
    "tax": [
        f"{lead} the {rest}?" for lead in ("When is", "How high is") for rest in ("income tax", "late filing penalty", "travel deduction")
    ],
}
OWN, OTHER, NEITHER = "Clean the steel burrs weekly?", "Is income tax due in April?", "Tell me a joke about ducks."


def answer_of(server: Any, model: str, content: str, *before: str) -> tuple[str, str | None]:
    """An answer and what its header says. `before`: earlier turns, the user's and the assistant's."""
    turns = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate((*before, content))]
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json={"model": f"echo:{model}", "messages": turns})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"], answer.headers.get("foreword-prefix")


@pytest.fixture
def with_detectors(store: PrefixStore, prefix_named: Callable[..., Any]) -> PrefixStore:
    """The store with `mill` and `tax`, which have detectors."""
    for name, text in (("mill", MILL), ("tax", TAX)):
        found = gate.detector_for_queries(text, QUERIES[name], level=0.2, embedder=WordVectors())
        store.publish(gate.attach(prefix_named(name), found))
    return store


@pytest.fixture
def server(with_detectors: PrefixStore, start: Any) -> Any:
    return start(gate=WordVectors())


def test_a_prefix_is_attached_to_its_own_business_only(server: Any):
    assert answer_of(server, "mill", OWN) == (f"[mill] {OWN}", "attached")
    assert answer_of(server, "mill", OTHER) == (OTHER, "kept-off")
    assert answer_of(server, "mill", NEITHER) == (NEITHER, "kept-off")
    assert answer_of(server, "tax", OTHER) == (f"[tax] {OTHER}", "attached")


def test_usage_counts_what_was_attached(server: Any):
    with server.client() as client:
        for content, positions in ((OWN, 3), (NEITHER, 0)):
            answer = client.chat.completions.create(model="echo:mill", messages=[{"role": "user", "content": content}])
            assert answer.usage.prompt_tokens_details.prefix_positions == positions and answer.model == "echo:mill"


def test_a_prefix_without_a_detector_is_always_attached(server: Any):
    assert answer_of(server, "anna", NEITHER) == (f"[anna] {NEITHER}", "attached")


def test_the_bare_model_is_asked_about_nothing(server: Any):
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json={"model": "echo", "messages": [{"role": "user", "content": OWN}]})
    assert "foreword-prefix" not in answer.headers


def test_without_the_gate_every_prefix_is_attached(with_detectors: PrefixStore, start: Any):
    assert answer_of(start(), "mill", NEITHER) == (f"[mill] {NEITHER}", None)


def test_a_stream_says_it_too(server: Any):
    with server.http() as http:
        for content, told, begins in ((OWN, "attached", "[mill]"), (NEITHER, "kept-off", "Tell")):
            body = {"model": "echo:mill", "messages": [{"role": "user", "content": content}], "stream": True}
            with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                assert answer.headers["foreword-prefix"] == told and answer.headers["content-type"].startswith("text/event-stream")
                assert begins in "".join(answer.iter_text())


def test_a_turn_that_says_little_is_about_what_was_said_before(server: Any):
    assert answer_of(server, "mill", "And how long?", OWN, "Weekly.") == ("[mill] And how long?", "attached")
    assert answer_of(server, "mill", "And how long?", NEITHER, "Quack.") == ("And how long?", "kept-off")
    long_ago = (OWN, "Weekly.", NEITHER, "Quack.", NEITHER, "Quack.")
    assert answer_of(server, "mill", NEITHER, *long_ago) == (NEITHER, "kept-off")


def test_an_empty_turn_is_nobody_s_business(server: Any):
    assert answer_of(server, "mill", "?") == ("?", "kept-off")


def test_parts_of_a_composition_are_judged_one_by_one(server: Any):
    assert answer_of(server, "mill+tax", OWN) == (f"[mill] {OWN}", "partly")
    assert answer_of(server, "mill+tax", f"{OWN} {OTHER}")[1] in ("attached", "partly")
    assert answer_of(server, "mill+tax", NEITHER) == (NEITHER, "kept-off")
    assert answer_of(server, "anna+tax", NEITHER) == (f"[anna] {NEITHER}", "partly")


def test_texts_to_go_on_from_are_judged_one_by_one(server: Any):
    with server.http() as http:
        answer = http.post("/v1/completions", json={"model": "echo:mill", "prompt": [OWN, NEITHER, OTHER]})
    assert answer.headers["foreword-prefix"] == "partly"
    assert [choice["text"] for choice in answer.json()["choices"]] == [f"[mill] {OWN}", NEITHER, OTHER]


def test_decisions_are_counted(server: Any):
    for model, content in (("mill", OWN), ("mill", NEITHER), ("mill", OTHER), ("anna", NEITHER)):
        answer_of(server, model, content)
    with server.http() as http:
        lines = http.get("/metrics").text.splitlines()
    assert 'foreword_gate_total{outcome="attached",prefix="mill"} 1.0' in lines
    assert 'foreword_gate_total{outcome="kept-off",prefix="mill"} 2.0' in lines
    assert 'foreword_gate_total{outcome="unjudged",prefix="anna"} 1.0' in lines


def test_a_new_version_is_judged_by_its_own_detector(server: Any, prefix_named: Callable[..., Any]):
    assert answer_of(server, "mill", OTHER)[1] == "kept-off"
    found = gate.detector_for_queries(TAX, QUERIES["tax"], level=0.2, embedder=WordVectors())
    server.store.publish(gate.attach(prefix_named("mill"), found))
    assert answer_of(server, "mill", OTHER)[1] == "attached"
    assert answer_of(server, "mill@v1", OTHER)[1] == "kept-off"


def test_a_detector_of_another_embedder_is_not_asked(
    store: PrefixStore, start: Any, prefix_named: Callable[..., Any], caplog: pytest.LogCaptureFixture
):
    found = gate.detector_for_queries(MILL, QUERIES["mill"], level=0.2, embedder=WordVectors("old/48"))
    store.publish(gate.attach(prefix_named("mill"), found))
    server = start(gate=WordVectors())
    with caplog.at_level(logging.WARNING, logger="foreword.gateway.gating"):
        for _ in range(3):
            assert answer_of(server, "mill", NEITHER) == (f"[mill] {NEITHER}", "attached")
    assert [record.getMessage() for record in caplog.records] == [
        "the detector of mill@v1 was made with the embedder old/48 and this server has words/48; the prefix is always attached. "
        "Make its detector again."
    ]


def test_a_damaged_detector_is_not_asked(with_detectors: PrefixStore, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = with_detectors.resolve("mill").path
    raw = path.read_bytes()
    path.write_bytes(raw[:-8] + bytes(8))  # float16 stands last, which is the detector's
    engine = load().serve(max_rows=1, queue=1)
    judging = Gate(WordVectors(), Metrics(engine))
    named = Named(model="echo:mill", references=(with_detectors.resolve("mill"),))
    assert asyncio.run(judging.judge(named, [[NEITHER]])).header == "attached"
    assert "cannot be read, and the prefix is always attached" in caplog.text
    path.unlink()
    assert asyncio.run(judging.judge(named, [[NEITHER]])).header == "attached", "the engine will say that it is gone"
    engine.close()


def test_no_gate_says_nothing():
    named = Named(model="echo:mill")
    judged = asyncio.run(gated(None, named, [["a"], ["b"]]))
    assert judged.named == (named, named) and judged.headers == {}


def test_the_user_s_last_turns_are_asked_about():
    roles: Any = ("system", "user", "assistant", "user", "assistant", "user", "assistant", "user")
    conversation = [Message(role=role, content=str(number)) for number, role in enumerate(roles)]
    assert said(conversation) == ("7", "5", "3")

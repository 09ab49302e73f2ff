"""Figures, and how many different ones there can be."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from foreword.engines.echo import load
from foreword.gateway.metrics import MOST_PREFIXES, Metrics

MESSAGES: Any = [{"role": "user", "content": "one two three"}]


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each figure by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_requests_tokens_and_load(client: Any, http: Any, wait_until: Any):
    client.chat.completions.create(model="echo:support@prod", messages=MESSAGES)
    list(client.chat.completions.create(model="echo", messages=MESSAGES, n=2, stream=True))
    http.get("/v1/models/echo:anna")
    http.get("/v1/models/echo:nobody")
    http.get("/wp-login.php")
    wait_until(lambda: ("foreword_requests_total", "unmatched", "404") in samples(http.get("/metrics").text))
    found = samples(http.get("/metrics").text)
    assert found["foreword_requests_total", "/v1/chat/completions", "200"] == 2
    assert (
        found["foreword_requests_total", "/v1/models/{model}", "200"] == found["foreword_requests_total", "/v1/models/{model}", "404"] == 1
    )
    assert found["foreword_tokens_total", "in", "support"] == 3 and found["foreword_tokens_total", "out", "support"] == 4
    assert found["foreword_tokens_total", "in", "none"] == 3 and found["foreword_tokens_total", "out", "none"] == 6
    assert found["foreword_first_token_seconds_count",] == found["foreword_request_seconds_count", "/v1/chat/completions"] == 2
    assert found["foreword_engine_completion_tokens_total",] == 10 and found["foreword_engine_prefix_misses_total",] == 1
    assert found["foreword_requests_in_flight",] == 1, "the request that reads the figures"


def test_prefix_labels_are_bounded():
    engine = load().serve()
    metrics = Metrics(engine)
    for number in range(3 * MOST_PREFIXES):
        metrics.answered(label=f"user-{number}", prompt_tokens=1, completion_tokens=1, first_token_seconds=None)
    found = samples(metrics.text().decode())
    inward = {key[2]: value for key, value in found.items() if key[:2] == ("foreword_tokens_total", "in")}
    assert len(inward) == MOST_PREFIXES + 1 and inward["other"] == 2 * MOST_PREFIXES
    engine.close()

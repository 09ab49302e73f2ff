"""Figures for Prometheus: requests, times, tokens, and what the engine is doing.

The label `prefix` names the first `MOST_PREFIXES` prefixes that are asked for, and `other` for all further ones, so that it stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from foreword.engine import Serves

MOST_PREFIXES = 100
NO_PREFIX, OTHERS = "none", "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DURATION = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Figures of one server."""

    def __init__(self, engine: Serves | None) -> None:
        """Args: engine: None where no model runs in this process."""
        self._registry = CollectorRegistry()
        self._prefixes: set[str] = set()
        self._by_route: dict[tuple[str, int], Any] = {}
        self._requests = Counter("foreword_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self._in_flight = Gauge("foreword_requests_in_flight", "Requests under way.", registry=self._registry)
        self._duration = Histogram(
            "foreword_request_seconds", "From a request to the end of its answer.", ["route"], buckets=_DURATION, registry=self._registry
        )
        self._first_token = Histogram(
            "foreword_first_token_seconds", "From a request to its first token.", buckets=_FIRST_TOKEN, registry=self._registry
        )
        self._tokens = Counter("foreword_tokens", "Tokens of complete answers.", ["direction", "prefix"], registry=self._registry)
        self._gate = Counter("foreword_gate", "What the gate did with a prefix.", ["prefix", "outcome"], registry=self._registry)
        self._strategies = Counter("foreword_strategies", "Strategies that ended.", ["strategy", "status"], registry=self._registry)
        self._calls = Counter("foreword_strategy_calls", "Calls of the model by strategies.", ["strategy"], registry=self._registry)
        if engine is not None:
            self._registry.register(_EngineLoad(engine))

    def began(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def ended(self, *, route: str, status: int, seconds: float) -> None:
        """A request has ended. `route` is the template, such as `/v1/models/{model}`."""
        self._in_flight.dec()
        kept = self._by_route.get((route, status))
        if kept is None:
            # Finding a label's figures takes longer than counting.
            kept = self._by_route[route, status] = (self._requests.labels(route, str(status)), self._duration.labels(route))
        kept[0].inc()
        kept[1].observe(seconds)

    def answered(self, *, label: str, prompt_tokens: int, completion_tokens: int, first_token_seconds: float | None) -> None:
        """An answer is complete. `label` names its prefix; empty for none."""
        prefix = self._bounded(label)
        self._tokens.labels("in", prefix).inc(prompt_tokens)
        self._tokens.labels("out", prefix).inc(completion_tokens)
        if first_token_seconds is not None:
            self._first_token.observe(first_token_seconds)

    def gated(self, *, label: str, outcome: str) -> None:
        """The gate has decided about a prefix: `attached`, `kept-off`, or `unjudged` where its file has no detector to ask."""
        self._gate.labels(self._bounded(label), outcome).inc()

    def strategy(self, *, key: str, status: str, calls: int) -> None:
        """A strategy has ended.

        Args:
            status: as `Solved.status`, `refused` where it could not be asked so, or `cancelled` where nobody waited any more.
        """
        self._strategies.labels(key, status).inc()
        self._calls.labels(key).inc(calls)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)

    def _bounded(self, label: str) -> str:
        if not label:
            return NO_PREFIX
        if label not in self._prefixes:
            if len(self._prefixes) >= MOST_PREFIXES:
                return OTHERS
            self._prefixes.add(label)
        return label


class _EngineLoad(Collector):
    """The engine's own account, asked for when the figures are."""

    def __init__(self, engine: Serves) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """The fields of `Load`."""
        load = self._engine.load()
        yield GaugeMetricFamily("foreword_engine_running", "Requests being computed.", value=load.running)
        yield GaugeMetricFamily("foreword_engine_waiting", "Requests waiting for a slot.", value=load.waiting)
        yield GaugeMetricFamily("foreword_engine_resident_prefixes", "Prefixes in memory.", value=load.resident_prefixes)
        yield GaugeMetricFamily("foreword_engine_resident_bytes", "Bytes of the prefixes in memory.", value=load.resident_bytes)
        yield CounterMetricFamily("foreword_engine_prompt_tokens", "Prompt tokens computed.", value=load.prompt_tokens)
        yield CounterMetricFamily("foreword_engine_completion_tokens", "Tokens generated.", value=load.completion_tokens)
        yield CounterMetricFamily("foreword_engine_steps", "Forward passes.", value=load.steps)
        yield CounterMetricFamily("foreword_engine_prefix_hits", "Requests whose prefix was in memory.", value=load.prefix_hits)
        yield CounterMetricFamily("foreword_engine_prefix_misses", "Requests whose prefix was read.", value=load.prefix_misses)

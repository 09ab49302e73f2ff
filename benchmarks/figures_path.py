"""Figures of the served path: what it adds, what its cache and its router are worth, and what a success costs along it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.figures_asking import Figure

DATA = {
    "clinc150": "CLINC150, 150 intents",
    "by_domain": "CLINC150, 10 domains of 15 intents",
    "banking77": "BANKING77, 77 intents of one domain",
}
WAYS = {"prefix": "the prefix alone", "prompt": "the long prompt alone", "path": "the path"}


def rows(results: Mapping[str, dict[str, Any]]) -> Iterator[Figure]:
    """The rows of whatever was measured. Args: results: by the benchmark's name."""
    yield from _gateway(results["gateway"])
    yield from _semantic_cache(results["semantic_cache"])
    yield from _routing(results["routing"])


def table(found: dict[str, Any]) -> str:
    """What a success costs with each way, as Markdown."""
    lines = [
        "| | success | cost per success | cost per request | answered from the cache |",
        "|---|---:|---:|---:|---:|",
    ]
    for way, name in WAYS.items():
        row = found.get("ways", {}).get(way)
        if row is None:
            continue
        hits = "" if row["cache_hit_rate"] is None else f"{row['cache_hit_rate']:.0%}"
        money = (f"{float(row[name]) * 1e6:.1f} µ$" for name in ("cost_per_success", "cost_per_attempt"))
        lines.append(f"| {name} | {row['success_rate']:.0%} | {' | '.join(money)} | {hits} |")
    return "\n".join(lines)


def intake_table(found: dict[str, Any]) -> str:
    """How many requests get their task type, by lines of each type, as Markdown."""
    lines = [
        "| data | lines of each type | get their type | without a threshold | strange questions that get none |",
        "|---|---:|---:|---:|---:|",
    ]
    for data, name in DATA.items():
        for count, row in found.get(data, {}).items():
            shares = [f"{row[key]['mean']:.0%}" if key in row else "" for key in ("accuracy", "nearest", "rejected")]
            lines.append(f"| {name} | {count} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _gateway(found: dict[str, Any]) -> Iterator[Figure]:
    if not found:
        return
    command = "python -m benchmarks.gateway"
    shown = f"{found['bare_cpu_ratio']:.1f}×; without the cache {found['uncached_bare_cpu_ratio']:.1f}×"
    yield "processor time of a request through all stages over a bare pass-through's, cache missed", shown, command
    if found.get("litellm_cpu_ratio") is not None:
        shown = (
            f"{found['litellm_cpu_ratio']:.1f}× less, without the cache {found['uncached_litellm_cpu_ratio']:.1f}×; "
            f"paced streams {found['sse_cpu_ratio']:.1f}×, {found['uncached_sse_cpu_ratio']:.1f}×"
        )
        yield f"the same against the LiteLLM proxy {found['versions']['litellm']}", shown, command
    shown = f"{found['added_p50_ms']:.2f} ms; first piece of a stream {found['sse_ttft_over_direct_ms']:.1f} ms after a direct one's"
    yield "what the path adds to a request, median", shown, command
    yield "memory of the path", f"{found['memory_mb']:.0f} MB; {found['memory_growth']:+.2%} over the run", command


def _semantic_cache(found: dict[str, Any]) -> Iterator[Figure]:
    command = "python -m benchmarks.semantic_cache"
    for place, bound in enumerate(found.get("bound", ())):
        wrong, hits, fixed = (found[name][place] for name in ("wrong_hit_upper", "hit_rate", "fixed_hit_rate"))
        shown = f"wrong answers {wrong:.2%} at most (95 %); hits {hits:.1%}, best fixed threshold {fixed:.1%}"
        yield f"semantic cache, bound {bound:.0%} of requests", shown, command
    if found:
        yield (
            f"its look-up among {found['lookup_entries']:,} entries, embedding included",
            f"{found['lookup_p50_ms']:.2f} ms (median)",
            command,
        )


def _routing(found: dict[str, Any]) -> Iterator[Figure]:
    for place, name in enumerate(found.get("dataset", ())):
        saving, low, high = (found[key][place] for key in ("saving_at_95", "saving_low", "saving_high"))
        shown = f"{saving:.0%} [{low:.0%}, {high:.0%}]"
        yield f"router, saving at 95 % of the strong model's accuracy, {name}", shown, "python -m benchmarks.routing"

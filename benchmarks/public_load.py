"""The servers under a load generator that is not ours: vLLM's own `vllm bench serve`, on the embedded engine and on vLLM, turn by turn.

Both serve the same model and the same prefixes over HTTP with OpenAI's protocol. The generator sends one model name in a run, so its
requests share a prefix, or have none.

python -m benchmarks.public_load            some minutes on two cores; needs vLLM in an environment of its own
python -m benchmarks.public_load --quick    one turn, fewer requests
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine, result_file

RESULT = Path(__file__).with_name("results") / "public_load.json"
INPUT_TOKENS, OUTPUT_TOKENS, AT_ONCE, WINDOW = 100, 32, 32, 1024
START_SECONDS = 300.0
KEPT = ("output_throughput", "mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "completed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_load", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="one turn, fewer requests")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--vllm", type=Path, help="the vllm program (default: as `foreword serve --engine vllm` finds it)")
    options = parser.parse_args(arguments)
    figures = measure(options.vllm, requests=32 if options.quick else 64, turns=1 if options.quick else 5)
    if not options.quick:
        result_file.write(RESULT, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def measure(vllm: Path | None, *, requests: int, turns: int) -> dict[str, Any]:
    """Throughput and latencies of both servers, without a prefix and with one; medians over the turns."""
    from benchmarks.serving import publish
    from foreword import api
    from foreword.engines._checkpoint import resolve
    from foreword.engines.vllm import find_vllm
    from foreword.prefix.store import PrefixStore

    program, folder = find_vllm(vllm), resolve("smollm2")
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = PrefixStore(Path(scratch) / "prefixes")
        name = publish(api.load("smollm2", dtype="float32").engine, store, 1)[0]
        environment = os.environ | {"FOREWORD_VLLM": str(program), "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}
        extra = {"embedded": [], "vllm": ["--", "--max-model-len", str(WINDOW), "--block-size", "32"]}
        engines = {"embedded": "transformers", "vllm": "vllm"}
        servers = {
            server: stack.enter_context(_server(engine, store.root, environment, extra[server], Path(scratch)))
            for server, engine in engines.items()
        }
        for turn in range(turns + 1):
            for server, url in servers.items():
                for kind, model in (("none", "smollm2"), ("prefix", f"smollm2:{name}")):
                    result = _load(program, folder, url, model, requests, turn, Path(scratch), environment)
                    if turn:
                        found.setdefault(f"{server}, {kind}", []).append(result)
    figures: dict[str, Any] = {
        "requests": requests,
        "at_once": AT_ONCE,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "turns": turns,
        "rows": {label: {key: statistics.median(run[key] for run in runs) for key in KEPT} for label, runs in found.items()},
    }
    for kind in ("none", "prefix"):
        pairs = zip(found[f"embedded, {kind}"], found[f"vllm, {kind}"], strict=True)
        figures[f"embedded_over_vllm_{kind}"] = statistics.median(
            ours["output_throughput"] / theirs["output_throughput"] for ours, theirs in pairs
        )
    return figures


@contextmanager
def _server(engine: str, prefixes: Path, environment: dict[str, str], extra: Sequence[str], scratch: Path) -> Iterator[str]:
    """`foreword serve` on a free port, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    foreword = Path(sys.executable).with_name("foreword")
    command = [str(foreword), "serve", "--model", "smollm2", "--engine", engine, "--prefixes", str(prefixes), "--port", str(port), *extra]
    with (scratch / f"{engine}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait(process, f"http://127.0.0.1:{port}/v1/models", scratch / f"{engine}.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(
                f"A server of the benchmark ended with code {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}"
            )
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"A server of the benchmark was not ready within {START_SECONDS:.0f} s:\n{log.read_text(errors='replace')[-2000:]}")


def _load(
    vllm: Path, tokenizer: Path, url: str, model: str, requests: int, turn: int, scratch: Path, environment: dict[str, str]
) -> dict[str, float]:
    """One run of the generator; every turn has prompts of its own, so that only prefixes can be found in a cache."""
    result = scratch / "load.json"
    options: dict[str, Any] = {
        "backend": "openai",
        "endpoint": "/v1/completions",
        "base-url": url,
        "model": model,
        "tokenizer": tokenizer,
        "dataset-name": "random",
        "random-input-len": INPUT_TOKENS,
        "random-output-len": OUTPUT_TOKENS,
        "num-prompts": requests,
        "max-concurrency": AT_ONCE,
        "seed": turn,
        "result-dir": scratch,
        "result-filename": result.name,
    }
    command = [str(vllm), "bench", "serve", "--ignore-eos", "--disable-tqdm", "--save-result"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not result.is_file():
        raise RuntimeError(f"`vllm bench serve` failed with code {done.returncode}:\n{done.stdout[-2000:]}")
    content = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    return {key: float(content[key]) for key in KEPT}


if __name__ == "__main__":
    sys.exit(main())

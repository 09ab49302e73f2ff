"""What serving many prefixes over one frozen model costs, in process: beside no prefix, beside one request at a time, and with
thousands of prefixes on disk.

python -m benchmarks.serving            a few minutes on two cores
python -m benchmarks.serving --quick    about 50 s, fewer repeats and prefixes
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, result_file, shared_tasks
from foreword import api
from foreword.engine import Request, Serves
from foreword.prefix.artifact import Prefix
from foreword.prefix.store import PrefixStore
from foreword.types import Delta, Message, Sampling

RESULT = Path(__file__).with_name("results") / "serving.json"
ROWS, POSITIONS, NEW_TOKENS = 32, 32, 32
ZIPF = 1.0
"""Exponent of the traffic over prefixes: the r-th most wanted gets a share of 1 / r."""


@dataclass(slots=True)
class Heard:
    """What came back for one request."""

    token_ids: list[int] = field(default_factory=list)
    asked: float = 0.0
    first: float = 0.0
    last: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One round of requests.

    Attributes:
        wall, processor: seconds.
        first: seconds to each request's first token.
    """

    wall: float
    processor: float
    tokens: int
    first: list[float]
    heard: list[Heard]

    @property
    def rate(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.wall


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and prefixes")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--data", type=Path, default=shared_tasks.DEFAULT_DATA, help="folder of evaluation data (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        sys.stderr.write(f"There is no folder {options.data}; name the evaluation data with --data.\n")
        return 2
    figures = measure(
        options.data,
        dtype=options.dtype,
        repeats=2 if options.quick else 7,
        prefixes=100 if options.quick else 2000,
        requests=64 if options.quick else 512,
    )
    if not options.quick:
        result_file.write(RESULT, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def measure(data: Path, *, dtype: str, repeats: int, prefixes: int, requests: int) -> dict[str, Any]:
    """Every figure of the embedded engine."""
    engine = api.load("smollm2", dtype=dtype).engine
    prompts = [pair.prompt for pair in shared_tasks.e2e(data, pairs=max(ROWS, requests), seed=0).train.examples][: max(ROWS, requests)]
    with tempfile.TemporaryDirectory() as folder:
        store = PrefixStore(Path(folder))
        names = publish(engine, store, prefixes)
        serving = engine.serve(max_rows=ROWS, resident_bytes=256 << 20)
        try:
            figures = _batch(serving, store, names, prompts, repeats)
            figures |= _tenants(serving, store, names, prompts, requests)
        finally:
            serving.close()
    return {"dtype": str(engine.dtype).removeprefix("torch."), **figures}


def publish(engine: Any, store: PrefixStore, count: int) -> list[str]:
    """Prefixes of one length that all differ: the keys and values of a text, with a little noise drawn for each."""
    import torch

    text = "You describe restaurants in one or two friendly sentences, from a list of their properties, and leave nothing out. " * 4
    key_LHND, value_LHND = engine.read(engine.encode(text)[:POSITIONS])
    names = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        noisy = [
            tensor + 0.05 * tensor.float().std() * torch.randn(tensor.shape, generator=draw).to(tensor.dtype)
            for tensor in (key_LHND, value_LHND)
        ]
        prefix = Prefix.make(
            name=f"tenant-{number:05d}",
            kind="learned",
            key_LHND=noisy[0],
            value_LHND=noisy[1],
            fingerprint=engine.fingerprint,
            geometry=engine.geometry,
            prompt_format="full",
        )
        names.append(store.publish(prefix).name)
    return names


def ask(serving: Serves, prompts: Sequence[str], prefixes: Sequence[Path | None], *, at_once: int) -> Timed:
    """Sends every prompt behind its prefix, with `at_once` requests under way at any time, and waits for all answers."""
    return _ask(serving, [{"conversation": (Message(role="user", content=prompt),)} for prompt in prompts], prefixes, at_once)


def ask_texts(serving: Serves, texts: Sequence[str], prefixes: Sequence[Path | None]) -> Timed:
    """The same for plain texts to go on from, all at once."""
    return _ask(serving, [{"text": text} for text in texts], prefixes, len(texts))


def _ask(serving: Serves, wanted: Sequence[dict[str, Any]], prefixes: Sequence[Path | None], at_once: int) -> Timed:
    heard = [Heard() for _ in wanted]
    free = threading.Semaphore(at_once)
    done = threading.Semaphore(0)

    def listener(place: int) -> Any:
        def deliver(delta: Delta) -> None:
            now = time.perf_counter()
            mine = heard[place]
            if delta.token_ids and not mine.token_ids:
                mine.first = now
            mine.token_ids += delta.token_ids
            if delta.finish_reason is not None:
                mine.last = now
                free.release()
                done.release()

        return deliver

    began, processor = time.perf_counter(), time.process_time()
    for place, (asked, prefix) in enumerate(zip(wanted, prefixes, strict=True)):
        free.acquire()
        heard[place].asked = time.perf_counter()
        request = Request(
            **asked,
            prefix=() if prefix is None else (prefix,),
            sampling=Sampling(max_new_tokens=NEW_TOKENS, ignore_end=True),
        )
        serving.submit(request, listener(place))
    for _ in wanted:
        done.acquire()
    return Timed(
        wall=time.perf_counter() - began,
        processor=time.process_time() - processor,
        tokens=sum(len(mine.token_ids) for mine in heard),
        first=[mine.first - mine.asked for mine in heard],
        heard=heard,
    )


def _batch(serving: Serves, store: PrefixStore, names: Sequence[str], prompts: Sequence[str], repeats: int) -> dict[str, Any]:
    """32 requests at once without prefixes, with 32 distinct ones, with one shared by all, and one request after another."""
    prompts = prompts[:ROWS]
    distinct: list[Path | None] = [store.resolve(name).path for name in names[:ROWS]]
    kinds: dict[str, tuple[list[Path | None], int]] = {
        "none": ([None] * ROWS, ROWS),
        "distinct": (distinct, ROWS),
        "shared": ([distinct[0]] * ROWS, ROWS),
        "sequential": (distinct, 1),
    }
    rounds: dict[str, list[Timed]] = {kind: [] for kind in kinds}
    for kind, (prefixes, at_once) in kinds.items():
        if kind != "sequential":
            ask(serving, prompts, prefixes, at_once=at_once)
    for number in range(repeats):
        for kind, (prefixes, at_once) in kinds.items():
            if kind != "sequential" or number < 2:
                rounds[kind].append(ask(serving, prompts, prefixes, at_once=at_once))
    alone = [mine.token_ids for mine in rounds["sequential"][0].heard]
    together = [mine.token_ids for mine in rounds["distinct"][0].heard]
    pairs = list(zip(rounds["distinct"], rounds["none"], strict=True))
    sequential = statistics.median(timed.rate for timed in rounds["sequential"])
    return {
        "distinct_over_none": statistics.median(a.rate / b.rate for a, b in pairs),
        "distinct_over_none_range": [min(a.rate / b.rate for a, b in pairs), max(a.rate / b.rate for a, b in pairs)],
        "distinct_over_none_processor": statistics.median(b.processor / a.processor for a, b in pairs),
        "shared_over_none": statistics.median(a.rate / b.rate for a, b in zip(rounds["shared"], rounds["none"], strict=True)),
        "batch_over_sequential": statistics.median(timed.rate for timed in rounds["distinct"]) / sequential,
        "tokens_per_second": {kind: statistics.median(timed.rate for timed in timings) for kind, timings in rounds.items()},
        "same_tokens_as_alone": f"{sum(a == b for a, b in zip(alone, together, strict=True))} of {ROWS}",
    }


def _tenants(serving: Serves, store: PrefixStore, names: Sequence[str], prompts: Sequence[str], requests: int) -> dict[str, Any]:
    """Zipf-distributed traffic over every prefix there is, beside the same traffic over the 32 most wanted."""
    draw = random.Random(0)
    weights = [1 / (rank + 1) ** ZIPF for rank in range(len(names))]
    wanted = draw.choices(range(len(names)), weights=weights, k=requests)
    paths = [store.resolve(name).path for name in names]
    prompts = [prompts[place % len(prompts)] for place in range(requests)]
    few, many = [], []
    half = requests // 2
    for part in (slice(0, half), slice(half, requests)):
        few.append(ask(serving, prompts[part], [paths[place % ROWS] for place in wanted[part]], at_once=ROWS))
        many.append(ask(serving, prompts[part], [paths[place] for place in wanted[part]], at_once=ROWS))
    began = time.perf_counter()
    for place in wanted:
        store.resolve(names[place])
    look_up = (time.perf_counter() - began) / requests
    load = serving.load()
    return {
        "prefixes": len(names),
        "many_over_few": statistics.median(a.rate / b.rate for a, b in zip(many, few, strict=True)),
        "look_up_seconds": look_up,
        "cold_first_token_seconds": _cold(serving, paths, prompts[0]),
        "resident_bytes": load.resident_bytes,
        "resident_prefixes": load.resident_prefixes,
        "prefix_hits": load.prefix_hits,
        "prefix_misses": load.prefix_misses,
    }


def _cold(serving: Serves, paths: Sequence[Path], prompt: str) -> float:
    """What a prefix that is not in memory adds to the time to first token; medians over 20 prefixes, alternating."""
    cold, warm = [], []
    for path in list(paths[-20:]):
        serving.let_go((path,))
        cold += ask(serving, [prompt], [path], at_once=1).first
        warm += ask(serving, [prompt], [path], at_once=1).first
    return statistics.median(cold) - statistics.median(warm)


if __name__ == "__main__":
    sys.exit(main())

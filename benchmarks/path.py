"""What a success costs along a path of two tiers, against each tier alone, on the queues of examples/support.

python -m benchmarks.path            about five minutes on two cores, of which two are tuning
python -m benchmarks.path --quick    40 s of tuning and 40 requests

A prefix is tuned on the training messages; then `foreword serve --config examples/support/foreword.toml` answers the same stream of
messages three times: with the prefix alone, with the long prompt alone, and along the path, which takes the prefix first, the prompt where
the answer is no queue, and the cache where a message comes again. Dev messages come again as people's questions do: the r-th likeliest
with a probability as 1/r. Every answer is judged by its label through `/v1/feedback`, and `foreword cost` adds up. Prices are those of the
example's configuration, for both tiers alike.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import OpenAI

from benchmarks import machine, result_file

ROOT = Path(__file__).resolve().parent.parent
QUEUES = ROOT / "examples" / "support" / "queues"
RESULT = Path(__file__).with_name("results") / "path.json"
WAYS = {"prefix": ("small:queues", "default"), "prompt": ("shots", "default"), "path": ("auto", "queues")}
"""Each way's model and task type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done. Attributes: requests: of the stream, for each way."""

    tuning: str
    requests: int


FULL, QUICK = Size(tuning="120s", requests=400), Size(tuning="25s", requests=40)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes a full run's result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less tuning, fewer requests")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="path-") as folder:
        figures = measure(Path(folder), QUICK if options.quick else FULL)
    if not options.quick:
        result_file.write(RESULT, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def measure(folder: Path, size: Size) -> dict[str, Any]:
    """The figures of all ways."""
    prefixes, prompts, ledger = folder / "prefixes", folder / "prompts", folder / "ledger.sqlite"
    config = folder / "foreword.toml"
    config.write_text((ROOT / "examples/support/foreword.toml").read_text() + f'\n[store]\nledger = "{ledger}"\n')
    data = ["--data", QUEUES / "train.jsonl", "--dev", QUEUES / "dev.jsonl"]
    _foreword("tune", *data, "--name", "queues", "--budget", size.tuning, "--root", prefixes, "--run-folder", folder / "run")
    _foreword("prompt", "add", QUEUES / "shots.toml", "--root", prompts)
    rows = [json.loads(line) for line in (QUEUES / "dev.jsonl").read_text().splitlines()]
    stream = drawn(rows, size.requests, seed=0)
    with _serving(config, prefixes, prompts) as url:
        seconds = {way: _asked(url, *named, stream) for way, named in WAYS.items()}
    reported = json.loads(_foreword("cost", "--ledger", ledger, "--by", "asked-model", "--json"))
    by_model = {row["asked-model"]: row for row in reported}
    found = {way: _figures(by_model[model], seconds[way]) for way, (model, _) in WAYS.items()}
    others = [float(found[way]["cost_per_success"]) for way in ("prefix", "prompt")]
    return {
        "ways": found,
        "path_over_cheapest_alone": float(found["path"]["cost_per_success"]) / min(others),
        "requests": size.requests,
        "different_messages": len({row["text"] for row in stream}),
    }


def drawn(rows: Sequence[dict[str, str]], count: int, *, seed: int) -> list[dict[str, str]]:
    """A stream of messages; the r-th of a random order is drawn with a probability as 1/r."""
    rng = random.Random(seed)
    order = rng.sample(list(rows), len(rows))
    return rng.choices(order, weights=[1 / rank for rank in range(1, len(order) + 1)], k=count)


def _asked(url: str, model: str, task: str, stream: Sequence[dict[str, str]]) -> float:
    """Sends the stream, judges every answer, and returns the seconds that it took."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300)
    began = time.perf_counter()
    for row in stream:
        messages: Any = [{"role": "user", "content": row["text"]}]
        answer = client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=8, extra_headers={"foreword-task": task}
        )
        said = (answer.choices[0].message.content or "").strip().strip(".").lower()
        client.post("/feedback", body={"id": answer.id, "success": said == row["label"]}, cast_to=object)
    return time.perf_counter() - began


def _figures(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    kept = ("success_rate", "cost", "cost_per_success", "cost_per_attempt", "cache_hit_rate", "escalation_rate", "saved")
    for name in ("cost", "cost_per_success", "cost_per_attempt"):
        row[name] = None if row[name] is None else format(Decimal(row[name]), ".3g")
    return {name: row[name] for name in kept} | {"seconds_a_request": seconds / row["requests"]}


def _foreword(*arguments: Any) -> str:
    command = [sys.executable, "-m", "foreword", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return done.stdout


@contextmanager
def _serving(config: Path, prefixes: Path, prompts: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "foreword", "serve", "--config", config, "--prefixes", prefixes, "--prompts", prompts, "--port", "0"]
    with subprocess.Popen([str(word) for word in (*command, "--no-access-log")], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            first = server.stdout.readline()
            yield first.split(" on ")[1].strip()
        finally:
            server.terminate()


if __name__ == "__main__":
    raise SystemExit(main())

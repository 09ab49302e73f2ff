"""What compiling a text saves, and what of the text is left when it is made smaller.

python -m benchmarks.compiling            about half an hour on two cores
python -m benchmarks.compiling --quick    about 50 s: one short document

Quality is a divergence: how far the model behind a smaller prefix is from the model behind the whole text, in nats per token of the
gold answers to the questions that come with a document. The gain is the share of the way from no text to the whole text: 1 for the
text itself, 0 for none. Questions and answers are seen by no method. What a compilation costs is its processor time over that of
reading the text once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, result_file, shared_tasks

RESULT = Path(__file__).with_name("results") / "compiling.json"
SETS = ("qasper", "multidoc2dial", "quality", "cuad", "dictionary")
SIMPLE = ("truncate", "random", "heavy-hitter", "kvzip")
ANSWER_TOKENS, MOST_QUESTIONS = 60, 20
DOCUMENT_TOKENS = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        tokens: of each document, which is cut there.
        documents: of each set.
        distilled: on how many of the documents `distil` is measured too, at a tenth of the tokens; it takes longer than all others.
    """

    sets: Sequence[str]
    tokens: int
    documents: int
    ratios: Sequence[float]
    distilled: int
    prompts: int
    turns: int
    prefill_tokens: int


FULL = Size(sets=SETS, tokens=2000, documents=1, ratios=(10.0, 20.0), distilled=1, prompts=200, turns=5, prefill_tokens=2000)
QUICK = Size(sets=("multidoc2dial",), tokens=300, documents=1, ratios=(10.0,), distilled=0, prompts=8, turns=2, prefill_tokens=800)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiling", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="one short document")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--data", type=Path, default=shared_tasks.DEFAULT_DATA, help="folder of evaluation data (default: %(default)s)")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        sys.stdout.write(json.dumps(_compile_once(options.memory_of)) + "\n")
        return 0
    if not options.data.is_dir():
        sys.stderr.write(f"There is no folder {options.data}; name the evaluation data with --data.\n")
        return 2
    figures: dict[str, Any] = {}
    for figures in measure(options.data, QUICK if options.quick else FULL):
        # Kept after every document: a run that is stopped leaves what it has measured, and says on which documents.
        if not options.quick:
            result_file.write(RESULT, figures | {"machine": machine.describe()})
    result_file.show(figures, as_json=options.json)
    return 0


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every figure that there is, once more after each document and each of the other parts."""
    engine = engine_of("bfloat16")
    figures: dict[str, Any] = _first_token(engine, data, size)
    documents: list[dict[str, Any]] = []
    for number, document in enumerate(_documents(data, size)):
        documents.append(_measured(engine, *document, size, distilled=number < size.distilled))
        figures |= _summary(documents, size.ratios) | {"documents": documents}
        yield figures
    figures |= _exact(data, size)
    yield figures
    if size is FULL:
        figures["memory_bytes"] = _memory(data)
        yield figures


def engine_of(dtype: str) -> Any:
    """The embedded model."""
    from foreword import api

    return api.load("smollm2", dtype=dtype).engine


# --- the text itself ------------------------------------------------------------------------------------------------


def _exact(data: Path, size: Size) -> dict[str, Any]:
    """A compiled text beside the text: greedy answers and log-probabilities."""
    import torch

    from foreword.compiling.compilers.text import compile_source
    from foreword.compiling.settings import CompileSettings
    from foreword.engine import Row
    from foreword.types import Message, Sampling

    engine = engine_of("float32")
    text = _cut(engine, shared_tasks.long_documents(data, "multidoc2dial", 1)[0][0], 300)
    prefix = compile_source(engine, text, name="text", settings=CompileSettings(chat=True))
    system = Message(role="system", content=text)
    turns = [(Message(role="user", content=pair.prompt),) for pair in shared_tasks.e2e(data, pairs=size.prompts, seed=0).train.examples][
        : size.prompts
    ]
    sampling = Sampling(max_new_tokens=16)
    behind = engine.generate(turns, prefix=prefix, sampling=sampling)
    after = engine.generate([(system, *turn) for turn in turns], sampling=sampling)
    same = sum(one.token_ids == other.token_ids for one, other in zip(behind, after, strict=True))
    apart = 0.0
    every = torch.arange(engine.module.get_output_embeddings().weight.shape[0])[None]
    with torch.inference_mode():
        for turn in turns:
            target = ((0,),)
            short = Row(prompt=engine.render(turn, prompt_format="continuation"), targets=target)
            whole = Row(prompt=engine.render((system, *turn)), targets=target)
            one = engine.log_probs_of([short], every, prefix.key_LHND, prefix.value_LHND)
            apart = max(apart, float((one - engine.log_probs_of([whole], every)).abs().max()))
    return {
        "text_same_greedy": f"{same} of {len(turns)}",
        "text_max_log_prob_difference": apart,
    }


def _first_token(engine: Any, data: Path, size: Size) -> dict[str, Any]:
    """Time to first token behind a compiled context over that of reading the context; the two take turns."""
    from foreword.compiling.compilers.text import compile_source
    from foreword.compiling.settings import CompileSettings
    from foreword.types import Message, Sampling

    text = _cut(engine, shared_tasks.long_documents(data, "qasper", 1)[0][0], size.prefill_tokens)
    prefix = compile_source(engine, text, name="text", settings=CompileSettings(chat=True))
    question = Message(role="user", content="What is this text about?")
    sampling = Sampling(max_new_tokens=1, ignore_end=True)

    def seconds(conversation: Any, **options: Any) -> float:
        began = time.perf_counter()
        engine.generate([conversation], sampling=sampling, **options)
        return time.perf_counter() - began

    read, kept = [], []
    for turn in range(size.turns + 1):
        took = seconds((Message(role="system", content=text), question)), seconds((question,), prefix=prefix)
        if turn:
            read.append(took[0])
            kept.append(took[1])
    ratios = [slow / fast for slow, fast in zip(read, kept, strict=True)]
    return {
        "ttft_ratio": statistics.median(ratios),
        "ttft_ratio_range": [min(ratios), max(ratios)],
        "ttft_seconds": {"read": statistics.median(read), "compiled": statistics.median(kept)},
    }


# --- fewer positions ------------------------------------------------------------------------------------------------


def _documents(data: Path, size: Size) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    for name in size.sets:
        if name == "dictionary":
            for number in range(size.documents):
                yield f"{name}-{number}", *shared_tasks.dictionary(data, size.tokens // 18, skip=1000 * number)
            continue
        for number, (text, questions) in enumerate(shared_tasks.long_documents(data, name, size.documents)):
            yield f"{name}-{number}", text, questions


def _measured(engine: Any, name: str, text: str, questions: Sequence[tuple[str, str]], size: Size, *, distilled: bool) -> dict[str, Any]:
    """Gain and cost of every method on one document. Methods that need reference queries share them; each counts their cost as its own."""
    from foreword.compiling import compaction, compiler, divergence, source
    from foreword.compiling.observer import Silent
    from foreword.compiling.settings import CompileSettings
    from foreword.engine import Row
    from foreword.prefix.operations import quantize
    from foreword.types import Message

    text = _cut(engine, text, size.tokens)
    rows = [
        Row(
            prompt=engine.render((Message(role="user", content=question),), prompt_format="continuation"),
            targets=(engine.answer_ids(answer.strip())[:ANSWER_TOKENS],),
        )
        for question, answer in dict(questions).items()
    ][:MOST_QUESTIONS]
    began = time.process_time()
    whole = compiler.get("text").compile_source(engine, text, name="whole")
    prefill = time.process_time() - began
    taught = divergence.teach(engine, rows, whole.key_LHND, whole.value_LHND)
    without = divergence.mean_divergence(engine, taught, None, None)
    unrelated = _unrelated_loss(engine, None)
    found: dict[str, Any] = {
        "document": name,
        "tokens": whole.positions,
        "questions": len(rows),
        "nats_without_text": float(without.mean()),
        "unrelated_loss_change": {"text": _unrelated_loss(engine, whole) / unrelated - 1},
        "int8_top1": _same_top(engine, rows, whole, quantize(whole)),
        "methods": {},
    }

    def add(label: str, prefix: Any, seconds: float) -> None:
        apart = float(divergence.mean_divergence(engine, taught, prefix.key_LHND, prefix.value_LHND).mean())
        figures = {"positions": prefix.positions, "nats": apart, "gain": 1 - apart / float(without.mean()), "prefills": seconds / prefill}
        found["methods"][label] = figures
        sys.stderr.write(f"{name} {label}: {json.dumps(figures)}\n")
        if label.startswith(("compact", "distil")):
            found["unrelated_loss_change"][label] = _unrelated_loss(engine, prefix) / unrelated - 1

    began = time.process_time()
    reading = compaction.Reading(engine, source.tokens_of(engine, text, chat=False), name="small", observer=Silent())
    read = time.process_time() - began
    listened = {"truncate": 0.0, "random": 0.0, "heavy-hitter": 0.0}
    for label, select in (("kvzip", "kvzip"), ("compact", "fitted")):
        began = time.process_time()
        reading.listen(round(whole.positions / min(size.ratios)), CompileSettings(select=select))
        listened[label] = time.process_time() - began
    for ratio in size.ratios:
        for label, select in {**{name: name for name in SIMPLE}, "compact": "fitted"}.items():
            began = time.process_time()
            prefix = reading.compact(round(whole.positions / ratio), CompileSettings(select=select))
            add(f"{label}-{ratio:g}x", prefix, time.process_time() - began + read + listened[label])
    if distilled:
        began = time.process_time()
        prefix = compiler.get("distil").compile_source(engine, text, name="small", settings=CompileSettings(ratio=10.0))
        add("distil-10x", prefix, time.process_time() - began)
    return found


_UNRELATED = (
    ("How do I boil an egg?", "Put the egg into boiling water and take it out after eight minutes."),
    ("Name the planet nearest to the sun.", "Mercury is the planet nearest to the sun."),
    ("Why do leaves turn red in autumn?", "Trees stop making chlorophyll when days get short, and other colours come through."),
    ("What is a good name for a cat?", "A good name for a cat is short and easy to call, such as Milo."),
    ("How far is the moon?", "The moon is about 384,000 kilometres from the earth."),
)


def _unrelated_loss(engine: Any, prefix: Any) -> float:
    """Perplexity of answers that have nothing to do with any document."""
    import torch

    from foreword.engine import Row
    from foreword.types import Message

    prompt_format = "full" if prefix is None else "continuation"
    rows = [
        Row(prompt=engine.render((Message(role="user", content=asked),), prompt_format=prompt_format), targets=(engine.answer_ids(said),))
        for asked, said in _UNRELATED
    ]
    tensors = () if prefix is None else (prefix.key_LHND, prefix.value_LHND)
    with torch.inference_mode():
        return float(torch.exp(-engine.target_log_probs(rows, *tensors).mean()))


def _same_top(engine: Any, rows: Sequence[Any], prefix: Any, rounded: Any) -> float:
    """Share of the answers' tokens where both prefixes have the same most probable token."""
    tops = [engine.likeliest(rows, one.keys(engine.dtype), one.values(engine.dtype), count=1)[0] for one in (prefix, rounded)]
    return float((tops[0] == tops[1]).float().mean())


def _summary(documents: Sequence[dict[str, Any]], ratios: Sequence[float]) -> dict[str, Any]:
    """Means over documents; and where `compact` stands beside the best simple method of each document."""
    labels = dict.fromkeys(label for document in documents for label in document["methods"])
    figures: dict[str, Any] = {"gains": {}}
    for label in labels:
        several = [document["methods"][label] for document in documents if label in document["methods"]]
        figures["gains"][label] = {key: statistics.fmean(one[key] for one in several) for key in ("gain", "prefills")}
    for ratio in ratios:
        best = [max(document["methods"][f"{name}-{ratio:g}x"]["gain"] for name in SIMPLE) for document in documents]
        mine = [document["methods"][f"compact-{ratio:g}x"]["gain"] for document in documents]
        figures[f"compact_at_least_best_simple_{ratio:g}x"] = f"{sum(a >= b for a, b in zip(mine, best, strict=True))} of {len(best)}"
    pairs = [document["methods"] for document in documents if "distil-10x" in document["methods"]]
    if pairs:
        figures["distil_over_compact_10x"] = [one["distil-10x"]["gain"] - one["compact-10x"]["gain"] for one in pairs]
    figures["compact_gain_10x"] = figures["gains"]["compact-10x"]["gain"]
    figures["int8_top1"] = statistics.fmean(document["int8_top1"] for document in documents)
    return figures


def _cut(engine: Any, text: str, tokens: int) -> str:
    return engine.tokenizer.decode(engine.encode(text)[:tokens])


# --- memory ---------------------------------------------------------------------------------------------------------


def _memory(data: Path) -> int:
    """Peak memory of a process of its own that compacts a document of DOCUMENT_TOKENS tokens."""
    command = [sys.executable, "-m", "benchmarks.compiling", "--memory-of", str(data)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _compile_once(data: Path) -> int:
    from foreword.compiling.compilers.compact import compile_source
    from foreword.evaluate.measuring import peak_memory

    engine = engine_of("bfloat16")
    compile_source(engine, _cut(engine, shared_tasks.long_documents(data, "cuad", 1)[0][0], DOCUMENT_TOKENS), name="small")
    return peak_memory()


if __name__ == "__main__":
    sys.exit(main())

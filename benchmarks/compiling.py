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

from benchmarks import command, shared_tasks

RESULT = Path(__file__).with_name("results") / "compiling.json"
SETS = ("qasper", "multidoc2dial", "quality", "cuad", "dictionary")
SIMPLE = ("truncate", "random", "heavy-hitter", "kvzip")
ANSWER_TOKENS, MOST_QUESTIONS, UNRELATED = 60, 20, 24
DOCUMENT_TOKENS = 6000
DISTILLED: dict[str, dict[str, Any]] = {"distil-10x": {}, "self-study-10x": {"select": "truncate", "steps": 120}}
"""Settings of each; self-study from scratch gets more steps for what it saves by not fitting."""
TAIL_SHARE = 5
"""One in so many positions goes to the text tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        tokens: of each document, which is cut there.
        documents: of each set.
        distilled: on how many of the documents `distil` is measured too, at a tenth of the tokens, from `compact` and from the text's own
            first positions (self-study from scratch); each takes longer than all others together.
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
    parser = command.parser("compiling", __doc__, quick="one short document")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        sys.stdout.write(json.dumps(_compile_once(options.memory_of)) + "\n")
        return 0
    return command.run(options, measure, full=FULL, quick=QUICK, result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every figure that there is, once more after each document and each of the other parts."""
    engine = engine_of("bfloat16")
    figures: dict[str, Any] = _first_token(engine, data, size)
    documents: list[dict[str, Any]] = []
    for number, document in enumerate(_documents(data, size)):
        documents.append(_measured(engine, data, document, size, distilled=number < size.distilled))
        figures |= _summary(documents, size.ratios) | {"documents": documents}
        yield figures
    figures |= _exact(data, size) | _rounded(data, size)
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


def _rounded(data: Path, size: Size) -> dict[str, Any]:
    """How often a text's int8 prefix has the same most probable token, along the model's own greedy answers behind the exact one.

    In float32, and in bfloat16, where the two most probable tokens are often equal to the last bit.
    """
    from foreword.compiling.compilers.text import compile_source
    from foreword.engine import Row
    from foreword.prefix.operations import quantize
    from foreword.types import Message, Sampling

    figures: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        engine, same, tokens = engine_of(dtype), 0, 0
        for name, text, questions in _documents(data, size):
            prefix = compile_source(engine, _cut(engine, text, size.tokens // 2), name=name)
            turns = [(Message(role="user", content=question),) for question in dict(questions)][:MOST_QUESTIONS]
            answers = engine.generate(turns, prefix=prefix, sampling=Sampling(max_new_tokens=32))
            rows = [
                Row(prompt=engine.render(turn, prompt_format="continuation"), targets=(answer.token_ids,))
                for turn, answer in zip(turns, answers, strict=True)
                if answer.token_ids
            ]
            tops = [
                engine.likeliest(rows, one.keys(engine.dtype), one.values(engine.dtype), count=1)[0] for one in (prefix, quantize(prefix))
            ]
            same, tokens = same + int((tops[0] == tops[1]).sum()), tokens + len(tops[0])
        figures["int8_top1" if dtype == "float32" else "int8_top1_bfloat16"] = same / tokens
        figures["int8_tokens"] = tokens
    return figures


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


def _measured(
    engine: Any, data: Path, document: tuple[str, str, Sequence[tuple[str, str]]], size: Size, *, distilled: bool
) -> dict[str, Any]:
    """Gain and cost of every method on one document. Methods that need reference queries share them; each counts their cost as its own."""
    from foreword.compiling import compaction, compiler, divergence, source
    from foreword.compiling.observer import Silent
    from foreword.compiling.settings import CompileSettings
    from foreword.engine import Row
    from foreword.types import Message

    name, text, questions = document
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
    unrelated = _unrelated_perplexity(engine, data, None, prompt_format="full")
    found: dict[str, Any] = {
        "document": name,
        "tokens": whole.positions,
        "questions": len(rows),
        "nats_without_text": float(without.mean()),
        # A request behind a prefix has no default system message, and that alone changes something.
        "unrelated_perplexity_change": {
            "no system message": _unrelated_perplexity(engine, data, None) / unrelated - 1,
            "text": _unrelated_perplexity(engine, data, (whole.key_LHND, whole.value_LHND)) / unrelated - 1,
        },
        "methods": {},
    }

    def add(label: str, tensors: tuple[Any, Any], seconds: float) -> None:
        apart = float(divergence.mean_divergence(engine, taught, *tensors).mean())
        figures = {
            "positions": tensors[0].shape[2],
            "nats": apart,
            "gain": 1 - apart / float(without.mean()),
            "prefills": seconds / prefill,
        }
        found["methods"][label] = figures
        sys.stderr.write(f"{name} {label}: {json.dumps(figures)}\n")
        if label.startswith(("compact-", "distil")):
            found["unrelated_perplexity_change"][label] = _unrelated_perplexity(engine, data, tensors) / unrelated - 1

    began = time.process_time()
    token_ids = source.tokens_of(engine, text, chat=False)
    reading = compaction.Reading(engine, token_ids, name="small", observer=Silent())
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
            add(f"{label}-{ratio:g}x", (prefix.key_LHND, prefix.value_LHND), time.process_time() - began + read + listened[label])
        tensors, seconds = _with_tail(engine, reading, token_ids, round(whole.positions / ratio))
        add(f"compact with tail-{ratio:g}x", tensors, seconds + read + listened["compact"])
    if distilled:
        for label, changes in DISTILLED.items():
            began = time.process_time()
            prefix = compiler.get("distil").compile_source(engine, text, name="small", settings=CompileSettings(ratio=10.0, **changes))
            add(label, (prefix.key_LHND, prefix.value_LHND), time.process_time() - began)
    return found


def _with_tail(engine: Any, reading: Any, token_ids: Sequence[int], positions: int) -> tuple[Any, float]:
    """As many positions, some of which hold exact strings of the text; and the seconds beyond what the references cost."""
    from foreword.compiling import tail
    from foreword.compiling.settings import CompileSettings

    began = time.process_time()
    room = positions // TAIL_SHARE
    small = reading.compact(positions - room, CompileSettings())
    whole = (reading.whole.key_LHND, reading.whole.value_LHND)
    made, _ = tail.append(engine, token_ids, whole, (small.key_LHND, small.value_LHND), room=room)
    return made, time.process_time() - began


def _unrelated_rows(engine: Any, data: Path, *, prompt_format: str) -> list[Any]:
    """Problems of arithmetic, which have nothing to do with any of the documents, and their worked answers."""
    from foreword.engine import Row
    from foreword.types import Message

    rows = [json.loads(line) for line in (data / "gsm8k" / "dev.jsonl").read_text(encoding="utf-8").splitlines()[:UNRELATED]]
    return [
        Row(
            prompt=engine.render((Message(role="user", content=row["question"]),), prompt_format=prompt_format),
            targets=(engine.answer_ids(row["answer"]),),
        )
        for row in rows
    ]


def _unrelated_perplexity(engine: Any, data: Path, tensors: tuple[Any, Any] | None, *, prompt_format: str = "continuation") -> float:
    """Perplexity of answers that have nothing to do with any document."""
    import torch

    rows = _unrelated_rows(engine, data, prompt_format=prompt_format)
    with torch.inference_mode():
        return float(torch.exp(-engine.target_log_probs(rows, *(tensors or ())).mean()))


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
        for other in ("compact-10x", "self-study-10x"):
            figures[f"distil_over_{other}"] = [one["distil-10x"]["gain"] - one[other]["gain"] for one in pairs]
    figures["compact_gain_10x"] = figures["gains"]["compact-10x"]["gain"]
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

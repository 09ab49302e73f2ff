"""A dictionary as context, in every form that there is: what each is worth, and what a request pays for it.

python -m benchmarks.dictionary            about half an hour on two cores
python -m benchmarks.dictionary --quick    under 50 s: few entries, and a gate that has hardly learned

Words and definitions are WordNet's. Two kinds of questions: what a word means (nats per token of the gold definition), and which word has
a given definition (the likeliest of eight words of the dictionary; chance is .125). Questions quote the word or the definition, so that
choosing entries is easy; `right_entry_chosen` says how often it succeeded. `gain` is the share of the way, in nats, from no dictionary to
the whole one as text. A request is a question and ten answer tokens after it. Its compute is counted:

    2 · weights of all layers · tokens read  +  2 · weights of the output layer · tokens chosen
    + 4 · layers · query heads · head dimension · sum over tokens read of the keys that each attends to

and measured, as processor seconds of one thread. `gain_per_flop` and `gain_per_second` are the gain over the request's compute, in units
of the whole dictionary as text, so that this has 1; `..._over_compiled` has 1 for the whole dictionary as a compiled prefix. What is
paid once (compiling, learning the gate) is told apart, in processor seconds.

The gate of the side signal is learned on dictionaries of other words. Learning may also teach how definitions are written, which the other
forms are not taught; so the whole text and the side signal are measured with a dictionary of wrong words too, and `from_entries` is what
the right one is better by. `prefix, learned bias` has as many numbers, learned from the same questions, within the prompt's own attention:
the dictionary as a prefix whose share of attention each head raises or lowers.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, shared_tasks

RESULT = Path(__file__).with_name("results") / "dictionary.json"
FORWARD, REVERSE = "What does “{word}” mean?", "Which word means “{definition}”?"
CANDIDATES = 8
UNRELATED = (
    ("How do I boil an egg?", "Put the egg into boiling water and take it out after eight minutes."),
    ("Name the planet nearest to the sun.", "Mercury is the planet nearest to the sun."),
    ("Why do leaves turn red in autumn?", "Trees stop making chlorophyll when days get short, and other colours come through."),
    ("What is a good name for a cat?", "A good name for a cat is short and easy to call, such as Milo."),
    ("How far is the moon?", "The moon is about 384,000 kilometres from the earth."),
)
ANSWER_TOKENS = 10
CHOSEN = 8
LEARNING_RATE = 0.05
BIASED = "prefix, learned bias"
SCORED_TOKENS = 1024
RESAMPLES = 1000

Pair = tuple[str, str]
"""A word and its definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        entries: sizes of the dictionary.
        questions: of each kind.
        self_asked: questions that the model asks itself where it compacts.
        lesson_entries, lessons: of the dictionaries that the gate is learned on; each entry is asked for in both ways.
    """

    entries: Sequence[int]
    questions: int
    self_asked: int
    lesson_entries: int
    lessons: int
    steps: int
    turns: int


FULL = Size(entries=(100, 300), questions=60, self_asked=32, lesson_entries=100, lessons=5, steps=80, turns=3)
QUICK = Size(entries=(12,), questions=4, self_asked=4, lesson_entries=8, lessons=1, steps=3, turns=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("dictionary", __doc__, measure, arguments, full=FULL, quick=QUICK, less="few entries, few questions", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every figure that there is, once more after each size of the dictionary."""
    from foreword import api

    engine: Any = api.load("smollm2", dtype="bfloat16").engine
    words = shuffled_words(data)
    most, lessons = max(size.entries), size.lessons * size.lesson_entries
    measured, taught, wrong = words[:most], words[most : most + lessons], words[most + lessons :]
    gates, paid = _gates(engine, taught, size)
    figures: dict[str, Any] = {"gate": paid, "forms": {}}
    for count in size.entries:
        bench = Bench(engine, measured[:count], wrong[:count], size)
        figures["forms"][str(count)] = bench.figures(gates)
        figures |= _answer(figures["forms"][str(count)], count)
        yield figures


def shuffled_words(data: Path) -> list[Pair]:
    """Every word once, with one of its definitions, in an order that is always the same."""
    from foreword.compiling import entries

    text, _ = shared_tasks.dictionary(data, sys.maxsize)
    pairs = [(entry.word, entry.meanings) for entry in entries.parse(text)]
    random.Random(0).shuffle(pairs)
    return pairs


def _answer(forms: dict[str, Any], entries: int) -> dict[str, Any]:
    """The keys by which a run is judged: how much more gain per unit of compute than the whole dictionary as text, and compiled."""
    return {
        f"{name.replace(',', '').replace(' ', '_')}_{key}_{entries}": forms[name][key]["value"]
        for name in ("side signal", f"{CHOSEN} entries, prefix")
        for key in ("gain_per_flop", "gain_per_flop_over_compiled")
    }


# --- the gate -------------------------------------------------------------------------------------------------------


def _gates(engine: Any, taught: Sequence[Pair], size: Size) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gate in closed form and the learned one, and what they took."""
    import torch

    from foreword.compiling import side_signal

    lessons = []
    began = time.process_time()
    for number in range(size.lessons):
        pairs = taught[number * size.lesson_entries : (number + 1) * size.lesson_entries]
        questions = [(FORWARD.format(word=word), definition) for word, definition in pairs]
        questions += [(REVERSE.format(definition=definition), word) for word, definition in pairs]
        lessons.append(side_signal.lesson(engine, _compiled(engine, pairs), questions))
    few = [replace(lesson, rows=lesson.rows[:: max(1, len(lesson.rows) // 16)]) for lesson in lessons[:2]]
    start_LQ = side_signal.gate_of_shares(engine, few)
    closed = time.process_time() - began
    learned_LQ = side_signal.learned_gate(engine, lessons, start_LQ, steps=size.steps, learning_rate=LEARNING_RATE)
    seconds = time.process_time() - began
    zero_LQ = torch.zeros_like(start_LQ)
    biased_LQ = side_signal.learned_gate(engine, lessons, zero_LQ, steps=size.steps, learning_rate=LEARNING_RATE, by_share=True)
    paid = {
        "lessons": size.lessons,
        "questions": sum(len(lesson.rows) for lesson in lessons),
        "steps": size.steps,
        "numbers": start_LQ.numel(),
        "closed_form_seconds": closed,
        "learned_seconds": seconds,
        "mean_closed_form": float(start_LQ.mean()),
        "mean_learned": float(learned_LQ.mean()),
    }
    return {"side signal, closed form": start_LQ, "side signal": learned_LQ, BIASED: biased_LQ}, paid


def _compiled(engine: Any, pairs: Sequence[Pair], **settings: Any) -> Any:
    from foreword.compiling.compilers.dictionary import compile_source
    from foreword.compiling.settings import CompileSettings

    text = "".join(f"{word}: {definition}\n" for word, definition in pairs)
    return compile_source(engine, text, name="dictionary", settings=CompileSettings(**settings))


# --- one dictionary -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, its answers to score (the first one is right for a definition), and which is right."""

    question: str
    answers: tuple[str, ...]
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a request costs: counted and measured. `positions`: keys beside the prompt's own."""

    positions: int
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """By question: the gold definition's summed nats and its tokens; and whether the right word was the likeliest.

    Attributes:
        unrelated: perplexity of answers to questions that have nothing to do with the dictionary.
    """

    nats: np.ndarray
    tokens: np.ndarray
    right: np.ndarray
    unrelated: float


class Bench:
    """All forms of one dictionary, on the same questions.

    Attributes:
        right_entry_chosen: of how many questions the entry that they are about was among the chosen ones.
    """

    def __init__(self, engine: Any, pairs: Sequence[Pair], wrong: Sequence[Pair], size: Size) -> None:
        self._engine, self._pairs, self._wrong, self._turns = engine, list(pairs), list(wrong), size.turns
        self._self_asked = size.self_asked
        draw = random.Random(1)
        asked = draw.sample(self._pairs, min(size.questions, len(self._pairs)))
        self._words = [word for word, _ in asked]
        self._forward = [Asked(question=FORWARD.format(word=word), answers=(definition,), right=0) for word, definition in asked]
        self._reverse = []
        for word, definition in asked:
            others = draw.sample([other for other, _ in self._pairs if other != word], min(CANDIDATES, len(self._pairs)) - 1)
            candidates = tuple(sorted([word, *others]))
            self._reverse.append(Asked(question=REVERSE.format(definition=definition), answers=candidates, right=candidates.index(word)))

        unrelated = [Asked(question=question, answers=(said,), right=0) for question, said in UNRELATED]
        self._asked = [*self._forward, *self._reverse, *unrelated]
        self.right_entry_chosen = 0.0

    def figures(self, gates: dict[str, Any]) -> dict[str, Any]:
        """Every form's quality, costs and gain per unit of compute."""
        forms: dict[str, tuple[Quality, Cost | None, float]] = {}

        def add(name: str, quality: Quality, cost: Cost | None, once: float = 0.0) -> None:
            forms[name] = (quality, cost, once)
            sys.stderr.write(f"{len(self._pairs)} entries, {name}: {quality.nats.sum() / quality.tokens.sum():.3f} nats, ")
            sys.stderr.write(f"{quality.right.mean():.3f} right, {cost}\n")

        add("none", self._behind(None), self._prefix_cost(None))
        for name, quality, cost, once in (*self._whole(), *self._chosen(), *self._beside(gates)):
            add(name, quality, cost, once)
        return _tabled(forms) | {"right_entry_chosen": self.right_entry_chosen}

    # --- forms ---

    def _whole(self) -> Iterator[tuple[str, Quality, Cost | None, float]]:
        for order, label in (("alphabetical", "whole"), ("topic", "whole by topic")):
            prefix, once = _timed(lambda order=order: _compiled(self._engine, self._pairs, order=order))
            quality = self._behind(prefix)
            yield f"{label}, text", quality, self._text_cost(prefix.positions), 0.0
            if order == "alphabetical":
                # The very same keys and values, so there is nothing to measure but the cost.
                yield f"{label}, prefix", quality, self._prefix_cost(prefix), once
        yield "whole, wrong words", self._behind(_compiled(self._engine, self._wrong)), None, 0.0
        prefix, once = _timed(lambda: _compiled(self._engine, self._pairs, ratio=10.0, questions=self._self_asked))
        yield "compacted 10x, prefix", self._behind(prefix), self._prefix_cost(prefix), once

    def _chosen(self) -> Iterator[tuple[str, Quality, Cost | None, float]]:
        from foreword.compiling.chosen_entries import places, select

        engine = self._engine
        separate, once = _timed(lambda: _compiled(engine, self._pairs, separate=True))
        yield "separate entries, prefix", self._behind(separate), self._prefix_cost(separate), once
        definitions = dict(self._pairs)

        def chosen(question: str) -> Any:
            return select(separate, question, most_entries=CHOSEN)

        def ids_of(prefix: Any) -> tuple[int, ...]:
            return engine.encode("".join(f"{place.word}: {definitions[place.word]}\n" for place in places(prefix)))

        def as_text(question: str) -> Any:
            return self._read(ids_of(chosen(question)))

        first = self._forward[0].question
        one = chosen(first)
        asked = [*zip(self._words, self._forward, strict=True), *zip(self._words, self._reverse, strict=True)]
        found = [word in {place.word for place in places(chosen(one.question))} for word, one in asked]
        self.right_entry_chosen = statistics.fmean(found)
        yield f"{CHOSEN} entries, prefix", self._behind(chosen), self._prefix_cost(one, making=lambda: chosen(first)), once
        yield f"{CHOSEN} entries, text", self._behind(as_text), self._text_cost(len(ids_of(one))), 0.0

    def _beside(self, gates: dict[str, Any]) -> Iterator[tuple[str, Quality, Cost | None, float]]:
        from foreword.prefix.side_signal import SideSignal
        from foreword.types import Sampling

        right, once = _timed(lambda: _compiled(self._engine, self._pairs))
        wrong = _compiled(self._engine, self._wrong)
        for name, gate_LQ in gates.items():
            side = SideSignal.of(right, gate_LQ)

            def answer(side: Any = side) -> None:
                sampling = Sampling(max_new_tokens=ANSWER_TOKENS, ignore_end=True)
                self._engine.generate_beside([self._conversation(self._forward[0].question)], side, sampling=sampling)

            if name == BIASED:
                # Scored on a path that is for comparison only, so that its processor time says nothing.
                yield name, self._beside_quality(side, by_share=True), None, 0.0
                yield f"{name}, wrong words", self._beside_quality(SideSignal.of(wrong, gate_LQ), by_share=True), None, 0.0
                continue
            cost = Cost(positions=side.positions, flops=self._flops(0, side.positions, "full"), seconds=self._seconds(answer))
            yield name, self._beside_quality(side), cost, once
        yield "side signal, wrong words", self._beside_quality(SideSignal.of(wrong, gates["side signal"])), None, 0.0

    # --- quality ---

    def _behind(self, prefix: Any) -> Quality:
        """Of answers behind a prefix, behind none, or behind the one that a function makes for each question."""
        if callable(prefix):
            each = [self._scored([asked], prefix(asked.question)) for asked in self._asked]
            return self._quality([scores for (scores,) in each])
        return self._quality(self._scored(self._asked, prefix))

    def _scored(self, several: Sequence[Asked], prefix: Any) -> list[list[float]]:
        tensors = () if prefix is None else (prefix.key_LHND, prefix.value_LHND)
        prompt_format = "full" if prefix is None else "continuation"
        return self._scores(several, prompt_format, lambda rows: self._engine.target_log_probs(rows, *tensors))

    def _beside_quality(self, side: Any, *, by_share: bool = False) -> Quality:
        return self._quality(
            self._scores(self._asked, "full", lambda rows: self._engine.target_log_probs_beside(rows, side, by_share=by_share))
        )

    def _scores(self, several: Sequence[Asked], prompt_format: str, log_probs: Callable[[Any], Any]) -> list[list[float]]:
        """Summed log-probability of every answer to every question."""
        import torch

        from foreword.engine import Row

        rows = [
            Row(
                prompt=self._engine.render(self._conversation(asked.question), prompt_format=prompt_format),
                targets=tuple(self._engine.answer_ids(answer) for answer in asked.answers),
            )
            for asked in several
        ]
        found: dict[int, list[float]] = {}
        for group in self._engine.batches(rows, most_tokens=SCORED_TOKENS):
            with torch.inference_mode():
                flat = log_probs([rows[index] for index in group])
            parts = iter(flat.split([len(target) for index in group for target in rows[index].targets]))
            found |= {index: [float(next(parts).sum()) for _ in rows[index].targets] for index in group}
        return [found[index] for index in range(len(rows))]

    def _quality(self, scores: Sequence[Sequence[float]]) -> Quality:
        count, last = len(self._forward), len(self._forward) + len(self._reverse)
        tokens = sum(len(self._engine.answer_ids(said)) for _, said in UNRELATED)
        return Quality(
            nats=np.array([-one[0] for one in scores[:count]]),
            tokens=np.array([len(self._engine.answer_ids(asked.answers[0])) for asked in self._forward]),
            right=np.array([float(np.argmax(one) == asked.right) for one, asked in zip(scores[count:last], self._reverse, strict=True)]),
            unrelated=math.exp(-sum(one[0] for one in scores[last:]) / tokens),
        )

    # --- cost ---

    def _prefix_cost(self, prefix: Any, making: Callable[[], Any] | None = None) -> Cost:
        """Of a request behind a prefix that is there; `making` is work that it needs each time, which multiplies no weights."""
        positions, prompt_format = (0, "full") if prefix is None else (prefix.positions, "continuation")
        extra = 0.0 if making is None else self._seconds(making)
        seconds = self._seconds(lambda: self._answer(prefix)) + extra
        return Cost(positions=positions, flops=self._flops(0, positions, prompt_format), seconds=seconds)

    def _text_cost(self, tokens: int) -> Cost:
        """Of a request that reads so many tokens first; which ones does not matter."""
        text = "".join(f"{word}: {definition}\n" for word, definition in self._pairs)
        ids = (self._engine.encode(text) * 2)[:tokens]
        read = self._read(ids)
        seconds = self._seconds(lambda: self._engine.read(ids)) + self._seconds(lambda: self._answer(read))
        return Cost(positions=tokens, flops=self._flops(tokens, 0, "continuation"), seconds=seconds)

    def _read(self, ids: Sequence[int]) -> Any:
        """A prefix of the tokens as they are."""
        from foreword.prefix.artifact import Prefix

        key_LHND, value_LHND = self._engine.read(ids)
        return Prefix.make(
            name="read",
            kind="text",
            key_LHND=key_LHND,
            value_LHND=value_LHND,
            fingerprint=self._engine.fingerprint,
            geometry=self._engine.geometry,
            prompt_format="continuation",
        )

    def _answer(self, prefix: Any) -> None:
        from foreword.types import Sampling

        sampling = Sampling(max_new_tokens=ANSWER_TOKENS, ignore_end=True)
        self._engine.generate([self._conversation(self._forward[0].question)], prefix=prefix, sampling=sampling)

    def _seconds(self, work: Callable[[], Any]) -> float:
        """Median processor time."""
        return statistics.median(_timed(work)[1] for _ in range(self._turns))

    def _flops(self, first: int, kept: int, prompt_format: str) -> float:
        """Of reading `first` tokens, the question and the answer, beside or behind `kept` keys that are there already."""
        engine = self._engine
        config, embedding = engine.module.config, engine.module.get_input_embeddings().weight
        prompt = len(engine.render(self._conversation(self._forward[0].question), prompt_format=prompt_format))
        # The last answer token is chosen and not read.
        read = first + prompt + ANSWER_TOKENS - 1
        keys = read * kept + read * (read + 1) // 2
        layers = 2 * (engine.parameters - embedding.numel()) * read
        heads = engine.geometry.layers * config.num_attention_heads * engine.geometry.head_dim
        return float(layers + 2 * embedding.numel() * ANSWER_TOKENS + 4 * heads * keys)

    @staticmethod
    def _conversation(question: str) -> Any:
        from foreword.types import Message

        return (Message(role="user", content=question),)


# --- figures --------------------------------------------------------------------------------------------------------


def _tabled(forms: dict[str, tuple[Quality, Cost | None, float]]) -> dict[str, Any]:
    """All figures with their intervals; questions are resampled together for all forms."""
    none, text = forms["none"][0], forms["whole, text"][0]
    compared = {"": "whole, text", "_over_compiled": "whole, prefix"}
    wrong = {"whole, text": "whole, wrong words", "side signal": "side signal, wrong words", BIASED: f"{BIASED}, wrong words"}
    table: dict[str, Any] = {}
    for name, (quality, cost, once) in forms.items():

        def nats(rows: np.ndarray, quality: Quality = quality) -> float:
            return float(quality.nats[rows].sum() / quality.tokens[rows].sum())

        def gain(rows: np.ndarray, nats: Callable[[np.ndarray], float] = nats) -> float:
            without = nats(rows, none)  # type: ignore[call-arg]
            return (without - nats(rows)) / (without - nats(rows, text))  # type: ignore[call-arg]

        count = len(quality.nats)
        found: dict[str, Any] = {
            "nats": _figure(nats, count),
            "reverse_accuracy": _figure(lambda rows, quality=quality: float(quality.right[rows].mean()), count),
            "gain": _figure(gain, count),
            "unrelated_perplexity_change": quality.unrelated / none.unrelated - 1,
        }
        if name in wrong:
            other = forms[wrong[name]][0]
            found["from_entries"] = _figure(lambda rows, nats=nats, other=other: nats(rows, other) - nats(rows), count)
        if cost is not None:
            found |= {"positions": cost.positions, "flops": cost.flops, "seconds": cost.seconds, "seconds_once": once}
            for suffix, label in compared.items():
                unit = forms[label][1]
                assert unit is not None
                for key, ratio in (("flop", unit.flops / cost.flops), ("second", unit.seconds / cost.seconds)):
                    found[f"gain_per_{key}{suffix}"] = {kind: value * ratio for kind, value in found["gain"].items()}
        table[name] = found
    return table


def _figure(statistic: Callable[[np.ndarray], float], count: int) -> dict[str, float]:
    """A figure and its 95 % bootstrap interval."""
    from foreword.evaluate.statistics import bootstrap_interval

    interval = bootstrap_interval(statistic, count, resamples=RESAMPLES, seed=0)
    return {"value": statistic(np.arange(count)), "low": interval.low, "high": interval.high}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    made = work()
    return made, time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())

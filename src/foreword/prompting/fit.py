"""How well prompts fit real inputs, told without a single label: how much the inputs surprise the model after each prompt.

For every prompt: the mean negative log-likelihood per token of the inputs in their place, and, where they are known, of the wanted
answers after them. Gonen et al. 2022, "Demystifying Prompts in Language Models via Perplexity Estimation" (SPELL), rank prompts by the
perplexity of prompt and input together; here the prompt's own tokens are left out, so that long and short prompts compare.

The tokens that all inputs of a prompt have before them are computed once.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from foreword.engine import Progress, Row, Scores
from foreword.errors import ConfigError
from foreword.prompting import inputs as places
from foreword.prompting.template import Template
from foreword.types import Message

_STRANGE = ("\u25c6", "7q", "Zw")
"""Texts that stand in an input's place to find where it begins and ends: no two begin or end with the same token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How one prompt fits.

    Attributes:
        name: of the prompt.
        input_nll: mean negative log-likelihood of an input token after the prompt, in nats; every input counts alike.
        output_nll: the same of the wanted answers, their end included; None where none were given.
        tokens: of the prompt around the first input, that input left out.
        per_input: each input's own mean, in order.
        per_output: each wanted answer's.
    """

    name: str
    input_nll: float
    output_nll: float | None
    tokens: int
    per_input: tuple[float, ...]
    per_output: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt to rank, and which of its variables takes the inputs; see `foreword.prompting.inputs`."""

    template: Template
    variable: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """An input in its prompt, in tokens."""

    before: tuple[int, ...]
    text: tuple[int, ...]
    behind: tuple[int, ...]


def fit(
    engine: Scores,
    prompts: Sequence[Template | Candidate],
    inputs: Sequence[str],
    outputs: Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Fit, ...]:
    """How well each prompt fits the inputs, the best first: by the wanted answers where they are known, else by the inputs.

    Args:
        outputs: a wanted answer for each input.
        progress: told of each prompt that is done.

    Raises:
        ConfigError: there is nothing to rank or nothing to rank it by, or a prompt has no place for an input.
        WindowError: a prompt with its input and answer does not fit the model's window.
    """
    if not prompts or not inputs or not all(inputs):
        raise ConfigError(
            f"Prompts are ranked by inputs; got {len(prompts)} prompts and {len(inputs)} inputs. Give some, none of them empty."
        )
    if outputs is not None and len(outputs) != len(inputs):
        raise ConfigError(f"Each input needs its wanted answer; got {len(inputs)} inputs and {len(outputs)} answers.")
    found = []
    for prompt in prompts:
        found.append(_fit_of(engine, prompt if isinstance(prompt, Candidate) else Candidate(template=prompt), inputs, outputs))
        if progress is not None:
            progress(1)
    return tuple(sorted(found, key=lambda one: one.input_nll if one.output_nll is None else one.output_nll))


def _fit_of(engine: Scores, candidate: Candidate, inputs: Sequence[str], outputs: Sequence[str] | None) -> Fit:
    template = candidate.template
    variable = places.input_variable(template, candidate.variable)
    placed = [_place(engine, template, text, variable) for text in inputs]
    answers = [()] * len(inputs) if outputs is None else [engine.answer_ids(text) for text in outputs]
    shared = _shared([one.before for one in placed])
    rows = [
        # The last shared token stays in the row: something must predict the first.
        Row(prompt=one.before[len(shared) - 1 :], targets=((*one.text, *one.behind, *answer) if answer else one.text,))
        for one, answer in zip(placed, answers, strict=True)
    ]
    scored = [row[0] for row in engine.log_probs(rows, after=shared[:-1])]
    per_input = tuple(-statistics.fmean(values[: len(one.text)]) for values, one in zip(scored, placed, strict=True))
    per_output = None
    if outputs is not None:
        per_output = tuple(-statistics.fmean(values[-len(answer) :]) for values, answer in zip(scored, answers, strict=True))
    return Fit(
        name=candidate.name or template.name,
        input_nll=statistics.fmean(per_input),
        output_nll=None if per_output is None else statistics.fmean(per_output),
        tokens=len(placed[0].before) + len(placed[0].behind),
        per_input=per_input,
        per_output=per_output,
    )


def _place(engine: Scores, template: Template, text: str, variable: str | None) -> _Placed:
    """Where the input's tokens begin and end: where the conversation differs from those with other texts in the input's place."""

    def rendered(content: str) -> tuple[int, ...]:
        asked: Sequence[Message] = places.conversation(template, content, variable=variable)
        return tuple(engine.render(asked))

    ids = rendered(text)
    others = [rendered(strange) for strange in _STRANGE if strange != text]
    start = min(_alike(ids, other) for other in others)
    # What stands after the input may not reach back over what stands before it.
    after = min(min(_alike(ids[::-1], other[::-1]), len(ids) - start, len(other) - start) for other in others)
    end = len(ids) - after
    if start == 0 or end <= start:
        raise ConfigError(
            f"Prompt `{template.name}` makes the same tokens of any input, or has nothing before it, so it cannot be ranked by inputs. "
            "Write the input where it is to stand."
        )
    return _Placed(before=ids[:start], text=ids[start:end], behind=ids[end:])


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _shared(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all sequences begin with."""
    least = min(_alike(sequences[0], other) for other in sequences)
    return tuple(sequences[0][:least])

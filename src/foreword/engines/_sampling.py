"""Choosing the next token of one request. Axes: V vocabulary, K tokens that are still candidates, I token ids seen so far.

Order of what is done to the logits: bias, penalties, constraint; here log-probabilities are reported; then temperature, top-k, top-p,
min-p, and one draw. Bias and penalties are vLLM's and Hugging Face's:

- `logit_bias` is added first, so that penalties apply to the biased logit;
- `repetition_penalty` r (Keskar et al. 2019, CTRL, §4.1): the logit of each token that the prompt or the answer holds becomes x / r where
  it is positive and x · r where it is negative, once however often the token appears. A prefix's positions have no token ids, so they
  do not count;
- `frequency_penalty` f and `presence_penalty` p look at the answer alone: x - f · (times it appears) - p · (whether it appears).

The draw inverts the cumulative distribution at one uniform number from the request's own generator, which always lives on the CPU. So
every token takes exactly one number from it, and equal seeds give equal draws on any device and beside any neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.errors import ConfigError, ServingError
from foreword.types import Sampling

COLDEST = 1e-5
"""Temperatures below are greedy: the quotient would overflow, and a gap of 1e-4 in the logits is already a factor of e^10."""
MOST_STOPS, LONGEST_STOP = 16, 1024
MOST_LOGPROBS = 20
LARGEST_BIAS = 100.0
LARGEST_PENALTY = 2.0
NUCLEUS_CANDIDATES = 1024
"""So many of the largest logits are looked at before the whole vocabulary is sorted."""


def check(sampling: Sampling, *, vocabulary: int | None = None) -> None:
    """Refuses a setting from which nothing can be drawn.

    Args:
        vocabulary: how many token ids the model has; where given, `logit_bias` may name no other.

    Raises:
        ConfigError: names the field, what was given, and what it may be.
    """
    wrong = {**_wrong_numbers(sampling), **_wrong_penalties(sampling), **_wrong_lists(sampling, vocabulary)}
    for message, applies in wrong.items():
        if applies:
            raise ConfigError(f"Sampling: {message}.")


def _wrong_numbers(sampling: Sampling) -> dict[str, bool]:
    logprobs, seed = sampling.logprobs, sampling.seed
    return {
        f"max_new_tokens must be 1 or more; got {sampling.max_new_tokens}": sampling.max_new_tokens < 1,
        f"temperature must be 0 (greedy) or more, and finite; got {sampling.temperature}": not 0 <= sampling.temperature < math.inf,
        f"top_p must be above 0 and at most 1; got {sampling.top_p}": not 0 < sampling.top_p <= 1,
        f"top_k must be 0 (all tokens) or more; got {sampling.top_k}": sampling.top_k < 0,
        f"min_p must be from 0 to 1; got {sampling.min_p}": not 0 <= sampling.min_p <= 1,
        f"logprobs must be from 0 to {MOST_LOGPROBS}, or None; got {logprobs}": logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS,
        f"seed must fit in 64 bits; got {seed}": not -(2**63) <= seed < 2**64,
    }


def _wrong_penalties(sampling: Sampling) -> dict[str, bool]:
    repetition, presence, frequency = sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty
    return {
        f"repetition_penalty must be above 0, and finite (1 changes nothing); got {repetition}": not 0 < repetition < math.inf,
        f"presence_penalty must be from -2 to 2; got {presence}": not abs(presence) <= LARGEST_PENALTY,
        f"frequency_penalty must be from -2 to 2; got {frequency}": not abs(frequency) <= LARGEST_PENALTY,
    }


def _wrong_lists(sampling: Sampling, vocabulary: int | None) -> dict[str, bool]:
    stop, ids = sampling.stop, [token for token, _ in sampling.logit_bias]
    outside = [bias for _, bias in sampling.logit_bias if not abs(bias) <= LARGEST_BIAS]
    unknown = [token for token in ids if token < 0 or (vocabulary is not None and token >= vocabulary)]
    last = "" if vocabulary is None else f" to {vocabulary - 1}"
    longest = max(map(len, stop), default=0)
    return {
        f"logit_bias must be from -100 to 100; got {outside[:3]}": bool(outside),
        f"logit_bias must name token ids of this model, from 0{last}; got {unknown[:3]}": bool(unknown),
        "logit_bias must name each token id once": len(set(ids)) < len(ids),
        f"stop must not hold an empty text, which would end every answer at once; got {stop}": "" in stop,
        f"stop must hold {MOST_STOPS} texts at most; got {len(stop)}": len(stop) > MOST_STOPS,
        f"stop must hold texts of {LONGEST_STOP} characters at most; got one of {longest}": longest > LONGEST_STOP,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A token that was chosen.

    Attributes:
        logprob: its log-probability after bias, penalties and constraint, before temperature; None where not asked for.
        top: (token id, log-probability) of the most probable ones, most probable first; impossible ones are left out.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer, one after the other, and remembers them."""

    def __init__(
        self, sampling: Sampling, device: torch.device | str = "cpu", *, prompt_ids: Sequence[int] = (), vocabulary: int | None = None
    ) -> None:
        """
        Args:
            device: where the logits will be.
            prompt_ids: token ids of the prompt, for the repetition penalty.
            vocabulary: how many token ids there are; bounds the memory that penalties take.
        """
        self._sampling = sampling
        self._greedy = sampling.temperature < COLDEST
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._bias_ids = torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.long, device=device)
        self._bias = torch.tensor([bias for _, bias in sampling.logit_bias], device=device)
        self._seen = _SeenTokens(sampling, device, prompt_ids, vocabulary) if _penalises(sampling) else None

    @property
    def greedy_only(self) -> bool:
        """Whether the row can take part in a batched argmax: its choice depends on the plain logits alone, and nothing is reported."""
        plain = self._seen is None and not self._sampling.logit_bias and self._sampling.logprobs is None
        return self._greedy and plain and self._sampling.constraint is None

    def draw(self, logits_V: Tensor) -> int:
        """One token from fp32 logits."""
        return self.choose(logits_V).token_id

    def choose(self, logits_V: Tensor, allowed_V: Tensor | None = None) -> Choice:
        """Chooses the next token.

        Args:
            logits_V: fp32; left as it is.
            allowed_V: bool; the tokens that a constraint allows, all where None.

        Raises:
            ServingError: no token is allowed, or the logits are not numbers.
        """
        logits_K, ids_K = _allowed(self._adjusted(logits_V), allowed_V)
        best = int(logits_K.argmax()) if len(logits_K) else 0
        if not len(logits_K) or not math.isfinite(highest := float(logits_K[best])):
            raise ServingError(
                "No next token can be chosen: the constraint and the bias allow none, or the model's logits are not finite numbers. "
                "Relax the constraint, or load the model in float32."
            )
        place = best if self._greedy else self._drawn(logits_K - highest)
        chosen = _original(place, ids_K)
        if self._seen is not None:
            self._seen.add(chosen)
        if self._sampling.logprobs is None:
            return Choice(token_id=chosen)
        return _with_logprobs(logits_K, ids_K, place, self._sampling.logprobs)

    def _adjusted(self, logits_V: Tensor) -> Tensor:
        """Logits after bias and penalties."""
        if not self._sampling.logit_bias and self._seen is None:
            return logits_V
        logits_V = logits_V.clone()
        if self._sampling.logit_bias:
            logits_V[self._bias_ids] += self._bias
        if self._seen is not None:
            self._seen.penalise(logits_V)
        return logits_V

    def _drawn(self, below_K: Tensor) -> int:
        """A place in K, from logits of which the largest is 0."""
        sampling = self._sampling
        scaled_K = below_K / sampling.temperature
        uniform = float(torch.rand((), generator=self._generator, dtype=torch.float64))
        if 0 < sampling.top_k < len(scaled_K):
            ordered, place = scaled_K.topk(sampling.top_k)
            ordered = ordered[: _nucleus(ordered, sampling.top_p, float(ordered.logsumexp(-1)))]
        elif sampling.top_p < 1:
            ordered, place = _nucleus_of_all(scaled_K, sampling.top_p)
        else:
            ordered, place = scaled_K, None
        if sampling.min_p > 0:
            ordered = ordered.masked_fill(ordered < math.log(sampling.min_p), -math.inf)
        return _original(_inverted(ordered, uniform), place)


class _SeenTokens:
    """The distinct token ids that penalties apply to, and how often the answer holds each."""

    def __init__(self, sampling: Sampling, device: torch.device | str, prompt_ids: Sequence[int], vocabulary: int | None) -> None:
        self._sampling = sampling
        # Without a repetition penalty the prompt's tokens would be looked up for nothing.
        known = list(dict.fromkeys(prompt_ids)) if sampling.repetition_penalty != 1 else []
        self._place = {token: place for place, token in enumerate(known)}
        room = len(known) + sampling.max_new_tokens
        self._ids = torch.zeros(room if vocabulary is None else min(room, vocabulary), dtype=torch.long, device=device)
        self._count = torch.zeros(len(self._ids), device=device)
        self._ids[: len(known)] = torch.tensor(known, dtype=torch.long, device=device)

    def add(self, token: int) -> None:
        """Counts one more token of the answer."""
        place = self._place.setdefault(token, len(self._place))
        self._ids[place] = token
        self._count[place] += 1

    def penalise(self, logits_V: Tensor) -> None:
        """Changes the logits in place."""
        ids_I, count_I = self._ids[: len(self._place)], self._count[: len(self._place)]
        logits_I = logits_V[ids_I]
        penalty = self._sampling.repetition_penalty
        if penalty != 1:
            logits_I = torch.where(logits_I > 0, logits_I / penalty, logits_I * penalty)
        logits_V[ids_I] = logits_I - self._sampling.frequency_penalty * count_I - self._sampling.presence_penalty * (count_I > 0)


def _penalises(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0


def _allowed(logits_V: Tensor, allowed_V: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The logits of the allowed tokens and their ids; None where all are."""
    if allowed_V is None:
        return logits_V, None
    ids_K = allowed_V.nonzero()[:, 0]
    return logits_V[ids_K], ids_K


def _original(place: int, ids: Tensor | None) -> int:
    return place if ids is None else int(ids[place])


def _nucleus(ordered: Tensor, mass: float, log_total: float) -> int:
    """How many of the first of `ordered` (falling) it takes to hold `mass` of the distribution (Holtzman et al. 2020, §3.1)."""
    if mass >= 1:
        return len(ordered)
    probability = (ordered - log_total).exp().double()
    before = probability.cumsum(0) - probability
    return int((before < mass).sum())


def _nucleus_of_all(scaled_K: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The nucleus in falling order, and its places in K."""
    log_total = float(scaled_K.logsumexp(-1))
    few = min(NUCLEUS_CANDIDATES, len(scaled_K))
    ordered, place = scaled_K.topk(few)
    size = _nucleus(ordered, mass, log_total)
    if size == few < len(scaled_K):
        ordered, place = scaled_K.sort(descending=True)
        size = _nucleus(ordered, mass, log_total)
    return ordered[:size], place[:size]


def _inverted(scaled: Tensor, uniform: float) -> int:
    """Where the cumulative distribution of exp(scaled) passes `uniform`, 0 <= uniform < 1."""
    cumulative = scaled.exp().cumsum(0, dtype=torch.float64)
    total = float(cumulative[-1])
    # The product may round up to the total, where no place would be found.
    target = min(uniform * total, math.nextafter(total, 0.0))
    return int(torch.searchsorted(cumulative, target, right=True))


def _with_logprobs(logits_K: Tensor, ids_K: Tensor | None, place: int, count: int) -> Choice:
    log_total = logits_K.logsumexp(-1)
    values, places = logits_K.topk(min(count, len(logits_K)))
    top = zip(places.tolist(), (values - log_total).tolist(), strict=True)
    return Choice(
        token_id=_original(place, ids_K),
        logprob=float(logits_K[place] - log_total),
        top=tuple((_original(one, ids_K), logprob) for one, logprob in top if logprob > -math.inf),
    )

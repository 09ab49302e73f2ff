"""Choosing one token from logits: against a slow, plain reference, and by counting draws."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.engines._sampling import NUCLEUS_CANDIDATES, Sampler, check
from foreword.errors import ConfigError, ServingError
from foreword.types import Constraint, Sampling

CPU = torch.device("cpu")
LOGITS_V = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, -3.0])


def draws(count: int, **fields) -> torch.Tensor:
    sampler = Sampler(Sampling(**{"temperature": 1.0, **fields}), CPU)
    return torch.tensor([sampler.draw(LOGITS_V) for _ in range(count)])


# --- the plain reference ----------------------------------------------------------------------------------------


def adjusted(logits: list[float], sampling: Sampling, prompt: list[int], answer: list[int], allowed: list[bool]) -> list[float]:
    """Logits after bias, penalties and constraint."""
    found = []
    for token, logit in enumerate(logits):
        logit += dict(sampling.logit_bias).get(token, 0.0)
        if token in prompt or token in answer:
            logit = logit / sampling.repetition_penalty if logit > 0 else logit * sampling.repetition_penalty
        logit -= sampling.frequency_penalty * answer.count(token)
        logit -= sampling.presence_penalty if token in answer else 0.0
        found.append(logit if allowed[token] else -math.inf)
    return found


def normalised(logits: list[float]) -> list[float]:
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def distribution(logits: list[float], sampling: Sampling, *, slack: float = 0.0) -> list[float]:
    """What is drawn from; `slack` widens every limit, for tokens that ties or rounding may put on either side."""
    highest = max(logits)
    probabilities = normalised([(logit - highest) / sampling.temperature for logit in logits])
    largest = sorted(probabilities, reverse=True)[: sampling.top_k or None]
    kept = set()
    for token, probability in enumerate(probabilities):
        more_probable = sum(other for other in largest if other > probability * (1 + slack))
        in_top_k = probability >= largest[-1] * (1 - slack)
        in_top_p = more_probable / sum(largest) < sampling.top_p + slack
        if in_top_k and in_top_p and probability >= max(probabilities) * sampling.min_p * (1 - slack):
            kept.add(token)
    left = sum(probabilities[token] for token in kept)
    return [probabilities[token] / left if token in kept else 0.0 for token in range(len(logits))]


V = 9
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    min_p=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.7, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.4, -0.5]),
    logit_bias=st.dictionaries(st.integers(0, V - 1), st.floats(-5, 5, width=32), max_size=3).map(lambda found: tuple(found.items())),
    logprobs=st.sampled_from([None, 0, 1, 3, 20]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=300, deadline=None)
@given(
    sampling=SAMPLINGS,
    steps=st.lists(st.lists(st.floats(-8, 8, width=32), min_size=V, max_size=V), min_size=1, max_size=6),
    prompt=st.lists(st.integers(0, V - 1), max_size=5),
    allowed=st.none() | st.lists(st.booleans(), min_size=V, max_size=V).filter(any),
)
def test_as_the_plain_reference(sampling, steps, prompt, allowed):
    sampler = Sampler(sampling, CPU, prompt_ids=prompt, vocabulary=V)
    answer: list[int] = []
    for logits in steps:
        given = torch.tensor(logits)
        choice = sampler.choose(given, None if allowed is None else torch.tensor(allowed))
        assert given.tolist() == logits, "the caller's logits are left alone"
        after = adjusted(logits, sampling, prompt, answer, allowed or [True] * V)
        if sampling.temperature == 0:
            assert after[choice.token_id] == pytest.approx(max(after), abs=1e-4)
        else:
            assert distribution(after, sampling, slack=1e-4)[choice.token_id] > 0
        _check_logprobs(choice, after, sampling)
        answer.append(choice.token_id)


def _check_logprobs(choice, after, sampling):
    if sampling.logprobs is None:
        assert choice.logprob is None and choice.top == ()
        return
    expected = [math.log(probability) if probability else -math.inf for probability in normalised(after)]
    assert choice.logprob == pytest.approx(expected[choice.token_id], abs=1e-4)
    possible = sorted((logprob for logprob in expected if logprob > -math.inf), reverse=True)[: sampling.logprobs]
    assert [logprob for _, logprob in choice.top] == pytest.approx(possible, abs=1e-4)
    for token, logprob in choice.top:
        assert logprob == pytest.approx(expected[token], abs=1e-4)


COMBINATIONS = [
    {},
    {"temperature": 0.6},
    {"temperature": 2.0, "top_k": 4},
    {"top_p": 0.85},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.95, "min_p": 0.1},
    {"logit_bias": ((5, 4.0), (0, -2.0))},
    {"top_p": 0.95, "logit_bias": ((3, 2.0),)},
]


@pytest.mark.parametrize("fields", COMBINATIONS, ids=str)
def test_counts_of_draws_fit_the_distribution(fields):
    sampling = Sampling(**{"temperature": 1.0, "seed": 11, **fields})
    expected = distribution(adjusted(LOGITS_V.tolist(), sampling, [], [], [True] * 6), sampling)
    counts = Counter(draws(4000, **{"seed": 11, **fields}).tolist())
    assert all(expected[token] > 0 for token in counts)
    statistic = sum((counts[token] - 4000 * share) ** 2 / (4000 * share) for token, share in enumerate(expected) if share)
    freedom = sum(share > 0 for share in expected) - 1
    # Five standard deviations of a chi-square variable above its mean.
    assert statistic < freedom + 5 * math.sqrt(2 * max(freedom, 1))


def test_first_draws_of_neighbouring_seeds_fit_the_distribution():
    counts = Counter(Sampler(Sampling(temperature=1.0, seed=seed), CPU).draw(LOGITS_V) for seed in range(4000))
    statistic = sum((counts[token] - 4000 * share) ** 2 / (4000 * share) for token, share in enumerate(LOGITS_V.softmax(-1).tolist()))
    assert statistic < 5 + 5 * math.sqrt(10)


# --- limits -----------------------------------------------------------------------------------------------------


def test_greedy_is_the_largest():
    assert set(draws(3, temperature=0.0).tolist()) == {0}
    assert set(draws(50, temperature=1e-320).tolist()) == {0}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_the_probabilities(temperature):
    shares = draws(4000, temperature=temperature, seed=1).bincount(minlength=6) / 4000
    # Four standard errors of a share of one half over 4,000 draws.
    torch.testing.assert_close(shares, (LOGITS_V / temperature).softmax(-1), atol=0.032, rtol=0)


def test_top_k_keeps_the_largest():
    assert set(draws(500, temperature=5.0, top_k=3).tolist()) == {0, 4, 1}
    assert set(draws(2000, temperature=5.0, top_k=99).tolist()) == set(range(6))


def test_top_p_keeps_the_fewest_that_reach_the_mass():
    probabilities = LOGITS_V.softmax(-1)
    assert probabilities[[0, 4]].sum() < 0.8 < probabilities[[0, 4, 1]].sum()
    assert set(draws(1000, top_p=0.8).tolist()) == {0, 4, 1}
    assert set(draws(50, top_p=1e-6).tolist()) == {0}


def test_min_p_is_a_share_of_the_most_probable():
    shares = (LOGITS_V.softmax(-1) / LOGITS_V.softmax(-1).max()).tolist()
    assert shares[1] > 0.3 > shares[2]
    assert set(draws(1000, min_p=0.3).tolist()) == {0, 4, 1}
    assert set(draws(50, min_p=1.0).tolist()) == {0}


def test_both_limits_hold_together():
    assert set(draws(500, temperature=5.0, top_k=4, top_p=0.3).tolist()) <= {0, 4}


@pytest.mark.parametrize(("flatness", "inside"), [(0.01, False), (3.0, True)])
def test_a_nucleus_of_a_large_vocabulary(flatness, inside):
    """Both where the few largest hold the mass and where the whole vocabulary has to be sorted."""
    logits_V = torch.randn(6000, generator=torch.Generator().manual_seed(1)) * flatness
    ordered, order = logits_V.softmax(-1).double().sort(descending=True)
    size = int((ordered.cumsum(0) - ordered < 0.7).sum())
    assert (size < NUCLEUS_CANDIDATES) is inside
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.7, seed=5), CPU)
    drawn = [sampler.draw(logits_V) for _ in range(600)]
    assert set(drawn) <= set(order[: size + 1].tolist())
    rank = {token: place for place, token in enumerate(order.tolist())}
    late = ordered[size // 2 : size].sum() / ordered[:size].sum()
    share = sum(rank[token] >= size // 2 for token in drawn) / 600
    # Five standard errors: both halves of the nucleus are drawn from, each as often as it should.
    assert abs(share - float(late)) < 5 * math.sqrt(0.25 / 600)


# --- seeds and neighbours ---------------------------------------------------------------------------------------


def test_one_seed_gives_one_sequence():
    assert torch.equal(draws(50, seed=3), draws(50, seed=3))
    assert not torch.equal(draws(50, seed=3), draws(50, seed=4))


def test_draws_do_not_depend_on_other_samplers():
    alone = draws(40, seed=3).tolist()
    first, second = (Sampler(Sampling(temperature=1.0, seed=seed), CPU) for seed in (3, 9))
    mixed = []
    for _ in range(40):
        torch.rand(7)
        second.draw(LOGITS_V)
        mixed.append(first.draw(LOGITS_V))
    assert mixed == alone


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63, 2**64 - 1])
def test_every_64_bit_seed_works(seed):
    check(Sampling(seed=seed))
    assert len(draws(5, seed=seed)) == 5


# --- penalties, bias, constraint --------------------------------------------------------------------------------


def test_repetition_penalty_counts_the_prompt_once_and_the_others_only_the_answer():
    logits_V = torch.tensor([4.0, 3.0, -1.0])
    repeated = Sampler(Sampling(repetition_penalty=2.0, logprobs=3), CPU, prompt_ids=[0, 0, 2], vocabulary=3)
    choice = repeated.choose(logits_V)
    expected = torch.tensor([2.0, 3.0, -2.0]).log_softmax(-1)
    assert choice.token_id == 1
    assert dict(choice.top) == pytest.approx(dict(enumerate(expected.tolist())))
    others = Sampler(Sampling(presence_penalty=1.0, frequency_penalty=0.5), CPU, prompt_ids=[0, 0], vocabulary=3)
    # 4 stays ahead of 3 after none, and falls to 2.5 after one; 3 falls to 1.5 then, and so on.
    assert [others.choose(logits_V).token_id for _ in range(4)] == [0, 1, 0, 0]


def test_the_constraint_is_stronger_than_any_bias():
    sampler = Sampler(Sampling(logit_bias=((0, 100.0),), logprobs=5), CPU)
    choice = sampler.choose(LOGITS_V, torch.tensor([False, False, True, True, False, False]))
    assert choice.token_id == 2
    assert [token for token, _ in choice.top] == [2, 3]


def test_a_place_where_nothing_is_allowed_is_refused():
    with pytest.raises(ServingError, match="No next token"):
        Sampler(Sampling(temperature=1.0), CPU).choose(LOGITS_V, torch.zeros(6, dtype=torch.bool))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("fields", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}, {"logprobs": 2}])
def test_broken_logits_are_refused_and_never_drawn_from(broken, fields):
    with pytest.raises(ServingError, match="finite"):
        Sampler(Sampling(**fields), CPU).choose(torch.tensor([0.0, broken, 1.0]))


def test_impossible_tokens_are_never_drawn_nor_reported():
    logits_V = torch.tensor([-math.inf, 0.0, -math.inf, 1.0])
    sampler = Sampler(Sampling(temperature=50.0, logprobs=4), CPU)
    choices = [sampler.choose(logits_V) for _ in range(200)]
    assert {choice.token_id for choice in choices} == {1, 3}
    assert [token for token, _ in choices[0].top] == [3, 1]


@pytest.mark.parametrize(
    ("fields", "greedy"),
    [
        ({}, True),
        ({"seed": 4, "stop": ("x",), "top_p": 0.5}, True),
        ({"temperature": 0.7}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": 0.1}, False),
        ({"logit_bias": ((1, 1.0),)}, False),
        ({"logprobs": 0}, False),
        ({"constraint": Constraint(kind="json-object")}, False),
    ],
)
def test_which_rows_take_part_in_a_batched_argmax(fields, greedy):
    assert Sampler(Sampling(**fields), CPU).greedy_only is greedy


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"max_new_tokens": 0},
        *({"temperature": value} for value in (-0.1, math.nan, math.inf)),
        *({"top_p": value} for value in (0.0, -1.0, 1.1, math.nan)),
        {"top_k": -1},
        *({"min_p": value} for value in (-0.1, 1.1, math.nan)),
        *({"repetition_penalty": value} for value in (0.0, -1.0, math.nan, math.inf)),
        *({"presence_penalty": value} for value in (-2.1, 2.1, math.nan)),
        *({"frequency_penalty": value} for value in (-2.1, 2.1, math.inf)),
        *({"logprobs": value} for value in (-1, 21)),
        *({"logit_bias": ((1, value),)} for value in (-100.5, 101.0, math.nan)),
        {"logit_bias": ((-1, 1.0),)},
        {"logit_bias": ((10, 1.0),)},
        {"logit_bias": ((1, 1.0), (1, 2.0))},
        {"seed": 2**64},
        {"stop": ("END", "")},
        {"stop": tuple("abcdefghijklmnopq")},
        {"stop": ("x" * 1025,)},
    ],
    ids=str,
)
def test_a_setting_from_which_nothing_can_be_drawn_is_named(fields):
    with pytest.raises(ConfigError, match=f"Sampling: {next(iter(fields))} must") as caught:
        check(Sampling(**fields), vocabulary=10)
    assert str(caught.value).endswith(".")


def test_the_bounds_themselves_are_accepted():
    check(Sampling())
    check(
        Sampling(
            max_new_tokens=1,
            temperature=100.0,
            top_p=1e-9,
            top_k=10**6,
            min_p=1.0,
            repetition_penalty=0.01,
            presence_penalty=-2.0,
            frequency_penalty=2.0,
            logit_bias=((0, -100.0), (9, 100.0)),
            logprobs=20,
            stop=("x" * 1024, *"abcdefghijklmno"),
        ),
        vocabulary=10,
    )
    check(Sampling(logit_bias=((10**6, 1.0),)))

"""Rows one after the other, and attention over them as a tree, against plain attention on each path alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.engine import Row
from foreword.engines import _flat
from foreword.engines._flat import TreeAttention, flatten, share_out
from foreword.errors import PrefixError

CPU = torch.device("cpu")
TREE = Row(prompt=(10, 11, 12), targets=((20, 21, 22), (30,), (40, 41)))
CHAIN = Row(prompt=(1, 2), targets=((3, 4, 5),))
BARE = Row(prompt=(7,), targets=((8,), (9,)))

rows = st.lists(
    st.builds(
        lambda prompt, targets: Row(prompt=(1,) * prompt, targets=tuple((2,) * target for target in targets)),
        st.integers(1, 9),
        st.lists(st.integers(0, 6), max_size=4),
    ),
    min_size=1,
    max_size=6,
)


def test_layout_of_a_tree_and_a_chain():
    flat = flatten([TREE, CHAIN], prefix_positions=5, device=CPU)
    assert flat.token_ids_M.tolist() == [10, 11, 12, 20, 21, 40, 1, 2, 3, 4]
    assert flat.position_M.tolist() == [5, 6, 7, 8, 9, 8, 5, 6, 7, 8]
    assert flat.source.tolist() == [2, 3, 4, 2, 2, 5, 7, 8, 9]
    assert flat.target.tolist() == [20, 21, 22, 30, 40, 41, 3, 4, 5]
    assert flat.stem_BP.tolist() == [[0, 1, 2, 10], [6, 7, 8, 9]]
    assert flat.branch_BKU is not None
    assert flat.branch_BKU.tolist() == [[[3, 4], [5, 10]], [[10, 10], [10, 10]]]


def test_targets_of_one_token_need_no_branch():
    flat = flatten([BARE, CHAIN], prefix_positions=0, device=CPU)
    assert flat.branch_BKU is None
    assert flat.source.tolist() == [0, 0, 2, 3, 4]


@given(rows)
def test_every_token_has_one_slot(some):
    flat = flatten(some, prefix_positions=3, device=CPU)
    slots = flat.stem_BP.flatten() if flat.branch_BKU is None else torch.cat([flat.stem_BP.flatten(), flat.branch_BKU.flatten()])
    assert slots[flat.place_M].tolist() == list(range(len(flat.token_ids_M)))
    assert sorted(slots[slots < len(flat.token_ids_M)].tolist()) == list(range(len(flat.token_ids_M)))


@given(rows, st.integers(1, 60))
def test_groups_hold_every_row_once_and_keep_to_the_limit(some, most):
    groups = share_out(some, most_tokens=most)
    assert sorted(index for group in groups for index in group) == list(range(len(some)))
    assert all(len(group) == 1 or sum(some[index].fed_tokens for index in group) <= most for group in groups)


def paths(row: Row, start: int) -> list[list[int]]:
    """Flat indices of each way from the prompt to the end of a target, in the order in which `flatten` lays them out."""
    prompt, end, found = list(range(start, start + len(row.prompt))), start + len(row.prompt), []
    for target in row.targets:
        fed = max(len(target) - 1, 0)
        found.append([*prompt, *range(end, end + fed)])
        end += fed
    return found or [prompt]


def plain(query_HMD, key_GMD, value_GMD, prefix_key_GND, prefix_value_GND, some, scale):
    """Causal attention along each path alone: H M D."""
    heads, groups, positions = len(query_HMD), len(key_GMD), prefix_key_GND.shape[1]
    out = torch.zeros_like(query_HMD)
    start = 0
    for row in some:
        for path in paths(row, start):
            key = torch.cat([prefix_key_GND, key_GMD[:, path]], 1).repeat_interleave(heads // groups, 0)
            value = torch.cat([prefix_value_GND, value_GMD[:, path]], 1).repeat_interleave(heads // groups, 0)
            scores = query_HMD[:, path] @ key.transpose(1, 2) * scale
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(positions + 1)
            out = out.index_copy(1, torch.tensor(path), scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value)
        start += row.fed_tokens
    return out


@pytest.mark.parametrize("positions", [0, 1, 5])
@settings(deadline=None, max_examples=25)
@given(some=rows)
def test_values_and_gradients_are_those_of_plain_attention(some, positions):
    flat = flatten(some, prefix_positions=positions, device=CPU)
    count, heads, groups, size = len(flat.token_ids_M), 4, 2, 8
    draw = torch.Generator().manual_seed(count)
    tensors = [
        torch.randn(number, length, size, generator=draw, dtype=torch.float64, requires_grad=True)
        for number, length in ((heads, count), (groups, count), (groups, count), (groups, positions), (groups, positions))
    ]
    query, key, value, prefix_key, prefix_value = tensors
    prefix = (prefix_key[None], prefix_value[None]) if positions else (None, None)
    tree = TreeAttention(flat, *prefix, dtype=torch.float64)
    ours = tree(0, query[None], key[None], value[None], 0.3)[0].transpose(0, 1)
    theirs = plain(query, key, value, prefix_key, prefix_value, some, 0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(ours.shape, generator=draw, dtype=torch.float64)
    wanted = tensors if positions else tensors[:3]
    for got, expected in zip(
        torch.autograd.grad((ours * weights).sum(), wanted), torch.autograd.grad((theirs * weights).sum(), wanted), strict=True
    ):
        # A prefix's gradient is summed in float32, the precision it is trained in.
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_long_stems_without_gradients_take_the_fused_kernel(monkeypatch):
    some = [TREE, Row(prompt=(1,) * 40, targets=((2,) * 9,))]
    flat = flatten(some, prefix_positions=3, device=CPU)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, len(flat.token_ids_M), 8, generator=draw) for heads in (4, 2, 2))
    prefix = torch.randn(2, 1, 2, 3, 8, generator=draw)
    tree = TreeAttention(flat, prefix[0], prefix[1], dtype=torch.float32)
    with torch.inference_mode():
        small = tree(0, query, key, value, 0.3)
        monkeypatch.setattr(_flat, "LARGEST_SCORES", 1)
        torch.testing.assert_close(tree(0, query, key, value, 0.3), small, rtol=1e-5, atol=1e-5)


# --- each row behind a prefix of its own ---------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [1, 4])
@settings(deadline=None, max_examples=15)
@given(some=rows, choice=st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_a_row_attends_to_its_own_prefix_alone(some, choice, positions):
    prefix_of_row = choice[: len(some)]
    flat = flatten(some, prefix_positions=positions, device=CPU)
    count, heads, groups, size, prefixes = len(flat.token_ids_M), 4, 2, 8, 3
    draw = torch.Generator().manual_seed(count)
    query, key, value = (
        torch.randn(number, count, size, generator=draw, dtype=torch.float64, requires_grad=True) for number in (heads, groups, groups)
    )
    # Two layers, of which the second one attends.
    prefix_key, prefix_value = (
        torch.randn(prefixes, 2, groups, positions, size, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    tree = TreeAttention(flat, prefix_key, prefix_value, dtype=torch.float64, prefix_of_row=prefix_of_row)
    ours = tree(1, query[None], key[None], value[None], 0.3)[0].transpose(0, 1)
    parts, start = [], 0
    for row, own in zip(some, prefix_of_row, strict=True):
        part = slice(start, start + row.fed_tokens)
        parts.append(plain(query[:, part], key[:, part], value[:, part], prefix_key[own, 1], prefix_value[own, 1], [row], 0.3))
        start += row.fed_tokens
    theirs = torch.cat(parts, dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(ours.shape, generator=draw, dtype=torch.float64)
    wanted = [query, key, value, prefix_key, prefix_value]
    for got, expected in zip(
        torch.autograd.grad((ours * weights).sum(), wanted), torch.autograd.grad((theirs * weights).sum(), wanted), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for unused in set(range(prefixes)) - set(prefix_of_row):
        gradient = torch.autograd.grad((tree(1, query[None], key[None], value[None], 0.3)).sum(), [prefix_key])[0]
        assert not gradient[unused].any()


@pytest.fixture
def several(engine_of):
    """`several(family)`: an engine, three stacked prefixes of five positions that want gradients, and rows of both kinds."""

    def make(family):
        engine = engine_of(family)
        read = [
            engine.read(engine.encode(text)[:5]) for text in ("The Eagle is a cheap pub.", "My order 4711 came.", "Thank you for this.")
        ]
        stacked = [torch.stack(tensors).clone().requires_grad_() for tensors in zip(*read, strict=True)]
        return engine, stacked, [TREE, CHAIN, BARE, CHAIN, TREE]

    return make


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_log_probs_behind_several_prefixes_are_those_behind_each(several, family):
    engine, stacked, some = several(family)
    prefix_of_row = [2, 0, 1, 2, 0]
    together = engine.target_log_probs(some, *stacked, prefix_of_row=prefix_of_row)
    alone = torch.cat(
        [engine.target_log_probs([row], *(tensor[own] for tensor in stacked)) for row, own in zip(some, prefix_of_row, strict=True)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    weights = torch.linspace(-1, 1, len(together))
    for got, expected in zip(
        torch.autograd.grad((together * weights).sum(), stacked), torch.autograd.grad((alone * weights).sum(), stacked), strict=True
    ):
        assert expected.abs().amax(dim=(1, 2, 3, 4)).min() > 1e-3
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("prefix_of_row", [[0, 1], [0, 1, 3, 0, 0], [0, 1, -1, 0, 0]])
def test_a_choice_that_fits_no_prefix_is_refused(several, family, prefix_of_row):
    engine, stacked, some = several(family)
    with pytest.raises(PrefixError, match=r"0\.\.2 for each of 5 rows"):
        engine.target_log_probs(some, *stacked, prefix_of_row=prefix_of_row)


def test_a_choice_among_nothing_is_refused(several):
    engine, stacked, some = several("llama")
    with pytest.raises(PrefixError, match="stacked along a first axis"):
        engine.target_log_probs(some, *(tensor[0] for tensor in stacked), prefix_of_row=[0] * 5)
    with pytest.raises(PrefixError, match="stacked along a first axis"):
        engine.target_log_probs(some, prefix_of_row=[0] * 5)

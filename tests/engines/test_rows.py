"""Laying rows out as tensors."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from foreword.engine import Row
from foreword.engines._rows import additive, bucket, pack

ROW = Row(prompt=(10, 11, 12), targets=((20, 21, 22), (30,), (40, 41)))
CPU = torch.device("cpu")


def test_layout_of_a_tree():
    packed = pack([ROW, Row(prompt=(1,), targets=((2,),))], prefix_positions=5, padding_id=0, device=CPU)
    assert packed.token_ids_BT.tolist() == [[10, 11, 12, 20, 21, 40], [1, 0, 0, 0, 0, 0]]
    assert packed.position_BT[0].tolist() == [5, 6, 7, 8, 9, 8]
    assert packed.position_BT[1, 0] == 5
    assert packed.segment_BT.tolist() == [[0, 0, 0, 1, 1, 3], [0, -1, -1, -1, -1, -1]]
    assert packed.source.tolist() == [2, 3, 4, 2, 2, 5, 6]
    assert packed.target.tolist() == [20, 21, 22, 30, 40, 41, 2]


def test_a_target_sees_prefix_prompt_and_itself():
    seen = pack([ROW, Row(prompt=(1,), targets=((2,),))], prefix_positions=2, padding_id=0, device=CPU).visible_BTS(2)
    tree = [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 0, 1],
    ]
    assert seen[0].int().tolist() == tree
    # Nobody looks at padding but padding, and that has something to look at, or its softmax would be NaN.
    assert not seen[1, :1, 3:].any() and seen[1].any(-1).all()


def test_additive_hides():
    mask = additive(torch.tensor([True, False]), torch.bfloat16)
    assert mask.dtype == torch.bfloat16 and mask[0] == 0 and mask[1] == torch.finfo(torch.bfloat16).min


rows = st.lists(
    st.builds(
        lambda prompt, targets: Row(prompt=(1,) * prompt, targets=tuple((2,) * target for target in targets)),
        st.integers(1, 60),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    max_size=40,
)


@given(rows, st.integers(1, 300))
def test_buckets_hold_every_row_once_and_keep_to_the_limit(rows, most):
    groups = bucket(rows, most_tokens=most, group_overhead=8)
    assert sorted(index for group in groups for index in group) == list(range(len(rows)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(rows[index].fed_tokens for index in group) <= most
    longest = [max(rows[index].fed_tokens for index in group) for group in groups]
    assert longest == sorted(longest, reverse=True)

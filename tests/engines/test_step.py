"""One layer of one scheduler step against plain attention for each request alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.engines._resident import PrefixTensors
from foreword.engines._slots import SlotPool
from foreword.engines._step import Chunk, StepAttention

GROUPS, SHARE, SIZE = 2, 3, 8
CPU = torch.device("cpu")


@dataclass
class Sitting:
    row: int
    filled: int
    shared: PrefixTensors | None


def plain(query_THD, key_GSD, value_GSD, scale, window, softcap):
    """Causal attention of the last T of S positions, in float64."""
    tokens, positions = len(query_THD), key_GSD.shape[1]
    key, value = (x.double().repeat_interleave(SHARE, 0) for x in (key_GSD, value_GSD))
    scores = query_THD.double().transpose(0, 1) @ key.transpose(1, 2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    back = torch.arange(positions - tokens, positions)[:, None] - torch.arange(positions)
    hidden = (back < 0) | (back >= (window or positions + 1))
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value).transpose(0, 1).float()


seats = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 6), st.sampled_from([None, 0, 1])),  # filled, new tokens, which shared prefix
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, None), (None, 3.0), (4, 2.0)])
@settings(deadline=None, max_examples=20)
@given(wanted=seats, seed=st.integers(0, 99), single=st.booleans())
def test_every_request_gets_what_it_would_alone(window, softcap, wanted, seed, single):
    draw = torch.Generator().manual_seed(seed)
    pool = SlotPool(layers=1, heads=GROUPS, head_dim=SIZE, most_rows=6, most_slots=64, dtype=torch.float32, device=CPU)
    pool.ensure(6, 40)
    for tensor in (pool.key_RGSD[0], pool.value_RGSD[0]):
        tensor.copy_(torch.randn(tensor.shape, generator=draw))
    prefixes = []
    for positions in (3, 11):
        key_LGND, value_LGND = torch.randn(2, 1, GROUPS, positions, SIZE, generator=draw).unbind()
        prefixes.append(PrefixTensors(key_LGND=key_LGND, value_LGND=value_LGND, positions=positions, prompt_format="full"))
    chunks = [
        Chunk(seat=Sitting(row, filled, None if which is None else prefixes[which]), tokens=(1,) * (1 if single else count))
        for row, (filled, count, which) in enumerate(wanted)
    ]
    step = StepAttention(pool, chunks, device=CPU)
    count = len(step.token_ids_M)
    query, key, value = (torch.randn(1, heads, count, SIZE, generator=draw) for heads in (GROUPS * SHARE, GROUPS, GROUPS))
    out = step(0, query, key, value, 0.3, window=window, softcap=softcap)[0]
    first = 0
    for place, chunk in enumerate(step.chunks):
        end = first + len(chunk.tokens)
        row, filled, ahead = chunk.seat.row, chunk.seat.filled, chunk.ahead
        assert step.position_M[first:end].tolist() == list(range(ahead + filled, ahead + filled + len(chunk.tokens)))
        assert int(step.last_R[place]) == end - 1
        parts = [pool.key_RGSD[0][row, :, :filled], key[0, :, first:end]], [pool.value_RGSD[0][row, :, :filled], value[0, :, first:end]]
        if chunk.seat.shared is not None:
            parts[0].insert(0, chunk.seat.shared.key_LGND[0])
            parts[1].insert(0, chunk.seat.shared.value_LGND[0])
        expected = plain(query[0, :, first:end].transpose(0, 1), torch.cat(parts[0], 1), torch.cat(parts[1], 1), 0.3, window, softcap)
        torch.testing.assert_close(out[first:end], expected, atol=2e-5, rtol=1e-4)
        first = end

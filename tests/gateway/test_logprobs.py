"""Log-probabilities in both shapes."""

from __future__ import annotations

from foreword.gateway.logprobs import chat_logprobs, text_logprobs
from foreword.types import TokenLogprob

HALF = TokenLogprob(token_id=1, text="\ufffd", logprob=-1.0, top=(TokenLogprob(token_id=2, text="é", logprob=-0.5),))
WHOLE = TokenLogprob(token_id=3, text=" ab", logprob=-2.0)


def test_bytes_of_half_a_character_are_not_known():
    half, whole = chat_logprobs([HALF, WHOLE]).content
    assert half.bytes is None and whole.bytes == [32, 97, 98]
    assert half.top_logprobs[0].bytes == [0xC3, 0xA9] and whole.top_logprobs == []


def test_lists_run_parallel():
    lists = text_logprobs([HALF, WHOLE], start=10)
    assert (lists.tokens, lists.token_logprobs, lists.text_offset) == (["\ufffd", " ab"], [-1.0, -2.0], [10, 11])
    assert lists.top_logprobs == [{"é": -0.5}, {}]

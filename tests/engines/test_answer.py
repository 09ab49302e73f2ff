"""Text that grows token by token reads as if all tokens had been decoded at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from foreword.engines._answer import LONGEST_WINDOW, Answer

Decode = Callable[[Sequence[int]], str]

TEXTS = st.lists(
    st.sampled_from(
        [
            "The Eagle",
            " pub",
            "Wörter",
            " naïve",
            "漢字",
            "かな",
            "🙂",
            "👩‍👩‍👧",
            "🇫🇷",
            "é",
            "e\u0301",
            "عربي",
            "\n\n",
            "  ",
            "<|im_end|>",
            "=" * 9,
            "4711",
            "aa",
            "ab",
        ]
    )
    | st.text(max_size=6),
    max_size=12,
).map("".join)


def decoder(tokenizer: Any) -> Decode:
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def sentencepiece_like() -> Any:
    """Words with a marked blank in front, single bytes for the rest, the first blank taken off when decoding: as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzTEäö"]
    merges = [("▁", "p"), ("▁p", "u"), ("▁pu", "b"), ("▁", "T"), ("▁T", "h"), ("▁Th", "e"), ("a", "g"), ("ag", "l"), ("agl", "e")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *letters, *("".join(merge) for merge in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


BYTE_LEVEL = ["llama", "gpt2"]


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def tokenizer(name: str) -> Any:
        if name not in made:
            made[name] = sentencepiece_like() if name == "sentencepiece" else tiny_models.build_tokenizer(name)  # type: ignore[arg-type]
        return made[name]

    return tokenizer


def grown(decode: Decode, ids: Sequence[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    answer = Answer(decode, stop)
    pieces = [answer.add(token) for token in ids]
    pieces.append(answer.finish())
    return pieces, answer.ended


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first; the longest of several that end there."""
    for end in range(1, len(text) + 1):
        lengths = [len(ending) for ending in stop if text.endswith(ending, 0, end)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


def check_any_tokens(tokenizer: Any) -> None:
    """Tokens of broken characters, special ones and ids that no token has included."""
    decode = decoder(tokenizer)
    # The broken ones are few in a large vocabulary, so they get a share of their own.
    broken = [token for token in range(len(tokenizer)) if "\ufffd" in decode([token])]
    tokens = st.integers(0, len(tokenizer) + 3) | st.sampled_from(broken) | st.sampled_from(list(tokenizer.all_special_ids))

    @settings(max_examples=150, deadline=None)
    @given(ids=st.lists(tokens, max_size=60))
    def holds(ids: list[int]) -> None:
        pieces, _ = grown(decode, ids)
        assert "".join(pieces) == decode(ids)

    holds()


def check_any_text(tokenizer: Any) -> None:
    """With stop strings that appear in the text, or nearly."""
    decode = decoder(tokenizer)

    @settings(max_examples=150, deadline=None)
    @given(text=TEXTS, data=st.data())
    def holds(text: str, data: st.DataObject) -> None:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = decode(ids)
        places = st.tuples(st.integers(0, max(len(whole) - 1, 0)), st.integers(1, 6))
        parts = places.map(lambda found: whole[found[0] : found[0] + found[1]] or "x")
        stop = tuple(data.draw(st.lists(parts | st.sampled_from(["a", "aab", "ab", "\n\n", "🙂"]), max_size=3)))
        pieces, ended = grown(decode, ids, stop)
        assert ("".join(pieces), ended) == cut(whole, stop)

    holds()


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_any_tokens_read_as_decoded_at_once(tokenizer_of, name):
    check_any_tokens(tokenizer_of(name))


@pytest.mark.parametrize("name", [*BYTE_LEVEL, "sentencepiece"])
def test_any_text_reads_as_decoded_at_once(tokenizer_of, name):
    check_any_text(tokenizer_of(name))


def test_the_default_model(smollm2):
    check_any_tokens(smollm2.engine.tokenizer)
    check_any_text(smollm2.engine.tokenizer)


@pytest.mark.parametrize("name", [*BYTE_LEVEL, "sentencepiece"])
def test_stop_strings_in_random_tokens(tokenizer_of, name):
    tokenizer = tokenizer_of(name)
    decode = decoder(tokenizer)
    plain = [token for token in range(len(tokenizer)) if (text := decode([token])) and "\ufffd" not in text]
    chosen = random.Random(4)
    for _ in range(150):
        ids = chosen.choices(plain, k=40)
        whole = decode(ids)
        begin = chosen.randrange(len(whole) - 5)
        stop = (whole[begin : begin + chosen.randint(1, 5)], "\0\0")
        pieces, ended = grown(decode, ids, stop)
        assert ended and ("".join(pieces), ended) == cut(whole, stop)
        assert "".join(pieces) == whole.partition(stop[0])[0]


def test_plain_text_is_given_out_at_once(tokenizer_of):
    tokenizer = tokenizer_of("llama")
    decode = decoder(tokenizer)
    ids = tokenizer("Aromi serves Chinese food in the city centre." * 5, add_special_tokens=False)["input_ids"]
    pieces, _ = grown(decode, ids)
    assert pieces == [*(decode([token]) for token in ids), ""]


def test_half_a_character_waits_for_its_rest(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    decode = decoder(tokenizer)
    ids = tokenizer("a🤖b", add_special_tokens=False)["input_ids"]
    assert len(ids) == 6
    assert grown(decode, ids)[0] == ["a", "", "", "", "🤖", "b", ""]
    assert grown(decode, ids[:3])[0] == ["a", "", "", "\ufffd"]


def test_the_beginning_of_a_stop_string_waits():
    decode = "".join
    assert grown(decode, list("ab=#c"), ("=#=",)) == (["a", "b", "", "", "=#c", ""], False)  # type: ignore[arg-type]
    assert grown(decode, list("ab=#=c"), ("=#=",)) == (["a", "b", "", "", "", "", ""], True)  # type: ignore[arg-type]
    assert grown(decode, list("ab=#"), ("=#=",)) == (["a", "b", "", "", "=#"], False)  # type: ignore[arg-type]
    # A beginning inside a beginning: after `aab` fails at the third `a`, two of them still count.
    assert grown(decode, list("aaabx"), ("aab",)) == (["", "", "a", "", "", ""], True)  # type: ignore[arg-type]


def test_nothing_comes_after_a_stop_string():
    answer = Answer("".join, ("end",))  # type: ignore[arg-type]
    assert answer.add("the end of it") == "the "  # type: ignore[arg-type]
    assert answer.ended
    assert (answer.add("x"), answer.finish()) == ("", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stop", "text"), [(("late", "arl"), "e"), (("arl", "early"), "e"), (("early late", "y l"), "earl"), (("y", "ly"), "ear")]
)
def test_the_stop_string_that_is_complete_first_counts(stop, text):
    """However the text is cut into tokens."""
    for size in (1, 2, 3, 99):
        whole = "early late"
        pieces, ended = grown("".join, [whole[at : at + size] for at in range(0, len(whole), size)], stop)  # type: ignore[arg-type]
        assert ended and "".join(pieces) == text


def test_a_blank_that_the_decoder_hides_stays_hidden_once(tokenizer_of):
    tokenizer = tokenizer_of("sentencepiece")
    decode = decoder(tokenizer)
    blank = tokenizer.convert_tokens_to_ids("▁")
    pub = tokenizer.convert_tokens_to_ids("▁pub")
    ids = [2, blank, 2, pub, *[pub, 2, 2, blank] * 10]
    pieces, _ = grown(decode, ids)
    assert "".join(pieces) == decode(ids)
    assert decode(ids).startswith(" pub pub")


@pytest.mark.parametrize("kind", ["text", "broken", "special", "half a character, then special", "any"])
def test_the_work_grows_linearly(tokenizer_of, kind):
    """Counted in tokens decoded, which no machine changes."""
    tokenizer = tokenizer_of("llama")
    decode = decoder(tokenizer)
    decoded = 0

    def counting(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return decode(ids)

    lead, continuation = (tokenizer.convert_tokens_to_ids(character) for character in "ðł")
    assert decode([lead]) == decode([continuation]) == "\ufffd"
    special = tokenizer.eos_token_id
    count = 3000
    ids = {
        "text": (tokenizer("The Eagle is a cheap coffee shop 🙂 near the river.", add_special_tokens=False)["input_ids"] * count)[:count],
        "broken": [continuation] * count,
        "special": [special] * count,
        "half a character, then special": [lead] + [special] * count,
        "any": random.Random(0).choices(range(len(tokenizer)), k=count),
    }[kind]
    pieces, _ = grown(counting, ids, ("never written",))
    assert "".join(pieces) == decode(ids)
    assert decoded < 3 * LONGEST_WINDOW * count

"""Words that a model could have guessed go; variables, numbers, names and negations stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting_engine import CountingEngine
from foreword.errors import ConfigError
from foreword.prompting.template import build
from foreword.prompting.word_dropping import compress, drop_words

COMMON = "please answer the question as well as you can " * 30


def test_the_expected_words_go_first():
    text = "please answer the question with zeal as well as you can"
    short = drop_words(CountingEngine(COMMON), text, rate=0.4)
    assert "zeal" in short and len(short.split()) in (4, 5)
    left = iter(text.split())
    assert all(word in left for word in short.split()), "the words that stay keep their order"


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8, 1.0])
def test_the_rate_is_met_about(rate: float):
    text = " ".join(f"word{'abcdefghij'[number % 10]} thing" for number in range(150))
    short = drop_words(CountingEngine(COMMON), text, rate=rate)
    assert len(short.split()) == pytest.approx(300 * rate, abs=6)
    assert rate < 1 or short == text


def test_what_always_stays():
    text = "please do not pay 500 pounds to Larkspur or NASA {{ name }} as well as you can unless asked"
    short = drop_words(CountingEngine(COMMON), text, rate=0.01)
    assert short.split() == ["not", "500", "Larkspur", "or", "NASA", "{{", "name", "}}", "unless"]
    assert "pounds" in drop_words(CountingEngine(COMMON), text, rate=0.01, keep=["POUNDS"])


def test_a_capital_that_begins_a_sentence_is_no_name():
    assert drop_words(CountingEngine(COMMON), "Please answer. Please ask Bell.", rate=0.01) == "Bell."


def test_lines_that_ended_still_end():
    short = drop_words(CountingEngine(COMMON), "rules:\n- please answer 1\n- please answer 2\n\nend 3\n", rate=0.01)
    assert short == "1\n2\n\n3\n"


@given(st.text(alphabet="ab N1.\n{}%", max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_text_survives(text: str):
    assert drop_words(CountingEngine(COMMON), text, rate=1.0, jinja=False) == text or not text.strip()
    drop_words(CountingEngine(COMMON), text, rate=0.5)


def test_a_whole_prompt(tiny_model_folder: Any):
    from foreword.engines.transformers import load

    engine = load(str(tiny_model_folder("llama")), dtype="float32")
    hand = build(
        {
            "name": "p",
            "messages": [
                {"role": "system", "content": "You are the assistant of a shop and you answer the questions of all its customers kindly."},
                {"role": "user", "content": "The customer {{ name }} would like to ask you the following question: {{ text }}"},
            ],
            "examples": [{"user": "where is the parcel that I have ordered", "assistant": "it is on its way to you"}],
            "evidence": {"made_by": "me"},
        },
        source="test",
    )
    found = compress(engine, hand, rate=0.5)
    assert found.template.used == hand.used and found.template.evidence is None and found.template.examples == hand.examples
    assert found.tokens[1] < found.tokens[0]
    shorter = compress(engine, hand, rate=0.5, examples=True)
    assert shorter.template.examples[0].assistant == "it is on its way to you" and shorter.tokens[1] < found.tokens[1]


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5])
def test_a_rate_out_of_range(rate: float):
    with pytest.raises(ConfigError, match="share of tokens to keep"):
        compress(CountingEngine(COMMON), build({"name": "p", "messages": [{"role": "user", "content": "x"}]}, source="t"), rate=rate)

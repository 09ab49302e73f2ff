"""Tiny random checkpoints of the families that Foreword proves itself on.

A checkpoint has two layers, a byte-level BPE tokenizer trained here on a few sentences, the special tokens and the shape of
chat template that its family uses. Weights are drawn wide (not at the usual 0.02), so that a wrong position, mask or head
moves the logits by far more than rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

Family = Literal["llama", "qwen3", "gemma3_text", "gpt2", "gpt_neox"]
FAMILIES: tuple[Family, ...] = get_args(Family)

VOCABULARY = 384
WINDOW = 512
SEED = 20

_SENTENCES = (
    "The Eagle is a cheap coffee shop near the river.",
    "Aromi serves Chinese food in the city centre, and families are welcome.",
    "name[Aromi], eatType[pub], food[Chinese], area[city centre], familyFriendly[yes]",
    "My order 4711 has not arrived; please tell me where it is.",
    "Queue: billing. Thank you for writing to us, we will send the invoice again today.",
    "You are a helpful assistant. Answer in one short sentence.",
    "Wörter mit Umlauten, 漢字 and emoji 🙂 are bytes too.",
)

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] + '\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n'"
    " + (lead if loop.first else '') + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How a family marks its text: special tokens, template, and whether encoding adds BOS by itself."""

    bos: str | None
    eos: str
    pad: str
    template: str
    turn_tokens: tuple[str, ...]
    adds_bos: bool = False

    @property
    def specials(self) -> list[str]:
        ordered = [self.pad, self.eos, *([self.bos] if self.bos else []), *self.turn_tokens]
        return list(dict.fromkeys(ordered))


_CHATML_TURNS = ("<|im_start|>", "<|im_end|>")
_DIALECTS: Mapping[Family, _Dialect] = {
    "llama": _Dialect(
        bos="<s>", eos="<|im_end|>", pad="<pad>", template="{{ bos_token }}" + _CHATML, turn_tokens=_CHATML_TURNS, adds_bos=True
    ),
    "qwen3": _Dialect(bos=None, eos="<|im_end|>", pad="<|endoftext|>", template=_CHATML, turn_tokens=_CHATML_TURNS),
    "gemma3_text": _Dialect(
        bos="<bos>", eos="<eos>", pad="<pad>", template=_TURNS, turn_tokens=("<start_of_turn>", "<end_of_turn>"), adds_bos=True
    ),
    "gpt2": _Dialect(bos="<|endoftext|>", eos="<|endoftext|>", pad="<|endoftext|>", template=_CHATML, turn_tokens=_CHATML_TURNS),
    "gpt_neox": _Dialect(bos="<|endoftext|>", eos="<|endoftext|>", pad="<|padding|>", template=_CHATML, turn_tokens=_CHATML_TURNS),
}


def build(family: Family, folder: Path, *, seed: int = SEED, chat_template: bool = True, **config: Any) -> Path:
    """Writes a tiny checkpoint of `family` to `folder` as safetensors and returns the folder.

    Args:
        seed: draws the weights; the same seed gives the same file.
        chat_template: whether the tokenizer carries its family's chat template.
        config: fields of the transformers configuration to override, e.g. `sliding_window=8`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer(family, chat_template=chat_template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_CONFIGS[family](tokenizer, config), dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() < 2:  # biases and norms start at 0 or 1, where a forgotten one would not show
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer(family: Family, *, chat_template: bool = True) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer of a tiny checkpoint; every byte is in its vocabulary, so every text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    dialect = _DIALECTS[family]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _SENTENCES,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=dialect.specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if dialect.adds_bos and dialect.bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{dialect.bos} $A",
            pair=f"{dialect.bos} $A {dialect.bos} $B",
            special_tokens=[(dialect.bos, bpe.token_to_id(dialect.bos))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=dialect.bos,
        eos_token=dialect.eos,
        pad_token=dialect.pad,
        additional_special_tokens=list(dialect.turn_tokens),
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
        chat_template=dialect.template if chat_template else None,
    )


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def _llama(tokenizer: PreTrainedTokenizerFast, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(**{**_decoder(tokenizer), "num_key_value_heads": 2, "tie_word_embeddings": False, **overrides})


def _qwen3(tokenizer: PreTrainedTokenizerFast, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(**{**_decoder(tokenizer), "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True, **overrides})


def _gemma3_text(tokenizer: PreTrainedTokenizerFast, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    from transformers import Gemma3TextConfig

    fields = {
        **_decoder(tokenizer),
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    }
    return Gemma3TextConfig(**{**fields, **overrides})


def _gpt2(tokenizer: PreTrainedTokenizerFast, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    from transformers import GPT2Config

    fields = {"vocab_size": VOCABULARY, "n_positions": WINDOW, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(**{**fields, **dropout, **_ids(tokenizer), **overrides})


def _gpt_neox(tokenizer: PreTrainedTokenizerFast, overrides: Mapping[str, Any]) -> PreTrainedConfig:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(**{**_decoder(tokenizer), "tie_word_embeddings": False, **overrides})


def _decoder(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.2,
        **_ids(tokenizer),
    }


_CONFIGS: Mapping[Family, Callable[[PreTrainedTokenizerFast, Mapping[str, Any]], PreTrainedConfig]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3_text,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}

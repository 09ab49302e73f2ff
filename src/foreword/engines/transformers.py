"""The `transformers` engine: any Hugging Face causal language model, in this process, frozen, with prefixes.

Axes: L layer, B row, H KV head, N virtual position, T token, S slot, D head or hidden dimension, V vocabulary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.engine import Conversation, Progress, Row
from foreword.engines import _attention
from foreword.engines._cache import PrefixView
from foreword.engines._checkpoint import fingerprint as checkpoint_fingerprint
from foreword.engines._checkpoint import resolve
from foreword.engines._conversation import ConversationEncoder
from foreword.engines._decoding import decode
from foreword.engines._geometry import geometry_of, sliding_window_of, window_of
from foreword.engines._rows import additive, bucket, pack
from foreword.engines._token_loss import target_log_probs
from foreword.errors import ModelError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry, PromptFormat
from foreword.types import Completion, Message, Sampling, Usage

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GENERATION_ROWS = 32
SCORING_TOKENS = 4096
SELF_CHECK_TOLERANCE = 0.25
"""Largest log-probability difference (nats) accepted between our path and the module's own at load; bf16 noise is below .1."""


def load(
    name: str = "smollm2",
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> TransformersEngine:
    """Loads and freezes a model.

    Args:
        name: `smollm2`, a local folder, or a Hugging Face id.
        revision: commit, tag or branch of a Hugging Face id.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware multiplies it, else float32.
        device: a torch device, or `auto`: CUDA where there is one.
        trust_remote_code: runs code that comes with the model. Leave it off for models that you have not read.
        progress: told (what is being done, steps done, steps in all) while a model is converted.

    Raises:
        ModelError: there is no such model, it has no safetensors, or its architecture cannot take a prefix.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    folder = resolve(name, revision=revision, progress=progress)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    chosen = _dtype(dtype, place)
    _attention.register()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=chosen, trust_remote_code=trust_remote_code, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"`{name}` could not be loaded from {folder}: {error}") from error
    return TransformersEngine(name=name, folder=folder, module=module.to(place), tokenizer=tokenizer)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        fast_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast_bf16 else torch.float32
    if name not in DTYPES:
        raise ModelError(f"dtype must be `auto` or one of {', '.join(DTYPES)}; got {name!r}")
    return DTYPES[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrefixTensors:
    """A prefix in the engine's dtype and on its device."""

    key_LHND: Tensor | None
    value_LHND: Tensor | None
    positions: int
    prompt_format: PromptFormat


NO_PREFIX = _PrefixTensors(key_LHND=None, value_LHND=None, positions=0, prompt_format="full")


class TransformersEngine:
    """A frozen transformers model that takes prefixes. Meets `Generates`, `TakesPrefix` and `Differentiable`."""

    def __init__(self, *, name: str, folder: Path, module: Any, tokenizer: Any) -> None:
        self._name = name
        self._module = module.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._conversations = ConversationEncoder(tokenizer)
        self._geometry = geometry_of(module)
        self._sliding_window = sliding_window_of(module.config)
        self._fingerprint = checkpoint_fingerprint(folder, module.config, tokenizer)
        self._body = getattr(module, module.base_model_prefix)
        self._head = module.get_output_embeddings()
        self._softcap: float | None = getattr(module.config.get_text_config(), "final_logit_softcapping", None)
        if not getattr(module.config.get_text_config(), "attn_logit_softcapping", None):
            module.set_attn_implementation(_attention.NAME)
        self._check_own_path()

    @property
    def name(self) -> str:
        return self._name

    @property
    def module(self) -> Any:
        return self._module

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def window(self) -> int:
        return window_of(self._module.config)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the computation."""
        return self._module.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._module.device

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        configured = getattr(self._module.generation_config, "eos_token_id", None)
        several = configured if isinstance(configured, list) else [configured]
        return frozenset(token for token in (self._conversations.end_of_answer, *several) if token is not None)

    @property
    def parameters(self) -> int:
        """How many weights the model has; tied ones count once."""
        return sum(weight.numel() for weight in self._module.parameters())

    def check(self, prefix: Prefix) -> None:
        prefix.check(self._fingerprint)
        if prefix.positions >= self.window:
            raise WindowError(f"Prefix `{prefix.name}` has {prefix.positions} positions; the window of `{self.name}` is {self.window}.")

    # --- text and tokens ---------------------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[int, ...]:
        return self._conversations.encode(text)

    def decode_text(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens, special ones left out."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def render(self, conversation: Conversation, *, prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        return self._conversations.prompt(conversation, prompt_format)

    def render_context(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the start of a conversation, to stand in a prefix of format `continuation`."""
        return self._conversations.context(messages)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer with its end, as the model would write it."""
        return self._conversations.answer(text)

    # --- computing ---------------------------------------------------------------------------------------------

    def hidden(self, tokens_BT: Tensor, position_BT: Tensor, visible_BTS: Tensor, position_BS: Tensor, cache: Any) -> Tensor:
        """Last hidden states, B T D.

        Args:
            position_BT: positions of the tokens, the prefix counted.
            visible_BTS: which slots (the cache's and the tokens' own) each token may attend to.
            position_BS: positions of the slots, for sliding windows.
        """
        mask: Any = additive(visible_BTS, self.dtype)[:, None]
        if self._sliding_window is not None:
            near = position_BT[:, :, None] - position_BS[:, None, :] < self._sliding_window.size
            mask = self._sliding_window.masks(mask, additive(visible_BTS & near, self.dtype)[:, None])
        return self._body(
            input_ids=tokens_BT, position_ids=position_BT, attention_mask=mask, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """Next-token logits, fp32, B V."""
        logits_BV = self._head(hidden_BD).float()
        return logits_BV if self._softcap is None else self._softcap * torch.tanh(logits_BV / self._softcap)

    def target_log_probs(self, rows: Sequence[Row], key_LHND: Tensor | None = None, value_LHND: Tensor | None = None) -> Tensor:
        positions = 0 if key_LHND is None else key_LHND.shape[2]
        packed = pack(rows, prefix_positions=positions, padding_id=0, device=self.device)
        cache = None if key_LHND is None or value_LHND is None else PrefixView(key_LHND, value_LHND)
        slots_BS = torch.cat([torch.arange(positions, device=self.device).expand(len(rows), -1), packed.position_BT], dim=1)
        hidden_BTD = self.hidden(packed.token_ids_BT, packed.position_BT, packed.visible_BTS(positions), slots_BS, cache)
        chosen_TD = hidden_BTD.flatten(0, 1)[packed.source]
        return target_log_probs(chosen_TD, self._head, packed.target, softcap=self._softcap)

    def read(self, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        if len(token_ids) > self.window:
            raise WindowError(f"The text has {len(token_ids)} tokens; the window of `{self.name}` is {self.window}. Shorten it.")
        if not token_ids:
            shape = (self._geometry.layers, self._geometry.kv_heads, 0, self._geometry.head_dim)
            return torch.empty(shape, dtype=self.dtype), torch.empty(shape, dtype=self.dtype)
        from transformers import DynamicCache

        # A cache told nothing of the config keeps every position of sliding layers too.
        cache = DynamicCache()
        with torch.inference_mode():
            self._body(input_ids=torch.tensor([list(token_ids)], device=self.device), past_key_values=cache, use_cache=True)
        return (
            torch.stack([layer.keys[0] for layer in cache.layers]).clone(),  # type: ignore[attr-defined]
            torch.stack([layer.values[0] for layer in cache.layers]).clone(),  # type: ignore[attr-defined]
        )

    def batches(self, rows: Sequence[Row], *, most_tokens: int) -> list[list[int]]:
        """Row indices in groups of like length whose padded size stays within `most_tokens`."""
        return bucket(rows, most_tokens=most_tokens)

    # --- answering ---------------------------------------------------------------------------------------------

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        progress: Progress | None = None,
    ) -> list[Completion]:
        tensors = self._prefix_tensors(prefix)
        prompts = [self._prompt(conversation, tensors, sampling) for conversation in conversations]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers: list[Completion | None] = [None] * len(prompts)
        for first in range(0, len(order), GENERATION_ROWS):
            chosen = order[first : first + GENERATION_ROWS]
            for index, answer in zip(chosen, self._answer([prompts[index] for index in chosen], tensors, sampling), strict=True):
                answers[index] = answer
            if progress is not None:
                progress(len(chosen))
        return [answer for answer in answers if answer is not None]

    def stream(
        self,
        conversation: Conversation,
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    ) -> Iterator[str]:
        tensors = self._prefix_tensors(prefix)
        prompt = self._prompt(conversation, tensors, sampling)
        tokens: list[int] = []
        shown = ""
        with torch.inference_mode():
            for steps in decode(self, [prompt], tensors.key_LHND, tensors.value_LHND, sampling):
                if steps[0].token is not None:
                    tokens.append(steps[0].token)
                text = _before_stop(self.decode_text(tokens), sampling.stop)
                # A replacement character at the end is half of a character whose other bytes are still to come.
                if steps[0].finished or not text.endswith("\ufffd"):
                    yield text[len(shown) :]
                    shown = text

    def score_labels(
        self,
        conversations: Sequence[Conversation],
        labels: Sequence[str],
        *,
        prefix: Prefix | None = None,
        progress: Progress | None = None,
    ) -> list[list[float]]:
        """Log-likelihood of each label, its end included, as the answer to each conversation."""
        tensors = self._prefix_tensors(prefix)
        targets = tuple(self.answer_ids(label) for label in labels)
        sampling = Sampling(max_new_tokens=max(len(target) for target in targets))
        rows = [Row(prompt=self._prompt(conversation, tensors, sampling), targets=targets) for conversation in conversations]
        lengths = [len(target) for target in targets]
        scores: list[list[float]] = [[] for _ in rows]
        for group in self.batches(rows, most_tokens=SCORING_TOKENS):
            with torch.inference_mode():
                flat = self.target_log_probs([rows[index] for index in group], tensors.key_LHND, tensors.value_LHND)
            for index, part in zip(group, flat.split(sum(lengths)), strict=True):
                scores[index] = [float(label.sum()) for label in part.split(lengths)]
            if progress is not None:
                progress(len(group))
        return scores

    def _answer(self, prompts: list[tuple[int, ...]], tensors: _PrefixTensors, sampling: Sampling) -> list[Completion]:
        started = time.perf_counter()
        tokens: list[list[int]] = [[] for _ in prompts]
        reasons: list[Any] = ["length"] * len(prompts)
        with torch.inference_mode():
            for steps in decode(self, prompts, tensors.key_LHND, tensors.value_LHND, sampling):
                for step in steps:
                    if step.token is not None:
                        tokens[step.index].append(step.token)
                    if step.finished is not None:
                        reasons[step.index] = step.finished
        seconds = (time.perf_counter() - started) / len(prompts)
        return [
            Completion(
                text=_before_stop(self.decode_text(ids), sampling.stop),
                token_ids=tuple(ids),
                usage=Usage(prompt_tokens=len(prompt), completion_tokens=len(ids), prefix_positions=tensors.positions),
                finish_reason=reason,
                seconds=seconds,
            )
            for prompt, ids, reason in zip(prompts, tokens, reasons, strict=True)
        ]

    def _prompt(self, conversation: Conversation, tensors: _PrefixTensors, sampling: Sampling) -> tuple[int, ...]:
        ids = self.render(conversation, prompt_format=tensors.prompt_format)
        if not ids:
            raise WindowError("The prompt is empty: there is no token to answer to. Give some text.")
        needed = tensors.positions + len(ids) + sampling.max_new_tokens
        if needed > self.window:
            raise WindowError(
                f"{tensors.positions} prefix positions, {len(ids)} prompt tokens and {sampling.max_new_tokens} new tokens make {needed}; "
                f"the window of `{self.name}` is {self.window}. Shorten the prompt or lower max_new_tokens."
            )
        return ids

    def _prefix_tensors(self, prefix: Prefix | None) -> _PrefixTensors:
        if prefix is None:
            return NO_PREFIX
        self.check(prefix)
        return _PrefixTensors(
            key_LHND=prefix.keys(self.dtype, self.device),
            value_LHND=prefix.values(self.dtype, self.device),
            positions=prefix.positions,
            prompt_format=prefix.header.prompt_format,
        )

    def _check_own_path(self) -> None:
        """Our path skips the module's own forward; an architecture for which that changes the numbers is refused at load."""
        tokens = torch.arange(1, 9, device=self.device)[None] % self._head.weight.shape[0]
        row = Row(prompt=tuple(tokens[0, :4].tolist()), targets=(tuple(tokens[0, 4:].tolist()),))
        with torch.inference_mode():
            theirs = self._module(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)[0, 3:-1]
            ours = self.target_log_probs([row])
        gap = (theirs.gather(1, tokens[0, 4:, None])[:, 0] - ours).abs().max()
        if not gap < SELF_CHECK_TOLERANCE:
            raise ModelError(
                f"`{self.name}` ({type(self._module).__name__}) computes its logits in a way that Foreword does not know "
                f"(log-probabilities differ by {float(gap):.3g}). Proven families: Llama, Qwen3, Gemma 3, GPT-2, GPT-NeoX."
            )


def _before_stop(text: str, stop: tuple[str, ...]) -> str:
    for ending in stop:
        text = text.partition(ending)[0]
    return text

"""The `transformers` engine: any Hugging Face causal language model, in this process, frozen, with prefixes.

Axes: L layer, B row, H KV head, N virtual position, T token, S slot, D head or hidden dimension, V vocabulary.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foreword.engine import Asked, Conversation, Deliver, Progress, Request, Row, Shares
from foreword.engines import _attention, _layers, _own_path, _reading, _scoring, _side_signal
from foreword.engines._answer import Answer
from foreword.engines._cache import PrefixView
from foreword.engines._checkpoint import fingerprint as checkpoint_fingerprint
from foreword.engines._checkpoint import resolve
from foreword.engines._constraint import ConstraintCompiler
from foreword.engines._conversation import ConversationEncoder
from foreword.engines._flat import FlatRows, TreeAttention, check_prefix_of_row, flatten, one_prefix_at_a_time, share_out
from foreword.engines._geometry import geometry_of, reach_of, sliding_window_of, turns_as_described, window_of
from foreword.engines._int8 import quantize_weights
from foreword.engines._packed import pack_linear_layers
from foreword.engines._placement import device_of, dtype_of
from foreword.engines._resident import NO_PREFIX, Paths, PrefixTensors
from foreword.engines._rows import PackedRows, additive, bucket, pack
from foreword.engines._sampling import Sampler
from foreword.engines._sampling import check as check_sampling
from foreword.engines._scheduler import Job, Scheduler
from foreword.engines._serving import MOST_ROWS, QUEUE, RESIDENT_BYTES, STEP_TOKENS, Serving
from foreword.engines._step import StepAttention
from foreword.engines._token_loss import likeliest, log_probs_of, target_log_probs
from foreword.errors import ModelError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.file import load as load_prefix
from foreword.prefix.header import Fingerprint, Geometry, PromptFormat
from foreword.prefix.operations import compose
from foreword.prefix.rotary import rotate
from foreword.prefix.side_signal import SideSignal
from foreword.types import Completion, Delta, Message, Sampling

logger = logging.getLogger(__name__)

WEIGHTS = ("auto", "int8")
GENERATION_ROWS, GENERATION_TOKENS = 32, 2048
SCORING_TOKENS = 2048
GROUP_OVERHEAD, GPU_GROUP_OVERHEAD = {"cpu": 48}, 4096
"""What starting one more group of rows costs, in tokens computed (measured on the CPU: about 20 ms)."""


def load(
    name: str = "smollm2",
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    weights: str = "auto",
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> TransformersEngine:
    """Loads and freezes a model.

    Args:
        name: `smollm2`, a local folder, or a Hugging Face id.
        revision: commit, tag or branch of a Hugging Face id.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware multiplies it, else float32.
        device: a torch device, or `auto`: CUDA where there is one.
        weights: `auto` as the dtype says, or `int8`: linear layers take a quarter of float32's memory, on the CPU.
        trust_remote_code: runs code that comes with the model. Leave it off for models that you have not read.
        progress: told (what is being done, steps done, steps in all) while a model is converted.

    Raises:
        ModelError: there is no such model, it has no safetensors, or its architecture cannot take a prefix.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    place = device_of(device)
    chosen = dtype_of(dtype, place)
    if weights not in WEIGHTS or (weights == "int8" and place.type != "cpu"):
        raise ModelError(f"weights must be one of {', '.join(WEIGHTS)}, int8 on the CPU only; got {weights!r} for {place.type}.")
    folder = resolve(name, revision=revision, progress=progress)
    _attention.register()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        module, found = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            folder, dtype=chosen, trust_remote_code=trust_remote_code, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"`{name}` could not be loaded from {folder}: {error}") from error
    if found["missing_keys"]:
        some = ", ".join(sorted(found["missing_keys"])[:3])
        raise ModelError(f"`{name}` lacks {len(found['missing_keys'])} weights in {folder} ({some}, …); copy or download the folder again.")
    module.to(place)
    if weights == "int8":
        quantize_weights(module)
    return TransformersEngine(name=name, folder=folder, module=module, tokenizer=tokenizer)


class TransformersEngine:
    """A frozen transformers model that takes prefixes.

    Meets `Generates`, `TakesPrefix`, `ReadsSeveral`, `Traceable`, `Differentiable` and `TakesSideSignal`; what `serve` returns meets
    `Serves`.
    """

    def __init__(self, *, name: str, folder: Path, module: Any, tokenizer: Any) -> None:
        self._name = name
        self._module = module.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._conversations = ConversationEncoder(tokenizer)
        self._constraints: ConstraintCompiler | None = None
        self._geometry = geometry_of(module)
        self._sliding_window = sliding_window_of(module.config)
        self._fingerprint = checkpoint_fingerprint(folder, module.config, tokenizer)
        self._body = getattr(module, module.base_model_prefix)
        self._head = module.get_output_embeddings()
        self._softcap: float | None = getattr(module.config.get_text_config(), "final_logit_softcapping", None)
        pack_linear_layers(self._body)
        _own_path.check(self, vocabulary=self._head.weight.shape[0])
        if self._geometry.rotary and not turns_as_described(self._body, self._geometry, self.device):
            logger.warning("Keys of `%s` turn with position in a way that Foreword does not know; its prefixes cannot be moved.", name)
            self._geometry = self._geometry.model_copy(update={"rotary": ()})

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
        return self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def render(self, conversation: Conversation, *, prompt_format: PromptFormat = "full") -> tuple[int, ...]:
        return self._conversations.prompt(conversation, prompt_format)

    def render_context(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the start of a conversation, to stand in a prefix of format `continuation`."""
        return self._conversations.context(messages)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer with its end, as the model would write it."""
        return self._conversations.answer(text)

    # --- computing ---------------------------------------------------------------------------------------------

    def hidden(
        self, tokens_BT: Tensor, position_BT: Tensor, visible_BTS: Tensor, position_BS: Tensor, cache: Any, **to_attention: Any
    ) -> Tensor:
        """Last hidden states, B T D.

        Args:
            position_BT: positions of the tokens, the prefix counted.
            visible_BTS: which slots (the cache's and the tokens' own) each token may attend to.
            position_BS: positions of the slots, for sliding windows.
            to_attention: passed on to every layer's attention function.
        """
        mask: Any = additive(visible_BTS, self.dtype)[:, None]
        if self._sliding_window is not None:
            near = position_BT[:, :, None] - position_BS[:, None, :] < self._sliding_window.size
            mask = self._sliding_window.masks(mask, additive(visible_BTS & near, self.dtype)[:, None])
        return self._body(
            input_ids=tokens_BT,
            position_ids=position_BT,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **to_attention,
        ).last_hidden_state

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """Next-token logits, fp32, B V."""
        logits_BV = self._head(hidden_BD).float()
        return logits_BV if self._softcap is None else self._softcap * torch.tanh(logits_BV / self._softcap)

    def target_log_probs(
        self,
        rows: Sequence[Row],
        key_LHND: Tensor | None = None,
        value_LHND: Tensor | None = None,
        *,
        prefix_of_row: Sequence[int] | None = None,
    ) -> Tensor:
        if prefix_of_row is not None:
            check_prefix_of_row(rows, key_LHND, prefix_of_row)
            if not self._takes_flat_rows and key_LHND is not None and value_LHND is not None:
                return one_prefix_at_a_time(self.target_log_probs, rows, key_LHND, value_LHND, prefix_of_row)
        hidden_TD, target = self._hidden_before_targets(rows, key_LHND, value_LHND, prefix_of_row)
        return target_log_probs(hidden_TD, self._head, target, softcap=self._softcap)

    def likeliest(
        self, rows: Sequence[Row], key_LHND: Tensor | None = None, value_LHND: Tensor | None = None, *, count: int
    ) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            hidden_TD, _ = self._hidden_before_targets(rows, key_LHND, value_LHND)
            found = likeliest(hidden_TD, self._head, count, softcap=self._softcap)
        return found[0].clone(), found[1].clone()

    def log_probs_of(
        self, rows: Sequence[Row], token_ids_TC: Tensor, key_LHND: Tensor | None = None, value_LHND: Tensor | None = None
    ) -> Tensor:
        hidden_TD, _ = self._hidden_before_targets(rows, key_LHND, value_LHND)
        return log_probs_of(hidden_TD, self._head, token_ids_TC, softcap=self._softcap)

    def _hidden_before_targets(
        self,
        rows: Sequence[Row],
        key_LHND: Tensor | None,
        value_LHND: Tensor | None,
        prefix_of_row: Sequence[int] | None = None,
        *,
        padded: bool = False,
        **to_attention: Any,
    ) -> tuple[Tensor, Tensor]:
        """The hidden state that predicts each target token, T D, and the target tokens, T."""
        positions = 0 if key_LHND is None else key_LHND.shape[-2]
        self._check_rows(rows, positions)
        if self._takes_flat_rows and not padded:
            rows_as_tensors: FlatRows | PackedRows = flatten(rows, prefix_positions=positions, device=self.device)
            hidden_MD = self._hidden_of_flat(rows_as_tensors, key_LHND, value_LHND, prefix_of_row, **to_attention)
        else:
            rows_as_tensors = self._pack(rows, positions)
            cache = None if key_LHND is None or value_LHND is None else PrefixView(key_LHND, value_LHND)
            hidden_MD = self._hidden_of(rows_as_tensors, positions, cache, **to_attention).flatten(0, 1)
        return hidden_MD[rows_as_tensors.source], rows_as_tensors.target

    @property
    def _takes_flat_rows(self) -> bool:
        """Whether rows can be computed one after the other: the tree knows neither sliding windows nor capped scores."""
        capped = getattr(self._module.config.get_text_config(), "attn_logit_softcapping", None)
        return self._sliding_window is None and not capped and self._module.config._attn_implementation == _attention.NAME

    def _hidden_of_flat(
        self,
        flat: FlatRows,
        key_LHND: Tensor | None,
        value_LHND: Tensor | None,
        prefix_of_row: Sequence[int] | None = None,
        **to_attention: Any,
    ) -> Tensor:
        """Last hidden states of flat rows behind a prefix, or each behind its own: M D."""
        return self._body(
            input_ids=flat.token_ids_M[None],
            position_ids=flat.position_M[None],
            attention_mask=self._unread_mask(),
            use_cache=False,
            tree=TreeAttention(flat, key_LHND, value_LHND, dtype=self.dtype, prefix_of_row=prefix_of_row),
            **to_attention,
        ).last_hidden_state[0]

    def _pack(self, rows: Sequence[Row], positions: int) -> PackedRows:
        return pack(rows, prefix_positions=positions, padding_id=0, device=self.device)

    def _hidden_of(self, packed: PackedRows, positions: int, cache: Any, **to_attention: Any) -> Tensor:
        """Last hidden states of packed rows behind a prefix of `positions` positions."""
        slots_BS = torch.cat([torch.arange(positions, device=self.device).expand(len(packed.position_BT), -1), packed.position_BT], dim=1)
        return self.hidden(packed.token_ids_BT, packed.position_BT, packed.visible_BTS(positions), slots_BS, cache, **to_attention)

    def prefix_attention(self, rows: Sequence[Row], key_LHND: Tensor, value_LHND: Tensor) -> Tensor:
        positions = key_LHND.shape[2]
        sums = _attention.PrefixAttention(self._geometry.layers, self._geometry.kv_heads, positions, self.device)
        with torch.inference_mode():
            for group in self.batches(rows, most_tokens=SCORING_TOKENS):
                packed = self._pack([rows[index] for index in group], positions)
                self._hidden_of(packed, positions, PrefixView(key_LHND, value_LHND), prefix_attention=(sums, packed.segment_BT >= 0))
        return sums.mass_LGN.clone()

    @property
    def reach(self) -> tuple[int | None, ...]:
        return reach_of(self._module.config, self._geometry.layers)

    def asked(self, token_ids: Sequence[int], key_LHND: Tensor, value_LHND: Tensor, *, kept: Sequence[int]) -> Asked:
        if getattr(self._module.config.get_text_config(), "attn_logit_softcapping", None):
            raise ModelError(f"`{self.name}` caps its attention scores, so that they are not products of queries and keys alone.")
        positions = key_LHND.shape[2]
        row = Row(prompt=tuple(token_ids), targets=())
        if not token_ids or positions + len(token_ids) > self.window:
            raise WindowError(
                f"{positions} prefix positions and {len(token_ids)} tokens do not fit the window of `{self.name}`, {self.window}; "
                "give at least one token, and fewer than that."
            )
        questions = _attention.Questions(positions, torch.tensor(list(kept), device=self.device))
        with torch.inference_mode():
            self._hidden_of(self._pack([row], positions), positions, PrefixView(key_LHND, value_LHND), questions=questions)
        return Asked(query_LHMD=torch.stack(questions.query_GMD).clone(), beside_LHM=torch.stack(questions.beside_GM).clone())

    def read(self, token_ids: Sequence[int], *, behind: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        before = 0 if behind is None else behind[0].shape[2]
        if before + len(token_ids) > self.window:
            raise WindowError(f"The text has {before + len(token_ids)} tokens; the window of `{self.name}` is {self.window}. Shorten it.")
        if not token_ids:
            shape = (self._geometry.layers, self._geometry.kv_heads, 0, self._geometry.head_dim)
            return torch.empty(shape, dtype=self.dtype, device=self.device), torch.empty(shape, dtype=self.dtype, device=self.device)
        return _reading.read(self._body, [token_ids], behind, dtype=self.dtype, device=self.device)[0]

    def read_several(
        self, sequences: Sequence[Sequence[int]], *, behind: tuple[Tensor, Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        longest = (0 if behind is None else behind[0].shape[2]) + max(map(len, sequences), default=0)
        if longest > self.window or not all(sequences):
            raise WindowError(f"A text has 1 to {self.window} tokens for `{self.name}`; of these the longest has {longest}; none is empty.")
        return _reading.read(self._body, sequences, behind, dtype=self.dtype, device=self.device) if sequences else []

    def batches(self, rows: Sequence[Row], *, most_tokens: int) -> list[list[int]]:
        """Row indices in groups of like length whose size, with padding where there is any, stays within `most_tokens`."""
        if self._takes_flat_rows:
            return share_out(rows, most_tokens=most_tokens)
        return bucket(rows, most_tokens=most_tokens, group_overhead=GROUP_OVERHEAD.get(self.device.type, GPU_GROUP_OVERHEAD))

    def recomputing(self) -> contextlib.AbstractContextManager[None]:
        """While open, activations are computed again in the backward pass: more time, a fraction of the memory."""
        return _layers.recomputing(_layers.layers_of(self._body, self._geometry.layers))

    def compiled(self) -> contextlib.AbstractContextManager[None]:
        """While open, the layers run through torch.compile; the first steps are slow. On the CPU it needs a C++ compiler."""
        return _layers.compiled(_layers.layers_of(self._body, self._geometry.layers))

    # --- answering ---------------------------------------------------------------------------------------------

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        progress: Progress | None = None,
    ) -> list[Completion]:
        return self._answers(conversations, self._prefix_tensors(prefix), sampling, progress)

    def _answers(
        self,
        conversations: Sequence[Conversation],
        tensors: PrefixTensors,
        sampling: Sampling,
        progress: Progress | None,
        **to_attention: Any,
    ) -> list[Completion]:
        pieces: list[list[Delta]] = [[] for _ in conversations]
        scheduler = Scheduler(self, most_rows=GENERATION_ROWS, step_tokens=GENERATION_TOKENS, to_attention=to_attention)
        jobs = [self._job(self._prompt(conversation, tensors, sampling), tensors, sampling) for conversation in conversations]
        for job, said in zip(jobs, pieces, strict=True):
            job.deliver = said.append
            scheduler.add(job)
        started, told = time.perf_counter(), 0
        while scheduler.step():
            if progress is not None and (finished := scheduler.counts.finished) > told:
                progress(finished - told)
                told = finished
        seconds = (time.perf_counter() - started) / max(1, len(jobs))
        return [_completion(said, seconds) for said in pieces]

    def stream(
        self,
        conversation: Conversation,
        *,
        prefix: Prefix | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    ) -> Iterator[str]:
        tensors = self._prefix_tensors(prefix)
        return self._pieces(self._job(self._prompt(conversation, tensors, sampling), tensors, sampling))

    def _pieces(self, job: Job) -> Iterator[str]:
        said: list[Delta] = []
        job.deliver = said.append
        scheduler = Scheduler(self, most_rows=1, step_tokens=GENERATION_TOKENS)
        scheduler.add(job)
        while scheduler.step():
            for delta in said:
                if delta.text:
                    yield delta.text
            said.clear()

    # --- a side signal -----------------------------------------------------------------------------------------

    @property
    def query_heads(self) -> int:
        return self._module.config.get_text_config().num_attention_heads

    def target_log_probs_beside(self, rows: Sequence[Row], side: SideSignal, *, by_share: bool = False) -> Tensor:
        beside = self._side_attention(side, by_share=by_share)
        hidden_TD, target = self._hidden_before_targets(rows, None, None, padded=by_share, beside=beside)
        return target_log_probs(hidden_TD, self._head, target, softcap=self._softcap)

    def shares_beside(self, rows: Sequence[Row], side: SideSignal) -> Shares:
        beside = self._side_attention(side.gated(torch.zeros_like(side.gate_LQ)), by_share=True)
        beside.sums = _side_signal.ShareSums(side.gate_LQ.to(self.device))
        with torch.inference_mode():
            for group in self.batches(rows, most_tokens=SCORING_TOKENS):
                packed = self._pack([rows[index] for index in group], 0)
                beside.sums.counted_BT = packed.segment_BT >= 0
                self._hidden_of(packed, 0, None, beside=beside)
        return beside.sums.found()

    def generate_beside(
        self,
        conversations: Sequence[Conversation],
        side: SideSignal,
        *,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        progress: Progress | None = None,
    ) -> list[Completion]:
        return self._answers(conversations, NO_PREFIX, sampling, progress, beside=self._side_attention(side))

    def _side_attention(self, side: SideSignal, *, by_share: bool = False) -> _side_signal.SideAttention:
        side.check(self._fingerprint)
        _side_signal.check(side, name=self.name, query_heads=self.query_heads, near_sighted=not self._takes_flat_rows)
        return _side_signal.SideAttention(side, dtype=self.dtype, device=self.device, by_share=by_share)

    # --- serving -----------------------------------------------------------------------------------------------

    def serve(
        self, *, max_rows: int = MOST_ROWS, queue: int = QUEUE, resident_bytes: int = RESIDENT_BYTES, step_tokens: int = STEP_TOKENS
    ) -> Serving:
        """Starts answering many requests at once, in a thread of its own; arguments as for `Serving`. Close what it returns."""
        return Serving(self, max_rows=max_rows, queue=queue, resident_bytes=resident_bytes, step_tokens=step_tokens)

    def job(self, request: Request, prefix: PrefixTensors, deliver: Deliver) -> Job:
        """A request checked and made ready for the scheduler; raises as `Serves.submit`."""
        if request.text is not None:
            prompt = self._fitting(self.encode(request.text), prefix, request.sampling)
        else:
            prompt = self._prompt(request.conversation, prefix, request.sampling)
        job = self._job(prompt, prefix, request.sampling)
        job.deliver = deliver
        return job

    def read_prefixes(self, paths: Paths) -> PrefixTensors:
        """Prefix files, verified, checked and composed where there are several, as tensors of their own."""
        parts = [load_prefix(path) for path in paths]
        prefix = parts[0] if len(parts) == 1 else compose(parts, "+".join(part.name for part in parts), window=self.window)
        return self._prefix_tensors(prefix, copied=True)

    def step_logits(self, step: StepAttention, chosen: Sequence[int], **to_attention: Any) -> Tensor:
        """One forward pass of the scheduler: logits after the last token of the chosen chunks, C V."""
        hidden_MD = self._body(
            input_ids=step.token_ids_M[None],
            position_ids=step.position_M[None],
            attention_mask=self._unread_mask(),
            use_cache=False,
            step=step,
            **to_attention,
        ).last_hidden_state[0]
        return self.logits(hidden_MD[step.last_R[chosen]])

    def _unread_mask(self) -> Any:
        """What flat rows give transformers for a mask: with four axes it is taken as it is, and our attention does not read it."""
        mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
        return mask if self._sliding_window is None else self._sliding_window.masks(mask, mask)

    def token_text(self, token_id: int) -> str:
        """What one token alone reads as, special ones included."""
        return self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False)

    def _job(self, prompt: tuple[int, ...], prefix: PrefixTensors, sampling: Sampling) -> Job:
        vocabulary = self._head.weight.shape[0]
        check_sampling(sampling, vocabulary=vocabulary)
        matcher = None
        if sampling.constraint is not None:
            if self._constraints is None:
                self._constraints = ConstraintCompiler(self._tokenizer, vocabulary, self.stop_ids)
            matcher = self._constraints.compile(sampling.constraint).start()
        return Job(
            prompt=prompt,
            prefix=prefix,
            sampling=sampling,
            sampler=Sampler(sampling, prompt_ids=prompt, vocabulary=vocabulary, device=self.device),
            answer=Answer(self.decode_text, sampling.stop),
            matcher=matcher,
        )

    # --- scoring -----------------------------------------------------------------------------------------------

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
        found = _scoring.log_probs(self, rows, tensors.key_LGND, tensors.value_LGND, most_tokens=SCORING_TOKENS, progress=progress)
        return [[sum(label) for label in row] for row in found]

    def log_probs(
        self, rows: Sequence[Row], *, after: Sequence[int] = (), progress: Progress | None = None
    ) -> list[tuple[tuple[float, ...], ...]]:
        behind = self.read(after) if after else (None, None)
        return _scoring.log_probs(self, rows, *behind, most_tokens=SCORING_TOKENS, progress=progress)

    def _prompt(self, conversation: Conversation, tensors: PrefixTensors, sampling: Sampling) -> tuple[int, ...]:
        return self._fitting(self.render(conversation, prompt_format=tensors.prompt_format), tensors, sampling)

    def _fitting(self, ids: tuple[int, ...], tensors: PrefixTensors, sampling: Sampling) -> tuple[int, ...]:
        if not ids:
            raise WindowError("The prompt is empty: there is no token to answer to. Give some text.")
        needed = tensors.positions + len(ids) + sampling.max_new_tokens
        if needed > self.window:
            raise WindowError(
                f"{tensors.positions} prefix positions, {len(ids)} prompt tokens and {sampling.max_new_tokens} new tokens make {needed}; "
                f"the window of `{self.name}` is {self.window}. Shorten the prompt or lower max_new_tokens.",
                room=max(0, self.window - tensors.positions - len(ids)),
            )
        return ids

    def _check_rows(self, rows: Sequence[Row], positions: int) -> None:
        if not all(row.prompt for row in rows):
            raise WindowError("A row's prompt is empty: there is no token that could predict its targets. Give it at least one.")
        # The last token of a target is only predicted.
        needed = positions + max((len(row.prompt) + len(target) - 1 for row in rows for target in row.targets), default=0)
        if needed > self.window:
            raise WindowError(
                f"{positions} prefix positions and the longest row make {needed}; the window of `{self.name}` is {self.window}. Shorten it."
            )

    def _prefix_tensors(self, prefix: Prefix | None, *, copied: bool = False) -> PrefixTensors:
        """A prefix where and as the engine computes; `copied` leaves nothing mapped to its file."""
        if prefix is None:
            return NO_PREFIX
        self.check(prefix)
        # Positions after a prefix count on from its own number of keys, so a shifted one is turned back to where they start.
        key_LGND = rotate(prefix.keys(device=self.device), self._geometry, -prefix.header.first_position)
        return PrefixTensors(
            key_LGND=key_LGND.to(self.dtype, copy=copied),
            value_LGND=prefix.values(self.dtype, self.device).to(self.dtype, copy=copied),
            positions=prefix.positions,
            prompt_format=prefix.header.prompt_format,
        )


def _completion(pieces: Sequence[Delta], seconds: float) -> Completion:
    last = pieces[-1]
    assert last.usage is not None and last.finish_reason is not None, "the scheduler ends every job"
    return Completion(
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        usage=last.usage,
        finish_reason=last.finish_reason,
        seconds=seconds,
        logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
    )

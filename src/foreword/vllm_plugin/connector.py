"""The KV connector that vLLM loads: `--kv-transfer-config '{"kv_connector": "PrefixConnector", …}'`.

It is made twice: once beside the scheduler, where requests arrive and blocks are given out, and once in every worker, where keys and
values are written. `attaching.py` and `loading.py` do the work; here vLLM's interface is met.
"""

# pyright: reportMissingImports=false
# vLLM lives in an environment of its own.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    SupportsHMA,
)
from vllm.logger import init_logger
from vllm.v1.kv_cache_interface import ChunkedLocalAttentionSpec, FullAttentionSpec, SlidingWindowSpec

from foreword.errors import ConfigError, PrefixFileError
from foreword.prefix.store import PrefixStore
from foreword.vllm_plugin import versions
from foreword.vllm_plugin.attaching import Attachments, StepPlan
from foreword.vllm_plugin.loading import CacheGroup, ResidentPrefixes, Share, groups_of, heads_of, write
from foreword.vllm_plugin.model_facts import ModelFacts
from foreword.vllm_plugin.names import Names
from foreword.vllm_plugin.settings import PluginSettings

logger = init_logger(f"vllm.{__name__}")

PLAIN_ATTENTION = frozenset({FullAttentionSpec, SlidingWindowSpec, ChunkedLocalAttentionSpec})
TEXT_ONLY_SPECULATION = frozenset({"ngram", "ngram_gpu", "suffix"})
"""Ways to guess ahead that keep no keys and values of their own."""


@dataclass
class PrefixMetadata(KVConnectorMetadata):
    """One step's plan on its way from the scheduler to the workers."""

    plan: StepPlan


class PrefixConnector(KVConnectorBase_V1, SupportsHMA):
    """Serves prefixes as keys and values that come from elsewhere."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        versions.check(vllm.__version__)
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._settings = PluginSettings.read(self._kv_transfer_config.kv_connector_extra_config)
        check_config(vllm_config, kv_cache_config)
        self._attachments: Attachments | None = None
        self._writer: _Writer | None = None
        self._failed: set[str] = set()
        self._unloaded_blocks: set[int] = set()
        if role == KVConnectorRole.SCHEDULER:
            self._attachments = _attachments(vllm_config, self._settings)

    # --- beside the scheduler ----------------------------------------------------------------------------------

    @property
    def _requests(self) -> Attachments:
        assert self._attachments is not None, "called in a worker"
        return self._attachments

    def on_new_request(self, request: Any) -> None:
        self._requests.arrive(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return self._requests.matched(request.request_id, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._requests.allocated(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return PrefixMetadata(plan=self._requests.plan())

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._requests.leave(request.request_id)
        return False, None

    def request_finished_all_groups(self, request: Any, block_ids: tuple[list[int], ...]) -> tuple[bool, dict[str, Any] | None]:
        self._requests.leave(request.request_id)
        return False, None

    # --- in a worker -------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._writer = _Writer.make(self._vllm_config, self._kv_cache_config, self._settings)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, PrefixMetadata)
        self._failed.update(metadata.plan.refused)
        if not metadata.plan.loads:
            return
        assert self._writer is not None, "the cache was not registered"
        try:
            self._writer.write(metadata.plan)
        except PrefixFileError as error:
            self._report_unloaded(metadata.plan, error)

    def _report_unloaded(self, plan: StepPlan, error: PrefixFileError) -> None:
        """A file was sound a moment ago and cannot be read now. The requests of this step fail; nothing wrong is computed from."""
        # With several cache groups vLLM cannot tell whose blocks they are, and stops the engine; the log then has the reason.
        logger.error("Prefixes of this step cannot be loaded: %s", error)
        sizes = [group.kv_cache_spec.block_size for group in self._kv_cache_config.kv_cache_groups]
        for load in plan.loads:
            for blocks, size in zip(load.blocks, sizes, strict=True):
                self._unloaded_blocks.update(blocks[load.start // size : -(-load.stop // size)])

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        failed, self._failed = self._failed, set()
        return KVConnectorTransferResults(finished_recving=set(failed), failed_recving=failed)

    def get_block_ids_with_load_errors(self) -> set[int]:
        blocks, self._unloaded_blocks = self._unloaded_blocks, set()
        return blocks

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return

    def shutdown(self) -> None:
        if self._attachments is not None:
            self._attachments.close()


class _Writer:
    """A worker's share of the model and the prefixes that it has ready."""

    def __init__(self, groups: tuple[CacheGroup, ...], resident: ResidentPrefixes, device: torch.device) -> None:
        self._groups, self._resident, self._device = groups, resident, device

    @classmethod
    def make(cls, vllm_config: Any, kv_cache_config: Any, settings: PluginSettings) -> _Writer:
        from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

        layers, groups = groups_of(kv_cache_config.kv_cache_groups, vllm_config.compilation_config.static_forward_context)
        model = vllm_config.model_config
        device = next(layer.kv_cache.device for group in groups for _, layer in group.layers)
        heads = heads_of(
            get_tensor_model_parallel_rank(), world=get_tensor_model_parallel_world_size(), total=model.get_total_num_kv_heads()
        )
        share = Share(layers=layers, heads=heads, dtype=model.dtype, device=device)
        return cls(groups, ResidentPrefixes(share, most_bytes=settings.resident_bytes), device)

    def write(self, plan: StepPlan) -> None:
        from vllm.utils.gpu_sync_debug import gpu_sync_allowed

        # A cold prefix crosses to the device here, and so do the slots; both are meant.
        with torch.inference_mode(), gpu_sync_allowed():
            write(self._groups, plan.loads, self._resident, self._device)


def check_config(vllm_config: Any, kv_cache_config: Any) -> None:
    """Raises `ConfigError` where vLLM is set up in a way that prefixes were not made for."""
    parallel, speculative = vllm_config.parallel_config, vllm_config.speculative_config
    kinds = {type(group.kv_cache_spec) for group in kv_cache_config.kv_cache_groups}
    problems = {
        "context parallelism (`--decode-context-parallel-size`) splits the positions of a request; leave it at 1": (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1
        ),
        "speculation with a draft model keeps keys and values of its own, which no prefix has; use `ngram` or none": (
            speculative is not None and speculative.method not in TEXT_ONLY_SPECULATION
        ),
        '`kv_load_failure_policy` must be "fail": placeholders computed anew would be read as text': (
            vllm_config.kv_transfer_config.kv_load_failure_policy != "fail"
        ),
        f"this model's cache is not one of plain attention ({', '.join(sorted(kind.__name__ for kind in kinds))})": (
            not kinds <= PLAIN_ATTENTION
        ),
    }
    for problem, holds in problems.items():
        if holds:
            raise ConfigError(f"Prefixes cannot be served with these settings of vLLM: {problem}.")


def _attachments(vllm_config: Any, settings: PluginSettings) -> Attachments:
    facts = ModelFacts.read(vllm_config.model_config, settings.fingerprint)
    if settings.fingerprint is None:
        logger.warning("No model fingerprint was given, so prefixes are checked by shape and rotary encoding, not by weights.")
    placeholder = settings.placeholder if settings.placeholder is not None else unwritten_token(vllm_config.model_config)
    if placeholder >= vllm_config.model_config.get_vocab_size():
        raise ConfigError(f"`placeholder` {placeholder} is outside the vocabulary of {vllm_config.model_config.get_vocab_size()} tokens.")
    names = Names(PrefixStore(settings.prefixes))
    logger.info("Prefixes are read from %s; token %d stands for their positions.", settings.prefixes, placeholder)
    return Attachments(names=names, facts=facts, placeholder=placeholder, start_token=start_token(vllm_config.model_config))


def start_token(model_config: Any) -> int | None:
    """What the tokenizer puts before every text by itself, if anything."""
    from vllm.tokenizers import cached_tokenizer_from_config

    if model_config.skip_tokenizer_init:
        return None
    tokenizer = cached_tokenizer_from_config(model_config)
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos if bos is not None and list(tokenizer.encode("x"))[:1] == [bos] else None


def unwritten_token(model_config: Any) -> int:
    """A token that the model never writes: repetition penalties count every token of the prompt, placeholders included.

    That is one behind the tokenizer's last (embeddings are often padded), else the token for unknown text, else that for a start, else a
    special token that does not end an answer.
    """
    from vllm.tokenizers import cached_tokenizer_from_config

    size = model_config.get_vocab_size()
    if model_config.skip_tokenizer_init:
        return size - 1
    tokenizer = cached_tokenizer_from_config(model_config)
    behind = max(tokenizer.get_vocab().values(), default=-1) + 1
    if behind < size:
        return behind
    endings = {tokenizer.eos_token_id}
    named = [getattr(tokenizer, "unk_token_id", None), getattr(tokenizer, "bos_token_id", None), *sorted(tokenizer.all_special_ids)]
    return next((token for token in named if token is not None and token not in endings), size - 1)

"""Small prefixes in a store, what vLLM would say of a model that they fit, and requests as its scheduler sees them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foreword.prefix.artifact import Prefix
from foreword.prefix.header import Fingerprint, Geometry, RotaryGroup
from foreword.prefix.store import PrefixStore

HAS_VLLM = importlib.util.find_spec("vllm") is not None
NO_VLLM = "vLLM is not installed in this environment; `make test-vllm` runs this in one of its own"
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason=NO_VLLM)

FINGERPRINT = Fingerprint(architecture="LlamaForCausalLM", config="0" * 64, weights="1" * 64, tokenizer="2" * 64, chat_template="3" * 64)
THETA, HEAD_DIM, LAYERS, KV_HEADS, WINDOW = 100.0, 8, 2, 4, 64
GEOMETRY = Geometry(
    layers=LAYERS,
    kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    rotary=(
        RotaryGroup(
            layers=(0, 1), rotary_dim=HEAD_DIM, inverse_frequencies=tuple(THETA ** (-index / HEAD_DIM) for index in range(0, HEAD_DIM, 2))
        ),
    ),
)


def build(name: str = "support", *, positions: int = 5, seed: int = 0, **changes: Any) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    geometry = changes.get("geometry", GEOMETRY)
    shape = (geometry.layers, geometry.kv_heads, positions, geometry.head_dim)
    fields: dict[str, Any] = {
        "name": name,
        "kind": "learned",
        "fingerprint": FINGERPRINT,
        "geometry": geometry,
        "prompt_format": "full",
        "key_LHND": torch.randn(shape, generator=generator),
        "value_LHND": torch.randn(shape, generator=generator),
    }
    return Prefix.make(**(fields | changes))


@pytest.fixture(scope="session")
def make_prefix() -> Callable[..., Prefix]:
    """`make_prefix("support", positions=5, seed=0, **anything Prefix.make takes)`."""
    return build


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return PrefixStore(tmp_path / "prefixes")


class ModelConfig:
    """The part of vLLM's `ModelConfig` that is asked for."""

    def __init__(self, **changes: Any) -> None:
        self.architectures = changes.pop("architectures", ["LlamaForCausalLM"])
        self.max_model_len = changes.pop("max_model_len", WINDOW)
        self.hf_text_config = SimpleNamespace(
            rope_parameters=changes.pop("rope_parameters", {"rope_type": "default", "rope_theta": THETA}),
            layer_types=changes.pop("layer_types", None),
        )
        self._shape = {"layers": LAYERS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM} | changes

    def get_total_num_hidden_layers(self) -> int:
        return self._shape["layers"]

    def get_total_num_kv_heads(self) -> int:
        return self._shape["kv_heads"]

    def get_head_size(self) -> int:
        return self._shape["head_dim"]


@pytest.fixture(scope="session")
def model_config() -> Callable[..., ModelConfig]:
    return ModelConfig


class PrefillStats:
    """What the scheduler notes of a request's prompt."""

    num_prompt_tokens = num_cached_tokens = num_computed_tokens = 0

    def set(self, num_prompt_tokens: int, num_local_cached_tokens: int, num_external_cached_tokens: int) -> None:
        self.num_prompt_tokens, self.num_cached_tokens = num_prompt_tokens, num_local_cached_tokens + num_external_cached_tokens
        self.num_computed_tokens = self.num_prompt_tokens - self.num_cached_tokens


class PlainRequest:
    """What the scheduler's requests have, and how they hash their blocks: each block's hash covers all before it."""

    BLOCK = 4

    def __init__(self, request_id: str, prompt_token_ids: list[int] | None, *, transfer: Any, **changes: Any) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self._all_token_ids = list(prompt_token_ids or ())
        self.num_prompt_tokens = len(self._all_token_ids)
        self.kv_transfer_params = transfer
        self.sampling_params: Any = SimpleNamespace(prompt_logprobs=None)
        self.prompt_embeds: Any = None
        self.mm_features: list[Any] = []
        self.resumable = False
        self.cache_salt: str | None = None
        self.skip_reading_prefix_cache = False
        self.prefill_stats: Any = PrefillStats()
        for name, value in changes.items():
            setattr(self, name, value)
        self.block_hashes: list[bytes] = []
        self.update_block_hashes()

    @property
    def all_token_ids(self) -> list[int]:
        return self._all_token_ids

    def update_block_hashes(self) -> None:
        for start in range(len(self.block_hashes) * self.BLOCK, len(self._all_token_ids) - self.BLOCK + 1, self.BLOCK):
            before = self.block_hashes[-1] if self.block_hashes else (self.cache_salt or "").encode()
            self.block_hashes.append(hashlib.sha256(before + repr(self._all_token_ids[start : start + self.BLOCK]).encode()).digest())


def vllm_request(request_id: str, prompt_token_ids: list[int] | None, *, transfer: Any, **changes: Any) -> Any:
    """The same as vLLM makes it."""
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    extra = None if transfer is None else {"kv_transfer_params": transfer}
    request = Request(
        request_id=request_id,
        prompt_token_ids=prompt_token_ids,
        sampling_params=SamplingParams(max_tokens=8, extra_args=extra),
        pooling_params=None,
        block_hasher=get_request_block_hasher(PlainRequest.BLOCK, sha256),
    )
    for name, value in changes.items():
        setattr(request, name, value)
    request.block_hashes = []
    request.update_block_hashes()
    return request


@pytest.fixture(params=["plain", pytest.param("vllm", marks=needs_vllm)])
def make_request(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`make_request("r1", [1, 2, 3], transfer={"prefix": "support"})`, once as a plain object and once as vLLM's own."""
    return PlainRequest if request.param == "plain" else vllm_request

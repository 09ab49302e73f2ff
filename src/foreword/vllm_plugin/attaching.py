"""The scheduler's side: puts a prefix in front of a request, and says what has to be loaded for it.

vLLM keeps keys and values of tokens, so a prefix of N positions becomes N placeholder tokens in front of the prompt. They are put there
after tokenisation, where a new request reaches the scheduler; neither the client nor `usage` sees them. The scheduler is then told that
their keys and values come from elsewhere. vLLM's own NIXL and Mooncake connectors change requests in the same place.

Nothing here imports vllm: a request is read and changed by attribute.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.errors import ForewordError, ServingError
from foreword.vllm_plugin.files import HeldFiles, Source
from foreword.vllm_plugin.model_facts import ModelFacts
from foreword.vllm_plugin.names import Identity, Names

logger = logging.getLogger(__name__)

PARAMETER = "prefix"
"""The key in a request's `kv_transfer_params` that names its prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Keys and values that a worker has to write before this step's forward pass.

    Attributes:
        start, stop: positions of the prefix; what stands before `start` lies in vLLM's cache already.
        blocks: for each KV cache group, ids of the blocks of the request's positions from 0 on.
    """

    source: Source
    start: int
    stop: int
    blocks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What the workers do in one step. `refused` are requests that they report as failed."""

    loads: tuple[Load, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attached:
    source: Source
    identity: Identity
    positions: int


class Attachments:
    """Which request has which prefix, from its arrival to its end."""

    def __init__(self, *, names: Names, facts: ModelFacts, placeholder: int, start_token: int | None = None) -> None:
        """
        Args:
            placeholder: token that stands for a prefix position.
            start_token: what the tokenizer puts before every text, where it does. A prefix that holds the start of a conversation has it
                already; some of vLLM's endpoints add it all the same.
        """
        self._names = names
        self._start_token = start_token
        self._facts = facts
        self._placeholder = placeholder
        self._files = HeldFiles()
        self._attached: dict[str, _Attached] = {}
        self._refused: set[str] = set()
        self._loads: list[Load] = []
        self._refusals: list[str] = []

    def arrive(self, request: Any) -> None:
        """Attaches the prefix that the request names, if any. What cannot be served is marked, and fails on its first step.

        A request cannot be refused here: this is called in the middle of the scheduler's own work, and ending it at once would leave its
        client waiting for ever.
        """
        parameters = request.kv_transfer_params
        if not isinstance(parameters, Mapping) or PARAMETER not in parameters:
            return
        try:
            self._attach(request, parameters[PARAMETER])
        except ForewordError as error:
            logger.error("Request %s is refused: %s", request.request_id, error)
            self._refused.add(request.request_id)
            # Nothing in the cache may answer for it, or there would be nothing to load that could fail.
            request.cache_salt = f"refused:{secrets.token_hex(16)}"
            _rehash(request)
            request.skip_reading_prefix_cache = False

    def matched(self, request_id: str, computed: int) -> tuple[int, bool]:
        """How many tokens past the first `computed` come from a prefix, and whether they come between steps.

        A refused request is promised one token that will never arrive: its failure then takes the scheduler's own way for failed loads.
        """
        if request_id in self._refused:
            return 1, True
        attached = self._attached.get(request_id)
        return (0, False) if attached is None else (max(attached.positions - computed, 0), False)

    def allocated(self, request: Any, blocks: Sequence[Sequence[int]], external: int) -> None:
        """Notes what to load, now that the request has blocks. `external` is how many tokens the scheduler takes from us."""
        attached = self._attached.get(request.request_id)
        if attached is not None:
            uncount(request.prefill_stats, attached.positions)
        if external == 0:
            return
        if attached is None:
            self._refusals.append(request.request_id)
            return
        self._loads.append(
            Load(
                source=attached.source,
                start=attached.positions - external,
                stop=attached.positions,
                blocks=tuple(tuple(group) for group in blocks),
            )
        )

    def plan(self) -> StepPlan:
        """What was noted since the last call."""
        plan = StepPlan(loads=tuple(self._loads), refused=tuple(self._refusals))
        self._loads.clear()
        self._refusals.clear()
        return plan

    def leave(self, request_id: str) -> None:
        """The request has ended; its file may be closed."""
        self._refused.discard(request_id)
        attached = self._attached.pop(request_id, None)
        if attached is not None:
            self._files.release(attached.identity)

    def close(self) -> None:
        """Closes every file."""
        self._attached.clear()
        self._files.close()

    def _attach(self, request: Any, reference: object) -> None:
        if not isinstance(reference, str):
            raise ServingError(f"`kv_transfer_params.{PARAMETER}` must be a name in the prefix store; got {type(reference).__name__}.")
        check_servable(request)
        found = self._names.find(reference)
        self._facts.check(found.header)
        if found.header.prompt_format == "continuation" and self._start_token is not None:
            drop_start(request, self._start_token)
        self._facts.check_room(found.header, request.num_prompt_tokens)
        source = self._files.hold(found)
        self._attached[request.request_id] = _Attached(source=source, identity=found.identity, positions=found.header.positions)
        prepend(request, found.header.positions, placeholder=self._placeholder, salt=source.key)


def check_servable(request: Any) -> None:
    """Raises `ServingError` for a request whose kind cannot have a prefix."""
    sampling = request.sampling_params
    reasons = {
        "it is a pooling request": sampling is None,
        # vLLM computes the logits of every prompt token for these. It would compute placeholders as if they were text, answer with
        # that, and keep the result in its cache for the prefix's next user.
        "it asks for log-probabilities of the prompt": sampling is not None
        and (sampling.prompt_logprobs is not None or getattr(sampling, "prompt_logprob_token_ids", None) is not None),
        "its prompt is given as embeddings": request.prompt_token_ids is None or request.prompt_embeds is not None,
        "it has images, audio or video": bool(request.mm_features),
        "its prompt arrives in pieces": request.resumable,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ServingError(f"A prefix cannot stand before this request: {reason}. Leave that out, or send it without a prefix.")


def prepend(request: Any, positions: int, *, placeholder: int, salt: str) -> None:
    """Puts `positions` placeholder tokens in front of a request's prompt.

    Args:
        salt: goes into the hash of the first block and so of all that follow. Placeholders of two prefixes are the same tokens; without
            it the second prefix would be answered with the first one's keys and values. The client's own salt stays in force.
    """
    padding = [placeholder] * positions
    request.prompt_token_ids = padding + list(request.prompt_token_ids)
    # In place: `all_token_ids` is a view of this very list.
    request._all_token_ids[:0] = padding
    request.num_prompt_tokens += positions
    request.cache_salt = f"foreword:{salt}:{request.cache_salt or ''}"
    _rehash(request)
    # Otherwise the scheduler would ignore what we offer to load and compute placeholders as text.
    request.skip_reading_prefix_cache = False


def drop_start(request: Any, token: int) -> None:
    """Takes a start-of-text token off the prompt, if it begins with one and has more."""
    if request.num_prompt_tokens > 1 and request.prompt_token_ids[0] == token:
        request.prompt_token_ids = list(request.prompt_token_ids[1:])
        del request._all_token_ids[0]
        request.num_prompt_tokens -= 1


def uncount(stats: Any, positions: int) -> None:
    """Takes a prefix out of a request's statistics, from which `usage` tells clients how much of their prompt was cached.

    Args:
        stats: vLLM's `PrefillStats`, just set, with every position of the prefix among what was cached; None once they were reported.
    """
    if stats is not None and stats.num_cached_tokens >= positions:
        stats.set(
            num_prompt_tokens=stats.num_prompt_tokens - positions,
            num_local_cached_tokens=stats.num_cached_tokens - positions,
            num_external_cached_tokens=0,
        )


def _rehash(request: Any) -> None:
    request.block_hashes = []
    request.update_block_hashes()

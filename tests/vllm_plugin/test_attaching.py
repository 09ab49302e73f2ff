"""How the scheduler's requests get their prefixes: as objects of our own, and as vLLM's where it is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foreword.vllm_plugin.attaching import Attachments, Load, StepPlan
from foreword.vllm_plugin.model_facts import ModelFacts
from foreword.vllm_plugin.names import Names

PLACEHOLDER = 77
PROMPT = [11, 12, 13, 14, 15, 16]


@pytest.fixture
def attachments(store, make_prefix, model_config):
    store.publish(make_prefix("support", positions=5, seed=1))
    store.publish(make_prefix("other", positions=5, seed=2))
    store.publish(make_prefix("long", positions=60, seed=3))
    made = Attachments(names=Names(store), facts=ModelFacts.read(model_config(), None), placeholder=PLACEHOLDER)
    yield made
    made.close()


def arrived(attachments: Attachments, request: Any) -> Any:
    attachments.arrive(request)
    return request


def test_placeholders_stand_before_the_prompt(attachments, make_request):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    whole = [PLACEHOLDER] * 5 + PROMPT
    assert list(request.prompt_token_ids) == whole
    assert list(request.all_token_ids) == whole
    assert request.num_prompt_tokens == 11
    assert len(request.block_hashes) == 2
    assert request.skip_reading_prefix_cache is False


@pytest.mark.parametrize("transfer", [None, {}, {"do_remote_prefill": False}])
def test_a_request_without_a_prefix_stays_as_it_is(attachments, make_request, transfer):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer=transfer))
    assert request.prompt_token_ids == PROMPT and request.cache_salt is None
    assert attachments.matched("r", 0) == (0, False)
    attachments.leave("r")


def test_the_same_placeholders_never_share_blocks_across_prefixes(attachments, make_request):
    def first_hash(name: str, salt: str | None = None) -> object:
        request = make_request(f"{name}-{salt}", list(PROMPT), transfer={"prefix": name}, cache_salt=salt)
        return arrived(attachments, request).block_hashes[0]

    assert first_hash("support") == first_hash("support")
    assert first_hash("support") != first_hash("other")
    assert first_hash("support", "tenant-a") != first_hash("support", "tenant-b")
    assert first_hash("support", "tenant-a") != first_hash("support")


def test_what_is_loaded_is_what_the_cache_does_not_hold(attachments, make_request):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    assert attachments.matched("r", 0) == (5, False)
    assert attachments.matched("r", 4) == (1, False)
    assert attachments.matched("r", 8) == (0, False)
    attachments.allocated(request, ([7, 8, 9], [0, 5, 6]), external=1)
    (load,) = attachments.plan().loads
    assert (load.start, load.stop, load.blocks) == (4, 5, ((7, 8, 9), (0, 5, 6)))
    assert load.source.reference == "support@v1"
    assert attachments.plan() == StepPlan()


def test_a_preempted_request_is_loaded_again(attachments, make_request):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    for _ in range(2):
        attachments.allocated(request, ([1, 2, 3],), external=attachments.matched("r", 0)[0])
        assert [type(load) for load in attachments.plan().loads] == [Load]


def test_nothing_is_loaded_when_the_cache_holds_it_all(attachments, make_request):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    attachments.allocated(request, ([1, 2],), external=0)
    assert attachments.plan().loads == ()


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "unknown name": ({"prefix": "nobody"}, {}),
    "a path": ({"prefix": "../support"}, {}),
    "no text": ({"prefix": ["support"]}, {}),
    "too long": ({"prefix": "long"}, {}),
    "prompt log-probabilities": ({"prefix": "support"}, {"sampling_params": SimpleNamespace(prompt_logprobs=0)}),
    "pooling": ({"prefix": "support"}, {"sampling_params": None}),
    "images": ({"prefix": "support"}, {"mm_features": [object()]}),
    "pieces": ({"prefix": "support"}, {"resumable": True}),
    "embeddings": ({"prefix": "support"}, {"prompt_embeds": torch.zeros(6, 4)}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_fails_on_its_first_step(attachments, make_request, case):
    transfer, changes = REFUSED[case]
    request = make_request("r", list(PROMPT), transfer=transfer)
    for name, value in ({"skip_reading_prefix_cache": True} | changes).items():
        if hasattr(request, name) and name != "mm_features":
            setattr(request, name, value)
    if "mm_features" in changes:
        request.mm_features = changes["mm_features"]
        # Blocks with images hash them too; ours has none that could be.
        request._block_hasher = None
    attachments.arrive(request)
    assert attachments.matched("r", 0) == (1, True)
    # Otherwise the scheduler would not ask for that token, and would compute an answer.
    assert request.skip_reading_prefix_cache is False
    attachments.allocated(request, ([1],), external=1)
    assert attachments.plan() == StepPlan(refused=("r",))
    attachments.leave("r")
    assert attachments.matched("r", 0) == (0, False)


def test_a_refused_request_finds_nothing_in_the_cache(attachments, make_request):
    plain = make_request("p", list(PROMPT), transfer=None)
    refused = [arrived(attachments, make_request(name, list(PROMPT), transfer={"prefix": "nobody"})) for name in "ab"]
    hashes = {bytes(request.block_hashes[0]) for request in (plain, *refused)}
    assert len(hashes) == 3 and refused[0].prompt_token_ids == PROMPT


def test_a_prefix_for_another_model_is_refused(store, make_prefix, model_config, make_request):
    store.publish(make_prefix())
    attachments = Attachments(names=Names(store), facts=ModelFacts.read(model_config(layers=3), None), placeholder=PLACEHOLDER)
    arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    assert attachments.matched("r", 0) == (1, True)


def test_requests_under_way_keep_the_version_they_came_with(attachments, make_request, store, make_prefix):
    old = arrived(attachments, make_request("old", list(PROMPT), transfer={"prefix": "support"}))
    store.publish(make_prefix("support", positions=3, seed=8))
    new = arrived(attachments, make_request("new", list(PROMPT), transfer={"prefix": "support"}))
    store.remove("support", all=True)
    gone = arrived(attachments, make_request("gone", list(PROMPT), transfer={"prefix": "support"}))
    assert attachments.matched("old", 0) == (5, False)
    assert attachments.matched("new", 0) == (3, False)
    assert attachments.matched("gone", 0) == (1, True)
    assert old.block_hashes[0] != new.block_hashes[0] and gone.prompt_token_ids == PROMPT


def test_usage_counts_what_the_client_sent(attachments, make_request):
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "support"}))
    request.prefill_stats.set(num_prompt_tokens=11, num_local_cached_tokens=4, num_external_cached_tokens=1)
    attachments.allocated(request, ([1, 2, 3],), external=1)
    stats = request.prefill_stats
    assert (stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_computed_tokens) == (6, 0, 6)
    stats.set(num_prompt_tokens=11, num_local_cached_tokens=8, num_external_cached_tokens=0)
    attachments.allocated(request, ([1, 2, 3],), external=0)
    assert (stats.num_prompt_tokens, stats.num_cached_tokens) == (6, 3)
    request.prefill_stats = None
    attachments.allocated(request, ([1, 2, 3],), external=0)


def test_a_start_of_text_is_dropped_behind_a_conversations_start(store, make_prefix, model_config, make_request):
    store.publish(make_prefix("whole"))
    store.publish(make_prefix("started", prompt_format="continuation"))
    facts = ModelFacts.read(model_config(), None)
    attachments = Attachments(names=Names(store), facts=facts, placeholder=PLACEHOLDER, start_token=PROMPT[0])

    def prompt(name: str, tokens: list[int]) -> list[int]:
        request = arrived(attachments, make_request(f"{name}-{len(tokens)}", tokens, transfer={"prefix": name}))
        assert request.num_prompt_tokens == len(request.prompt_token_ids) == len(request.all_token_ids)
        return list(request.all_token_ids)[5:]

    assert prompt("started", list(PROMPT)) == PROMPT[1:]
    assert prompt("started", PROMPT[1:]) == PROMPT[1:]
    assert prompt("started", PROMPT[:1]) == PROMPT[:1]
    assert prompt("whole", list(PROMPT)) == PROMPT


def test_a_prefix_of_no_positions_changes_nothing_but_the_salt(attachments, make_request, store, make_prefix):
    store.publish(make_prefix("empty", positions=0))
    request = arrived(attachments, make_request("r", list(PROMPT), transfer={"prefix": "empty"}))
    assert request.prompt_token_ids == PROMPT and attachments.matched("r", 0) == (0, False)

"""The document is sound, and whatever is sent by it is answered by it: a fuzz with schemathesis, the same requests each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from foreword.gateway.openapi import document
from foreword.gateway.tenants import admin_key
from foreword.prompting.store import PromptStore
from foreword.prompting.template import build

EXAMPLES = 15
MESSAGES = [{"role": "user", "content": "one two"}]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def fuzzed(begin_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with everything open."""
    prompts = PromptStore(tmp_path_factory.mktemp("prompts"))
    prompts.publish(build({"name": "desk", "messages": [{"role": "user", "content": "{{ question }}"}]}, source="test"))
    running = begin_server(admin_key=admin_key("key-of-admin"), prompts=prompts)
    yield running
    running.stop()


@schema.parametrize()
@FUZZ
def test_any_request_is_answered_as_documented(case: Any, fuzzed: Any):
    case.call_and_validate(base_url=fuzzed.url, checks=CHECKS, headers={"authorization": "Bearer key-of-admin"})


known = schemathesis.openapi.from_dict(document())
known.config.generation.update(modes=[schemathesis.GenerationMode.POSITIVE])
succeeded: Counter[str] = Counter()


@known.include(path_regex="^/(v1/.*s$|.*{)").parametrize()
@FUZZ
def test_requests_that_make_sense(case: Any, fuzzed: Any):
    """A model that there is, a conversation that ends with the user, and nothing that the engine says no to."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = {"model": "echo:support", "name": "support"}[name]
    is_chat = case.operation.path == "/v1/chat/completions"
    if isinstance(case.body, dict) and "model" in case.body:
        refused = (
            "tools",
            "tool_choice",
            "logit_bias",
            "guided_json",
            "guided_regex",
            "response_format",
            "suffix",
            "echo",
            "best_of",
            "n",
            "prompt",
        )
        case.body = {name: value for name, value in case.body.items() if name not in refused}
        case.body |= {"model": "echo:support"} | ({"messages": MESSAGES} if is_chat else {"prompt": "one two"})
    answer = case.call_and_validate(base_url=fuzzed.url, checks=CHECKS, headers={"authorization": "Bearer key-of-admin"})
    succeeded[case.operation.label] += answer.status_code == 200


by_strategy = schemathesis.openapi.from_dict(document())
by_strategy.config.generation.update(modes=[schemathesis.GenerationMode.POSITIVE])


@by_strategy.include(path="/v1/chat/completions").parametrize()
@FUZZ
def test_strategies_and_stored_prompts(case: Any, fuzzed: Any):
    kept = ("max_tokens", "temperature", "top_p", "stop", "seed", "stream", "stream_options", "top_k", "min_p", "user")
    prompt = {"id": "desk", "variables": {"question": "one two"}}
    case.body = {name: value for name, value in case.body.items() if name in kept} if isinstance(case.body, dict) else {}
    case.body |= {"model": "strategy:zero-shot(echo:support)", "prompt": prompt}
    answer = case.call_and_validate(base_url=fuzzed.url, checks=CHECKS, headers={"authorization": "Bearer key-of-admin"})
    succeeded["strategies"] += answer.status_code == 200


def test_enough_of_them_were_answered():
    wanted = (
        "strategies",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "GET /v1/models/{model}",
        "POST /admin/prefixes/{name}/load",
    )
    assert {label: succeeded[label] for label in wanted if succeeded[label] < 3} == {}


def test_the_document_is_served(fuzzed: Any):
    with fuzzed.http() as http:
        assert http.get("/openapi.json").json() == document()

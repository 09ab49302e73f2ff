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
def fuzzed(begin_server: Any) -> Any:
    """A server with everything open."""
    running = begin_server(admin_key=admin_key("key-of-admin"))
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
    if isinstance(case.body, dict) and "model" in case.body:
        refused = ("tools", "tool_choice", "logit_bias", "guided_json", "guided_regex", "response_format", "suffix", "echo", "best_of", "n")
        case.body = {name: value for name, value in case.body.items() if name not in refused}
        case.body |= {"model": "echo:support"} | ({"messages": MESSAGES} if "messages" in case.body else {"prompt": "one two"})
    answer = case.call_and_validate(base_url=fuzzed.url, checks=CHECKS, headers={"authorization": "Bearer key-of-admin"})
    succeeded[case.operation.label] += answer.status_code == 200


def test_enough_of_them_were_answered():
    wanted = ("POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models/{model}", "POST /admin/prefixes/{name}/load")
    assert {label: succeeded[label] for label in wanted if succeeded[label] < 3} == {}


def test_the_document_is_served(fuzzed: Any):
    with fuzzed.http() as http:
        assert http.get("/openapi.json").json() == document()

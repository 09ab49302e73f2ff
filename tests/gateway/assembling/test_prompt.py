"""Stored prompts before requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from foreword.gateway.assembling.prompt import Put, StoredPrompts, without_prompt
from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.tenants import Tenant
from foreword.prompting.store import PromptStore
from foreword.prompting.template import parse_toml
from walking import passage_of, settings_of

SUPPORT = """
name = "support"
[[messages]]
role = "system"
content = "You answer for {{ shop }}."
[[examples]]
user = "Where is my parcel?"
assistant = "On its way."
[variables]
shop = "Larkspur"
"""
ASKING = """
name = "asking"
[[messages]]
role = "user"
content = "Say in one word: {{ question }}"
"""


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    found = PromptStore(tmp_path / "prompts")
    for text in (SUPPORT, ASKING):
        found.publish(parse_toml(text, source="the test"))
    return found


def put(store: PromptStore | None, body: Any, standing: str | None = None, **more: Any) -> tuple[Put, Passage]:
    async def main() -> tuple[Put, Passage]:
        passage = passage_of(settings_of(), body, **more)
        return await StoredPrompts(store).put(passage, standing), passage

    return asyncio.run(main())


def texts(found: Put) -> list[str]:
    return [message.text for message in found.request.messages]


def test_the_prompt_of_the_task_type_stands_first(store: PromptStore) -> None:
    found, passage = put(store, "And mine?", "support")
    assert texts(found) == ["You answer for Larkspur.", "Where is my parcel?", "On its way.", "And mine?"]
    assert (found.count, passage.prompted, passage.prompt) == (3, 3, "support@v1")
    assert passage.told == {"foreword-prompt": "support@v1"}


def test_its_variables_are_in_the_metadata(store: PromptStore) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "metadata": {"shop": "Foxglove", "colour": "red"}}
    assert texts(put(store, body, "support")[0])[0] == "You answer for Foxglove."


def test_the_prompt_that_a_request_asks_for_goes_before_that_of_its_task_type(store: PromptStore) -> None:
    body = {"prompt": {"id": "asking", "version": "v1", "variables": {"question": "Why?"}}}
    found, passage = put(store, body, "support")
    assert texts(found) == ["Say in one word: Why?"]
    # The question is no part of what stands before it.
    assert (found.count, passage.prompted, passage.prompt) == (0, 0, "asking@v1")
    assert "prompt" not in {name for name in found.request.__struct_fields__ if getattr(found.request, name) == body["prompt"]}


def test_without_any_prompt_a_request_stays_as_it_is(store: PromptStore) -> None:
    found, passage = put(store, "Hello")
    assert found.request is passage.request and passage.prompt == ""


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"prompt": {"id": "suport"}}, 404, "Did you mean `support`"),
        ({"prompt": {"id": "asking"}}, 400, "question"),
        ({"prompt": {"id": "support"}}, 400, "ends without a turn of the user"),
        ({"prompt": {"id": "support", "variables": {"shp": "x"}}, "messages": [{"role": "user", "content": "Hi"}]}, 400, "shp"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(store: PromptStore, body: Any, status: int, told: str) -> None:
    with pytest.raises(Refusal, match=told) as refused:
        put(store, body)
    assert refused.value.status == status


def test_a_tenant_sees_its_own_prompts_and_the_task_types(store: PromptStore) -> None:
    import re

    tenant = Tenant(name="shop", patterns=(re.compile("asking"),))
    with pytest.raises(Refusal, match="No prompt is named"):
        put(store, {"prompt": {"id": "support"}}, tenant=tenant)
    assert put(store, "Hello", "support", tenant=tenant)[0].count == 3


def test_a_server_without_prompts_says_so() -> None:
    with pytest.raises(Refusal, match="no stored prompts"):
        put(None, {"prompt": {"id": "support"}})


def test_a_new_version_is_taken_at_once(store: PromptStore) -> None:
    async def main() -> list[str]:
        prompts, found = StoredPrompts(store), []
        for text in ("", "Be kind. "):
            if text:
                store.publish(parse_toml(SUPPORT.replace("You answer", f"{text}You answer"), source="the test"))
            found.append((await prompts.put(passage_of(settings_of(), "Hello"), "support")).request.messages[0].text)
        return found

    assert asyncio.run(main()) == ["You answer for Larkspur.", "Be kind. You answer for Larkspur."]


def test_a_prefix_takes_the_place_of_the_task_types_prompt(store: PromptStore) -> None:
    found, passage = put(store, "And mine?", "support")
    passage.request = found.request
    assert [message.text for message in without_prompt(passage, "small:support@prod").messages] == ["And mine?"]
    assert without_prompt(passage, "small") is passage.request

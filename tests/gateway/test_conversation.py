"""What was said, as requests write it. Stored prompts are tried in tests/gateway/test_prompts.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foreword.gateway.conversation import conversation_of
from foreword.gateway.errors import Refusal
from foreword.gateway.service import Service
from foreword.gateway.tenants import EVERYBODY
from foreword.gateway.wire import ChatRequest, InMessage, PromptCall, TextPart
from foreword.types import Message


@pytest.fixture
def service(server: Any) -> Service:
    return server.app.state.service


def test_turns_of_every_kind(service: Service):
    parts = [TextPart(type="text", text="and "), TextPart(type="text", text="now")]
    turns = [
        InMessage(role="developer", content="be brief"),
        InMessage(role="assistant", content="yes"),
        InMessage(role="user", content=parts),
    ]
    found = asyncio.run(conversation_of(service, ChatRequest(model="echo", messages=turns), EVERYBODY))
    assert found.messages == (
        Message(role="system", content="be brief"),
        Message(role="assistant", content="yes"),
        Message(role="user", content="and now"),
    )
    assert (found.shots, found.headers) == ((), {})


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (ChatRequest(model="echo"), 400, "messages"),
        (ChatRequest(model="echo", messages=[InMessage(role="system", content="x")]), 400, "messages[0].role"),
        (ChatRequest(model="echo", messages=[InMessage(role="user")]), 400, "messages[0].content"),
        (ChatRequest(model="echo", messages=[InMessage(role="user", content="x")], prompt=PromptCall(id="desk")), 404, "prompt"),
    ],
)
def test_what_is_refused(service: Service, body: ChatRequest, status: int, param: str):
    with pytest.raises(Refusal) as refused:
        asyncio.run(conversation_of(service, body, EVERYBODY))
    assert (refused.value.status, refused.value.detail.param) == (status, param)

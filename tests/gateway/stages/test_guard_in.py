"""`guard-in`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_wire import PathMessage
from foreword.gateway.stage import Next
from foreword.gateway.stages import guard_in
from walking import parts_of, passage_of, settings_of


async def hides(passage: Passage) -> None:
    hidden = tuple(PathMessage(role=message.role, content="hidden") for message in passage.request.messages)
    passage.request = msgspec.structs.replace(passage.request, messages=hidden)


async def refuses(passage: Passage) -> None:
    if passage.request.messages[0].text != "hidden":
        raise Refusal(400, "Not this.")


def walked(*guards: guard_in.Guard) -> Passage:
    async def main() -> Passage:
        settings = settings_of()
        passage = passage_of(settings, "My number is 7.")
        assert await guard_in.make(parts_of(settings), guards=guards)(passage) is Next.ON
        return passage

    return asyncio.run(main())


def test_without_filters_every_request_goes_on_as_it_is() -> None:
    passage = walked()
    assert passage.request is passage.asked


def test_filters_are_asked_in_their_order_and_may_change_the_request_or_refuse_it() -> None:
    passage = walked(hides, refuses)
    assert passage.request.messages[0].text == "hidden" and passage.asked.messages[0].text == "My number is 7."
    with pytest.raises(Refusal):
        walked(refuses, hides)

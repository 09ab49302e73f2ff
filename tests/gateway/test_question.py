"""The question of a request and its vector."""

from __future__ import annotations

import asyncio

import msgspec

from foreword.gateway.path_wire import PathMessage
from foreword.gateway.question import MOST_CHARACTERS, excerpt, question, question_vector
from walking import passage_of, settings_of
from word_vectors import WordVectors


def test_the_question_is_the_last_user_turn() -> None:
    async def main() -> list[str]:
        roles = [["user", "assistant"], ["system"], ["user", "user", "assistant", "tool"]]
        bodies = [{"messages": [{"role": role, "content": str(place)} for place, role in enumerate(each)]} for each in roles]
        return [question(passage_of(settings_of(), body).request) for body in bodies]

    assert asyncio.run(main()) == ["0", "", "1"]


def test_the_vector_is_made_again_where_the_words_were_replaced() -> None:
    async def main() -> None:
        embedder, passage = WordVectors(), passage_of(settings_of(), "my card 4111")
        first = question_vector(passage, embedder)
        assert question_vector(passage, embedder) is first
        passage.request = msgspec.structs.replace(passage.request, messages=(PathMessage(role="user", content="my card"),))
        assert (question_vector(passage, embedder) == embedder.embed(["my card"])[0]).all()

    asyncio.run(main())


def test_of_a_long_text_both_ends_count() -> None:
    text = "a" * MOST_CHARACTERS + "b"
    assert excerpt(text) == "a" * (MOST_CHARACTERS // 2) + " " + "a" * (MOST_CHARACTERS // 2 - 1) + "b"
    assert excerpt("short") == "short"

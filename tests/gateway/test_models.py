"""What can be asked."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from foreword.prompting import strategy


def test_every_prefix_and_alias_is_listed(client: Any, server: Any, prefix_named: Any):
    cards = {card.id: card for card in client.models.list()}
    plain = {"echo", "echo:anna", "echo:ben", "echo:support", "echo:support@prod"}
    assert set(cards) == plain | {f"strategy:{key}(echo)" for key in strategy.names()}
    assert {cards[name].parent for name in set(cards) - plain} == {"echo"}
    assert cards["echo"].parent is None and cards["echo:anna"].parent == "echo"
    assert all(card.object == "model" and card.owned_by == "foreword" and card.created > 0 for card in cards.values())
    server.store.publish(prefix_named("later"))
    assert "echo:later" in [card.id for card in client.models.list()]
    server.store.remove("later", all=True)
    assert "echo:later" not in [card.id for card in client.models.list()]


@pytest.mark.parametrize(
    "name",
    [
        "echo",
        "echo:support",
        "echo:support@prod",
        "echo:support+anna",
        "strategy:zero-shot(echo)",
        "strategy:zero-shot(echo:support+anna, instruction=Be brief)",
    ],
)
def test_one(client: Any, name: str):
    assert client.models.retrieve(name).id == name


def test_an_unknown_one(client: Any):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("echo:nobody")


def test_a_name_with_a_slash(http: Any):
    answer = http.get("/v1/models/org/model")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import ConfigError
from foreword.gateway.budgets import LIGHTER
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import PathSettings, build_settings
from foreword.gateway.routing.fitting import fit
from foreword.gateway.stages import route
from paths import ServedPath, serving_path
from routed_questions import question, table
from upstreams import answer, refuse, upstream
from walking import NOWHERE, close, parts_of, passage_of
from word_vectors import WordVectors

EMBEDDER = WordVectors()
EASY, HARD = question("easy", 900_000), question("hard", 900_000)
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
"""At the small model's price 0.0012, at the strong one's 0.024."""
STAGES = ["intake", "route", "infer", "check", "bill"]


@pytest.fixture(scope="module")
def router_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("router") / "router.safetensors"
    fit(table(), EMBEDDER).router.write(path)
    return path


def fields(router_file: Path | None = None, *, urls: tuple[str, str] = (NOWHERE, NOWHERE), **task: Any) -> dict[str, Any]:
    """Two models and a default task type on both."""
    found: dict[str, Any] = {
        "models": {
            "small": {"url": urls[0], "model": "small", "retries": 0, "price": {"input_per_million": "1", "output_per_million": "2"}},
            "strong": {"url": urls[1], "model": "strong", "retries": 0, "price": {"input_per_million": "20", "output_per_million": "40"}},
        },
        "tasks": {"default": {"tiers": ["small", "strong"], **task}},
    }
    return found | ({} if router_file is None else {"router_model": str(router_file)})


def walked(settings: PathSettings, body: dict[str, Any] | str, *, degraded: tuple[str, ...] = (), embedder: Any = EMBEDDER) -> Passage:
    """A passage that went through the stage."""

    async def walk() -> Passage:
        parts = parts_of(settings, embedder=embedder)
        try:
            stage = route.make(parts)
            passage = passage_of(settings, body)
            passage.degraded.extend(degraded)
            await stage(passage)
            return passage
        finally:
            await close(parts)

    return asyncio.run(walk())


def built(settings: dict[str, Any]) -> PathSettings:
    return build_settings(settings, source="the test")


def test_without_a_router_tiers_stand_in_their_order():
    passage = walked(built(fields()), HARD)
    assert passage.tiers == ["small", "strong"]
    assert passage.told["foreword-route"] == "first"


def test_a_model_that_is_named_is_the_only_one(router_file: Path):
    settings = built(fields(router_file, router="learned"))
    for name in ("strong", "small:support@prod"):
        passage = walked(settings, {"model": name, "messages": [{"role": "user", "content": EASY}]})
        assert passage.tiers == [name]
        assert "foreword-route" not in passage.told


def test_the_learned_router_begins_where_a_success_can_be_expected(router_file: Path):
    settings = built(fields(router_file, router="learned"))
    easy, hard = walked(settings, EASY), walked(settings, HARD)
    assert easy.tiers == ["small", "strong"]
    assert hard.tiers == ["strong"]
    for passage in (easy, hard):
        how, _, probability = passage.told["foreword-route"].partition(" p=")
        assert how == "learned"
        assert 0.6 < float(probability) <= 1


def test_only_the_last_user_turn_counts(router_file: Path):
    turns = [{"role": "user", "content": HARD}, {"role": "assistant", "content": HARD}, {"role": "user", "content": EASY}]
    assert walked(built(fields(router_file, router="learned")), {"messages": turns}).tiers == ["small", "strong"]


def test_a_request_without_words_is_routed_too(router_file: Path):
    assert walked(built(fields(router_file, router="learned")), {"messages": [{"role": "system", "content": "Hi."}]}).tiers[-1] == "strong"


def test_a_budget_leaves_only_the_cheapest(router_file: Path):
    passage = walked(built(fields(router_file, router="learned")), HARD, degraded=(LIGHTER,))
    assert passage.tiers == ["small"]
    assert passage.told["foreword-route"] == LIGHTER
    assert walked(built(fields()), HARD, degraded=("fewer passages",)).tiers == ["small", "strong"]


def test_a_task_type_with_some_of_the_tiers(router_file: Path):
    assert walked(built(fields(router_file, router="learned", tiers=["strong"])), EASY).tiers == ["strong"]


def test_what_a_learned_router_needs(router_file: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="`router_model` names no router"):
        walked(built(fields(router="learned")), EASY)
    with pytest.raises(ConfigError, match="needs an embedder"):
        walked(built(fields(router_file, router="learned")), EASY, embedder=None)
    with pytest.raises(ConfigError, match="cannot be read"):
        walked(built(fields(tmp_path / "none.safetensors", router="learned")), EASY)
    with pytest.raises(ConfigError, match=r"The router knows small, strong, and `tasks\.default\.tiers` has `small:support`"):
        walked(built(fields(router_file, router="learned", tiers=["small:support", "strong"])), EASY)


def test_a_router_that_nobody_wants_is_not_read(tmp_path: Path):
    assert walked(built(fields(tmp_path / "none.safetensors")), EASY).tiers == ["small", "strong"]


# On the whole path.


@contextmanager
def path(router_file: Path, *, small: Any = None, strong: Any = None, **task: Any) -> Any:
    """A served path with the learned router and an upstream for each model."""
    with upstream(small or answer("Blue.", usage=USAGE)) as one, upstream(strong or answer("A proof.", usage=USAGE)) as other:
        urls = (one.url, other.url)
        settings = fields(router_file, urls=urls, router="learned", **task) | {"stages": STAGES}
        with serving_path(settings, embedder=EMBEDDER) as served:
            yield served


def savings(served: ServedPath) -> dict[str, Decimal]:
    return {row["lever"]: row["amount"] for row in served.one_entry()["savings"]}


def test_what_a_cheaper_tier_spared_is_written_down(router_file: Path):
    with path(router_file) as served:
        answered = served.ask(EASY)
        assert answered.headers["foreword-model"] == "small"
        assert answered.headers["foreword-route"].startswith("learned p=")
        assert savings(served) == {"route": Decimal("0.0240") - Decimal("0.0012")}


def test_of_a_stream_too(router_file: Path):
    with path(router_file) as served:
        assert served.ask(EASY, stream=True).status_code == 200
        assert savings(served) == {"route": Decimal("0.0228")}


def test_the_dearest_tier_spares_nothing(router_file: Path):
    with path(router_file) as served:
        assert served.ask(HARD).headers["foreword-model"] == "strong"
        assert savings(served) == {}


def test_a_client_that_chose_spared_nothing_by_routing(router_file: Path):
    with path(router_file) as served:
        assert served.ask(EASY, model="small").status_code == 200
        assert savings(served) == {}


def test_a_cheap_tier_that_was_asked_in_vain_is_a_loss(router_file: Path):
    with path(router_file, strong=answer("billing", usage=USAGE), check={"labels": ["billing", "login"], "at_least": 1.0}) as served:
        assert served.ask(EASY).headers["foreword-model"] == "strong"
        assert savings(served) == {"route": Decimal("-0.0012")}


def test_what_failed_spared_nothing(router_file: Path):
    with path(router_file, small=refuse(400), strong=refuse(400)) as served:
        assert served.ask(EASY).status_code == 400
        assert savings(served) == {}

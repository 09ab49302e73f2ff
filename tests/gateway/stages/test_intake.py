"""`intake`: task type by header, metadata, rule and likeness; priority, deadline and user."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.errors import ConfigError
from foreword.gateway.errors import Refusal
from foreword.gateway.intake.training import train
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import PathSettings
from foreword.gateway.question import question_vector
from foreword.gateway.stages.intake import make
from foreword.store.database import open_database
from foreword.telemetry.capture import read
from walking import close, parts_of, passage_of, settings_of
from word_vectors import WordVectors

TASKS: dict[str, Any] = {
    "billing": {"rules": ["(?i)refund", "invoice"], "seconds": 20, "priority": 3},
    "login": {"rules": ["(?i)pass ?word"]},
}


class CountingVectors(WordVectors):
    """Counts what it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []

    def embed(self, texts: Any) -> np.ndarray:
        self.embedded += texts
        return super().embed(texts)


def taken_in(settings: PathSettings, body: Any, *, embedder: Any = None, **more: Any) -> tuple[Passage, float]:
    """A passage behind `intake`, and how many seconds it has."""

    async def main() -> tuple[Passage, float]:
        parts = parts_of(settings, embedder=embedder)
        passage = passage_of(settings, body, **more)
        await make(parts)(passage)
        left = passage.deadline - asyncio.get_running_loop().time()
        await close(parts)
        return passage, left

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "task"),
    [("A REFUND please", "billing"), ("my Pass word", "login"), ("invoice and password", "billing"), ("hello", "default"), ("", "default")],
)
def test_the_first_type_whose_rule_matches_is_taken(text: str, task: str) -> None:
    passage, _ = taken_in(settings_of(TASKS), text)
    assert passage.task.name == task
    assert passage.told["foreword-task"] == task


def test_the_last_user_turn_counts() -> None:
    turns = [("user", "refund"), ("assistant", "password?"), ("user", "hello"), ("assistant", "invoice")]
    passage, _ = taken_in(settings_of(TASKS), {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert passage.task.name == "default"


def test_header_and_metadata_go_before_rules() -> None:
    body = {"messages": [{"role": "user", "content": "refund"}], "metadata": {"task": "login"}}
    assert taken_in(settings_of(TASKS), body)[0].task.name == "login"
    assert taken_in(settings_of(TASKS), body, headers={"foreword-task": "default"})[0].task.name == "default"


def test_an_unknown_type_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Refusal, match=r"no task type `sales`\. There are: billing, default, login") as refused:
        taken_in(settings_of(TASKS), "hello", headers={"foreword-task": "sales"})
    assert refused.value.status == 400 and refused.value.detail.param == "metadata.task"


def intake_model(tmp_path: Path, embedder: Any) -> Path:
    lines = {
        "billing": ["pay my bill", "the bill is too high", "bill from March", "whose bill"],
        "login": ["cannot sign in", "sign in fails", "sign me in", "where to sign in"],
    }
    texts = [text for of in lines.values() for text in of]
    path = tmp_path / "intake.json"
    train(texts, [label for label, of in lines.items() for _ in of], embedder).file.write(path)
    return path


def test_without_a_rule_the_likest_type_is_taken(tmp_path: Path) -> None:
    settings = settings_of(TASKS, intake_model=str(intake_model(tmp_path, WordVectors())))
    found = {
        text: taken_in(settings, text, embedder=WordVectors())[0].task.name for text in ("that bill", "sign in", "zebra", "sign a refund")
    }
    assert found == {"that bill": "billing", "sign in": "login", "zebra": "default", "sign a refund": "billing"}


def test_a_question_is_embedded_once_and_only_where_it_is_needed(tmp_path: Path) -> None:
    settings = settings_of(TASKS, intake_model=str(intake_model(tmp_path, WordVectors())))
    embedder = CountingVectors()
    passage, _ = taken_in(settings, "that bill", embedder=embedder)
    assert (question_vector(passage, embedder) == WordVectors().embed(["that bill"])[0]).all()
    assert embedder.embedded == ["that bill"]
    taken_in(settings, "refund", embedder=embedder)
    taken_in(settings, "whatever", embedder=embedder, headers={"foreword-task": "login"})
    assert embedder.embedded == ["that bill"]


def test_the_model_must_fit_the_settings(tmp_path: Path) -> None:
    path = str(intake_model(tmp_path, WordVectors()))
    with pytest.raises(ConfigError, match="needs an embedder"):
        make(parts_of(settings_of(TASKS, intake_model=path)))
    with pytest.raises(ConfigError, match="knows the task type `login`, and `tasks` does not"):
        make(parts_of(settings_of({"billing": {}}, intake_model=path), embedder=WordVectors()))


def test_a_type_brings_its_deadline_and_priority() -> None:
    passage, left = taken_in(settings_of(TASKS), "refund")
    assert passage.priority == 3 and 0 < left <= 20


def test_a_request_may_ask_for_less_time_and_lower_priority() -> None:
    passage, left = taken_in(settings_of(TASKS), "refund", headers={"foreword-deadline": "1.5", "foreword-priority": "-2"})
    assert passage.priority == -2 and 0 < left <= 1.5
    assert passage.told.keys() == {"foreword-task"}


def test_a_request_that_asks_for_more_gets_the_most_and_is_told() -> None:
    passage, left = taken_in(settings_of(TASKS), "refund", headers={"foreword-deadline": "1e9", "foreword-priority": "9"})
    assert passage.priority == 3 and left <= 20
    assert passage.told["foreword-deadline"] == "20" and passage.told["foreword-priority"] == "3"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("foreword-deadline", value) for value in ("0", "-1", "nan", "inf", "soon", "")),
        *(("foreword-priority", value) for value in ("1.5", "high", "", "9" * 30)),
        *(("foreword-user", value) for value in ("two words", "x" * 129, "")),
    ],
)
def test_a_header_that_is_wrong_is_named(header: str, value: str) -> None:
    with pytest.raises(Refusal) as refused:
        taken_in(settings_of(TASKS), "hello", headers={header: value})
    assert refused.value.status == 400 and refused.value.detail.param == header


def test_the_user_of_the_body_goes_before_the_header() -> None:
    assert taken_in(settings_of(TASKS), "hello", headers={"foreword-user": "u-1"})[0].user == "u-1"


def test_nothing_is_captured_unless_it_is_asked_for(tmp_path: Path) -> None:
    passage, _ = taken_in(settings_of(TASKS), "hello")
    assert passage.afterwards == []


def test_failures_are_captured_and_of_the_rest_a_share(tmp_path: Path) -> None:
    place = tmp_path / "captures.sqlite"
    settings = settings_of({"never": {"capture_share": 0}, "always": {"capture_share": 1}}, store={"capture": str(place)})

    async def main() -> None:
        parts = parts_of(settings)
        stage = make(parts)
        for number, (task, status, success) in enumerate(
            [("never", "answered", None), ("never", "failed", None), ("never", "answered", False), ("always", "answered", True)]
        ):
            passage = passage_of(settings, "write to jo@example.org", headers={"foreword-task": task}, id=f"id-{number}")
            await stage(passage)
            passage.status, passage.success = status, success
            for after in passage.afterwards:
                await after()
        await close(parts)

    asyncio.run(main())
    database = open_database(place)
    found = list(read(database))
    database.close()
    assert [captured.id for captured in found] == ["id-1", "id-2", "id-3"]
    assert found[0].messages == [{"role": "user", "content": "write to [email]"}]
    assert b"jo@example.org" not in place.read_bytes()

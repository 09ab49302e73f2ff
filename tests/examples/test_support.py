"""The support example keeps the rules that its README states."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from foreword.data.similarity import resemblance
from foreword.evaluate.scorer import Outcome
from foreword.evaluate.scorers import fields
from foreword.evaluate.task import SuccessRule, load_task

OPENINGS = {
    "orders": "Thanks for asking about",
    "returns": "Sorry about",
    "repair": "Sorry to hear about",
    "billing": "Thanks for raising",
    "account": "Thanks for writing about",
    "advice": "Good question about",
}
CLOSINGS = {
    "orders": "We will check your order and send an update today.",
    "returns": "Send us a photo and we will email you a return label.",
    "repair": "Stop using it and we will call you to book a repair.",
    "billing": "Our billing team will check it and write back tomorrow.",
    "account": "We will confirm it is you and put it right today.",
    "advice": "Our barista team will send you a short guide.",
}
FORMAT = re.compile(
    r"QUEUE: (?P<queue>\w+) \| URGENCY: (?P<urgency>low|normal|high) \| "
    r"REPLY: (?P<opening>[^|]+?) the (?P<item>[^,.|]+?)(?:, (?P<name>[A-Z]\w+))?\. (?P<closing>[^|]+\.)"
)
SIGNATURE = re.compile(r"(?P<name>\w+)(?: xx)?\.?$")
NO_HURRY = re.compile(r"no(?:t in any)? hurry|hurry (?:at all|whatsoever)|not? (?:rush|urgent)|low priority|not in a hurry", re.IGNORECASE)
DEADLINE = re.compile(r"\btomorrow\b|\btonight\b", re.IGNORECASE)
NEAR = 0.5
SPLITS = ("train", "dev")
Row = dict[str, str]


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "examples" / "support"


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, list[Row]]:
    return {split: read(folder / f"{split}.jsonl") for split in SPLITS}


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def parts(row: Row) -> Row:
    match = FORMAT.fullmatch(row["completion"])
    assert match, f"not in the house format: {row['completion']!r}"
    return match.groupdict()


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_in_the_house_format(rows: dict[str, list[Row]], split: str) -> None:
    for row in rows[split]:
        assert row.keys() == {"prompt", "completion"}
        answer = parts(row)
        assert answer["opening"] == OPENINGS[answer["queue"]], row
        assert answer["closing"] == CLOSINGS[answer["queue"]], row


@pytest.mark.parametrize("split", SPLITS)
def test_the_item_is_in_the_customers_words(rows: dict[str, list[Row]], split: str) -> None:
    for row in rows[split]:
        said = re.findall(r"[\w']+", row["prompt"].lower())
        item = re.findall(r"[\w']+", parts(row)["item"].lower())
        assert 1 <= len(item) <= 4, row
        for word in item:
            assert any(other[:4] == word[:4] for other in said) or difflib.get_close_matches(word, said, cutoff=0.75), (word, row)


@pytest.mark.parametrize("split", SPLITS)
def test_the_reply_names_whoever_signed(rows: dict[str, list[Row]], split: str) -> None:
    for row in rows[split]:
        name, signature = parts(row)["name"], SIGNATURE.search(row["prompt"])
        if name:
            assert signature and signature["name"].capitalize() == name, row
        else:
            assert not re.search(r"[.!?)] +[A-Z]?\w+\.?$", row["prompt"]), f"signed, yet no name in the reply: {row}"


@pytest.mark.parametrize("split", SPLITS)
def test_urgency_follows_its_rule_where_plain_words_show_it(rows: dict[str, list[Row]], split: str) -> None:
    for row in rows[split]:
        answer, prompt = parts(row), row["prompt"]
        if DEADLINE.search(prompt):
            assert answer["urgency"] == "high", row
        elif NO_HURRY.search(prompt):
            assert answer["urgency"] == "low", row
        if answer["queue"] == "advice":
            assert answer["urgency"] != "normal", row


def test_queues_are_balanced_and_every_urgency_occurs(rows: dict[str, list[Row]]) -> None:
    for split, fewest in (("train", 50), ("dev", 15)):
        answers = [parts(row) for row in rows[split]]
        queues, urgencies = Counter(a["queue"] for a in answers), Counter(a["urgency"] for a in answers)
        assert queues.keys() == OPENINGS.keys()
        assert min(queues.values()) >= fewest
        assert max(queues.values()) <= 1.2 * min(queues.values())
        assert min(urgencies[level] for level in ("low", "normal", "high")) >= len(answers) * 0.15


def test_no_message_is_given_twice_or_nearly(rows: dict[str, list[Row]]) -> None:
    prompts = [row["prompt"] for split in SPLITS for row in rows[split]]
    found = resemblance(prompts, threshold=NEAR)
    assert found.first_equal == tuple(range(len(prompts)))
    assert [(prompts[pair.first], prompts[pair.second]) for pair in found.pairs] == []


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_short(rows: dict[str, list[Row]], split: str) -> None:
    for row in rows[split]:
        assert 4 <= len(row["prompt"].split()) <= 60, row
        assert len(row["completion"]) <= 160, row


@pytest.mark.parametrize("split", SPLITS)
def test_the_classification_variant_has_the_same_messages(folder: Path, rows: dict[str, list[Row]], split: str) -> None:
    wanted = [{"text": row["prompt"], "label": parts(row)["queue"]} for row in rows[split]]
    assert read(folder / "queues" / f"{split}.jsonl") == wanted


def test_the_scorer_reads_queue_and_urgency(rows: dict[str, list[Row]]) -> None:
    row = rows["dev"][0]
    assert [key for key, _ in fields.parse(row["completion"])] == ["QUEUE", "URGENCY", "REPLY"]


def test_the_tasks_load(folder: Path, rows: dict[str, list[Row]]) -> None:
    for task, kind in ((load_task(folder), "generation"), (load_task(folder / "queues"), "classification")):
        assert task.kind == kind
        assert (len(task.train), len(task.dev)) == (len(rows["train"]), len(rows["dev"]))
    assert load_task(folder).success == SuccessRule(scorer="fields", at_least=1.0)
    assert load_task(folder / "queues").labels == tuple(OPENINGS)


def test_the_wanted_answers_are_successes(folder: Path) -> None:
    task = load_task(folder)
    examples = task.dev.examples
    outcome = Outcome(
        answers=tuple(example.completions[0] for example in examples),
        references=tuple(example.completions for example in examples),
        prompts=tuple(example.prompt for example in examples),
    )
    assert task.successes({"fields": fields.score(outcome)}).all()


def test_the_readme_states_the_openings_and_closings(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert [queue for queue in OPENINGS if f"| {OPENINGS[queue]} | {CLOSINGS[queue]} |" not in text] == []

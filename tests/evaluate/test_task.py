from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreword.data.reading import from_rows
from foreword.errors import DataError, EvaluationError
from foreword.evaluate.scorer import corpus_score, mean_score
from foreword.evaluate.task import SuccessRule, Task, load_task, make_task

LABELLED = [{"text": "refund please", "label": "billing"}, {"text": "no password", "label": "login"}]
PROSE = [{"prompt": "name[Aromi]", "completion": ["Aromi.", "It is Aromi."]}, {"prompt": "name[Cotto]", "completion": "Cotto."}]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path, toml: str = "", *, train: list[dict] | None = None, dev: list[dict] | None = None) -> Path:
    write_rows(folder / "train.jsonl", train or LABELLED)
    write_rows(folder / "rows/dev.jsonl", dev or train or LABELLED)
    (folder / "task.toml").write_text(f'train = "train.jsonl"\ndev = "rows/dev.jsonl"\n{toml}', encoding="utf-8")
    return folder


def test_a_classification_gets_its_defaults(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path / "support"))
    assert (task.name, task.kind, task.instruction, task.labels) == ("support", "classification", None, ("billing", "login"))
    assert (task.scorers, task.primary) == (("accuracy", "macro-f1"), "macro-f1")
    assert task.success == SuccessRule(scorer="accuracy", at_least=1)
    assert (task.max_new_tokens, task.needs, len(task.train), len(task.dev)) == (16, frozenset(), 2, 2)


def test_a_generation_gets_its_defaults(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path / "e2e", train=PROSE))
    assert (task.kind, task.labels, task.scorers, task.primary) == ("generation", None, ("bleu", "rouge-l"), "bleu")
    assert task.success == SuccessRule(scorer="rouge-l", at_least=0.5)
    assert task.max_new_tokens == 128
    assert task.dev.examples[0].completions == ("Aromi.", "It is Aromi.")


def test_every_key_is_heard(tmp_path: Path) -> None:
    task = load_task(
        write_task(
            tmp_path,
            'name = "facts"\nkind = "generation"\ninstruction = "Say it."\nscorers = ["slots", "nist"]\nprimary = "nist"\n'
            'success = { scorer = "slots", at_least = 1 }\nmax_new_tokens = 9\n',
            train=PROSE,
        )
    )
    assert (task.name, task.instruction, task.primary, task.max_new_tokens) == ("facts", "Say it.", "nist", 9)
    assert (task.scorers, task.success) == (("slots", "nist"), SuccessRule(scorer="slots", at_least=1))


def test_the_file_itself_may_be_named(tmp_path: Path) -> None:
    assert load_task(write_task(tmp_path / "support") / "task.toml").name == "support"


def test_scorers_without_a_primary_take_the_default_or_the_first(tmp_path: Path) -> None:
    assert load_task(write_task(tmp_path, 'scorers = ["rouge-l", "bleu"]\n', train=PROSE)).primary == "bleu"
    task = load_task(write_task(tmp_path, 'scorers = ["cider", "nist"]\n', train=PROSE))
    assert (task.primary, task.scorers) == ("cider", ("cider", "nist", "rouge-l"))


def test_needs_are_those_of_the_scorers(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, 'scorers = ["label-likelihood-calibrated", "perplexity"]\n'))
    assert task.needs == {"label_log_probs", "prior_log_probs", "target_log_probs"}


def test_labels_name_integer_labels(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    task = load_task(write_task(tmp_path, 'labels = ["hate", "neither"]\n', train=rows))
    assert task.labels == ("hate", "neither")
    assert [example.completions[0] for example in task.train] == ["neither", "hate"]


def test_labels_that_are_numbers_stand_for_themselves(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 2}, {"text": "b", "label": "1"}]
    task = load_task(write_task(tmp_path, 'labels = ["1", "2"]\n', train=rows))
    assert [example.completions[0] for example in task.train] == ["2", "1"]


def test_a_dev_label_that_training_lacks_is_an_error(tmp_path: Path) -> None:
    dev = [{"text": "x", "label": "billing"}, {"text": "y", "label": "loginn"}]
    with pytest.raises(DataError, match=r"(?s)rows/dev\.jsonl.*line 2.*loginn"):
        load_task(write_task(tmp_path, dev=dev))


def test_one_file_of_dev_rows_with_training_rows(tmp_path: Path) -> None:
    dev, train = write_rows(tmp_path / "mine.jsonl", LABELLED), write_rows(tmp_path / "more.jsonl", LABELLED * 2)
    task = load_task(dev, train=train, instruction="Which queue?")
    assert (task.name, task.instruction, len(task.train), len(task.dev)) == ("mine", "Which queue?", 4, 2)
    with pytest.raises(EvaluationError, match="Give the training rows"):
        load_task(dev)
    with pytest.raises(EvaluationError, match=r"`train` of the task is .*none\.jsonl"):
        load_task(dev, train=tmp_path / "none.jsonl")


def test_a_folder_takes_no_second_training_file(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="says itself"):
        load_task(write_task(tmp_path), train="other.jsonl")


def test_a_name_is_found_under_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path / "examples/support")
    monkeypatch.chdir(tmp_path)
    assert load_task("support").name == "support"
    with pytest.raises(EvaluationError, match=r"no task `suport`.*tasks/suport/task\.toml.*Tasks here: support"):
        load_task("suport")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("epochs = 3\n", r"(?s)epochs: Extra inputs.*Keys are: train, dev"),
        ('kind = "regression"\n', "kind: Input should be"),
        ("max_new_tokens = 0\n", "max_new_tokens: "),
        ("scorers = []\n", "scorers: "),
        ('labels = ["a", "a"]\n', "has `a` twice"),
        ('success = { scorer = "accuracy" }\n', r"success\.at_least: Field required"),
        ('success = { scorer = "accuracy", at_least = nan }\n', r"success\.at_least: "),
        ("kind = \n", "not valid TOML"),
        ('scorers = ["blue"]\n', "(?s)No `blue` among scorers.*bleu"),
        ('success = { scorer = "macro-f1", at_least = 1 }\n', "a success by `macro-f1`, which gives single rows no number"),
        ('success = { scorer = "perplexity", at_least = 1 }\n', "a success by `perplexity`"),
        ('kind = "generation"\n', "is a generation, and its training data .* is a classification"),
        ('train = "train.jsonl"\n', "not valid TOML"),  # given twice
    ],
)
def test_a_task_file_that_cannot_be_used_says_why(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        load_task(write_task(tmp_path, toml))


def test_label_scorers_need_labels(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no labels, which the scorer `label-likelihood` needs"):
        load_task(write_task(tmp_path, 'scorers = ["label-likelihood"]\n', train=PROSE))


def test_a_missing_data_file_is_named_with_its_folder(tmp_path: Path) -> None:
    write_task(tmp_path).joinpath("train.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"`train` of the task is `train\.jsonl`, and there is no file"):
        load_task(tmp_path)


def test_a_task_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    write_task(tmp_path).joinpath("task.toml").write_bytes('instruction = "café"'.encode("latin-1"))
    with pytest.raises(EvaluationError, match="not UTF-8"):
        load_task(tmp_path)


def make() -> Task:
    return make_task("memory", train=from_rows(PROSE), dev=from_rows(PROSE), scorers=["rouge-l"])


def test_successes_apply_the_rule_to_rows() -> None:
    task = make()
    scores = {"bleu": corpus_score(lambda rows: 3.0, 3), "rouge-l": mean_score(np.array([0.49, 0.5, 1.0]))}
    assert task.primary == "rouge-l"
    assert task.successes(scores).tolist() == [False, True, True]


def test_a_task_made_by_hand_is_checked_too() -> None:
    task = make()
    fields = {name: getattr(task, name) for name in Task.__dataclass_fields__}
    with pytest.raises(EvaluationError, match="uses the scorer `bleu`, which is not among"):
        Task(**{**fields, "primary": "bleu"})


def test_a_task_names_a_verifier_and_tools_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    lines = 'train = "rows.jsonl"\ndev = "rows.jsonl"\n'
    (tmp_path / "task.toml").write_text(lines + 'verifier = "json-object"\ntools = ["calculator"]\n')
    task = load_task(tmp_path)
    assert (task.verifier, task.tools) == ("json-object", ("calculator",))
    for wrong, says in (
        ('verifier = "oracle"', "no `oracle` among verifiers. Known: .*json-object"),
        ('tools = ["hammer"]', "no `hammer` among tools"),
    ):
        (tmp_path / "task.toml").write_text(lines + wrong)
        with pytest.raises(EvaluationError, match=says):
            load_task(tmp_path)

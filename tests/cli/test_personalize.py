"""`foreword personalize`: publishing for each user, going on, what is told, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from foreword.api import load
from foreword.prefix.store import PrefixStore

QUICK = ("--positions", 4, "--start", "text:Answer in one word.", "--examples-seen", 8, "--batch", 2, "--dtype", "float32")


@pytest.fixture
def letters(rows: Any) -> Path:
    """Six rows of Ana, five of Bert, one of Cleo and one of nobody."""
    owners = ["ana"] * 6 + ["Bert"] * 5 + ["cleo"]
    content = [{"user": user, "prompt": f"name {number}", "completion": f"yes, {user}"} for number, user in enumerate(owners)]
    return rows("letters.jsonl", [*content, {"prompt": "whose?", "completion": "nobody's"}])


def test_each_user_gets_a_prefix(foreword: Any, tiny: Path, letters: Path, home: Path):
    result = foreword("personalize", "--data", letters, "--name", "letters", "--model", tiny, "--licence", "CC0-1.0", *QUICK)
    assert result.exit_code == 0, result.stderr
    store = PrefixStore(home / "prefixes")
    assert [listing.name for listing in store.list()] == ["letters-ana", "letters-bert"]
    header = store.header("letters-bert@v1")
    assert (header.positions, header.licence, header.recipe["user"]) == (4, "CC0-1.0", "Bert")
    for user, name, count in (("ana", "letters-ana", 6), ("Bert", "letters-bert", 5)):
        line = next(line for line in result.stdout.splitlines() if f" {user} " in line)
        quality = store.header(name).quality
        shown = [cell.strip() for cell in line.strip("│").split("│")]
        assert shown == [user, str(count), f"{quality['dev_loss_at_start']:.3f}", f"{quality['dev_loss']:.3f}", "4", f"{name}@v1"]
    assert "skipped: has 1 row; at least 2 are needed" in result.stdout
    assert "3 users: 2 trained, 1 skipped." in result.stdout
    assert "1 row without a user is left out" in result.stderr and "training users 1 to 2 of 2" in result.stderr
    assert "Try: foreword generate 'name 0' --prefix letters-ana" in result.stderr


def test_one_json_line_and_a_second_run_that_keeps(foreword: Any, tiny: Path, letters: Path, tmp_path: Path):
    words = ("personalize", "--data", letters, "--name", "letters", "--model", tiny, "--root", tmp_path / "store", "--json", *QUICK)
    outcomes = []
    for more in ((), ("--users-at-once", 1), ("--fresh",)):
        result = foreword(*words, *more)
        assert result.exit_code == 0, result.stderr
        found = json.loads(result.stdout)["users"]
        outcomes.append([(user["user"], user["outcome"], user["reference"]) for user in found])
        assert Path(found[0]["path"]).is_file() and found[0]["loss_after"] <= found[0]["loss_before"]
    first = [("ana", "trained", "letters-ana@v1"), ("Bert", "trained", "letters-bert@v1"), ("cleo", "skipped", None)]
    assert outcomes[0] == first
    assert outcomes[1] == [(user, outcome.replace("trained", "kept"), reference) for user, outcome, reference in first]
    assert outcomes[2] == [(user, outcome, reference and reference.replace("v1", "v2")) for user, outcome, reference in first]


def test_behind_a_task_the_next_command_composes(foreword: Any, tiny: Path, letters: Path, home: Path, tmp_path: Path):
    (tmp_path / "task.txt").write_text("You answer letters in one word.")
    assert foreword("compile", tmp_path / "task.txt", "-o", "task", "--chat", "--model", tiny, "--dtype", "float32").exit_code == 0
    words = ("personalize", "--data", letters, "--name", "letters", "--model", tiny, *QUICK, "--behind", "prefix:task")
    result = foreword(*words, "--budget-seconds", "1h")
    assert result.exit_code == 0, result.stderr
    task, own = (PrefixStore(home / "prefixes").header(name) for name in ("task", "letters-ana"))
    assert own.first_position == task.positions and own.sink == 0
    tried = next(line for line in result.stderr.splitlines() if line.startswith("Try: ")).removeprefix("Try: ")
    compose, generate = tried.split(" && ")
    assert compose == "foreword prefix compose task letters-ana -o task+letters-ana"
    assert foreword(*compose.split()[1:]).exit_code == 0
    assert generate == "foreword generate 'name 0' --prefix task+letters-ana"
    words = ("generate", "name 0", "--prefix", "task+letters-ana", "--model", tiny, "--dtype", "float32", "--max-new-tokens", 2)
    assert foreword(*words).exit_code == 0


def test_a_long_table_is_cut_and_says_so(foreword: Any, tiny: Path, rows: Any):
    owners = [f"u{number:03}" for number in range(101)]
    content = [{"user": user, "prompt": f"p{number}", "completion": "x"} for user in owners for number in range(2)]
    words = ("--name", "x", "--model", tiny, "--positions", 2, "--start", "text:One.", "--examples-seen", 1, "--dtype", "float32")
    result = foreword("personalize", "--data", rows("many.jsonl", content), *words)
    assert result.exit_code == 0, result.stderr
    assert " u099 " in result.stdout and " u100 " not in result.stdout
    assert "101 users: 101 trained; the first 100 are shown, --json has all." in result.stdout


def test_a_user_whose_training_fails_is_told_and_ends_with_1(foreword: Any, tiny: Path, letters: Path, tmp_path: Path):
    broken = shutil.copytree(tiny, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    # One user alone writes a token whose embedding is infinite.
    (token,) = load(str(tiny), dtype="float32").engine.encode("Z")
    weights["model.embed_tokens.weight"][token] = float("inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with letters.open("a") as file:
        file.writelines(json.dumps({"user": "zoe", "prompt": f"Z {number}", "completion": "yes"}) + "\n" for number in range(3))
    result = foreword("personalize", "--data", letters, "--name", "letters", "--model", broken, *QUICK, "--json")
    assert result.exit_code == 1, result.stderr
    found = {user["user"]: user for user in json.loads(result.stdout)["users"]}
    assert found["zoe"]["outcome"] == "failed" and "the dev loss became nan" in found["zoe"]["reason"]
    assert found["zoe"]["reference"] is None and found["ana"]["outcome"] == "trained"
    assert "User zoe: the dev loss became nan" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "No"), "`No` cannot name a prefix"),
        (("--budget", "soon"), "'soon' is no time above zero"),
        (("--positions", "0"), "--positions"),
        (("--users-at-once", "0"), "--users-at-once"),
        (("--learning-rate", "-1"), "`learning-rate`"),
        (("--device", "toaster"), "There is no device `toaster`"),
        (("--data", "missing.jsonl"), "There is no file `missing.jsonl`"),
    ],
)
def test_bad_options_end_before_the_model_is_loaded(foreword: Any, letters: Path, options: tuple[str, ...], message: str):
    result = foreword("personalize", "--data", letters, "--name", "letters", "--model", "/never/loaded", *options)
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""


def test_users_that_cannot_have_prefixes_end_before_the_model_is_loaded(foreword: Any, rows: Any):
    content = [{"user": user, "prompt": f"p{number}", "completion": "x"} for user in ("Ana", "ana", "☃") for number in range(2)]
    result = foreword("personalize", "--data", rows("clash.jsonl", content), "--name", "letters", "--model", "/never/loaded")
    assert result.exit_code == 2
    assert "users `Ana` and `ana` would both be `letters-ana`" in result.stderr and "`☃` has no letter" in result.stderr


def test_data_without_users(foreword: Any, train: Path):
    result = foreword("personalize", "--data", train, "--name", "letters", "--model", "/never/loaded")
    assert result.exit_code == 2 and "names a user" in result.stderr and "foreword tune" in result.stderr


def test_bad_rows_can_be_left_out(foreword: Any, tiny: Path, letters: Path):
    letters.write_text('{"user": "ana", "prompt": "a"}\n' + letters.read_text())
    words = ("personalize", "--data", letters, "--name", "letters", "--model", tiny, *QUICK)
    refused = foreword(*words)
    assert refused.exit_code == 2 and "line 1: missing field `completion`" in refused.stderr
    skipped = foreword(*words, "--on-bad", "skip")
    assert skipped.exit_code == 0, skipped.stderr
    assert "1 rows cannot be used and are left out (lines 1)" in skipped.stderr


def test_a_start_that_does_not_exist(foreword: Any, tiny: Path, letters: Path):
    words = ("personalize", "--data", letters, "--name", "letters", "--model", tiny, *QUICK)
    result = foreword(*words, "--start", "prefix:nothing")
    assert result.exit_code == 2 and "No prefix is named `nothing`" in result.stderr


def test_the_help_has_examples(foreword: Any):
    result = foreword("personalize", "--help")
    assert result.exit_code == 0 and "Examples:\n    foreword personalize" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100

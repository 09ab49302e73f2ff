from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.data.dataset import Dataset
from foreword.errors import EvaluationError, StoreError
from foreword.evaluate.measuring import ORPHANED, Finding, Job, is_out_of_memory, mean_prior, peak_memory, run
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.types import Example, Message


def row(number: int, answer: str) -> Example:
    return Example(messages=(Message(role="user", content=f"case {number}"),), completions=(answer, f"{answer}!"), line=number)


def label_row(number: int) -> Example:
    return Example(messages=(Message(role="user", content=f"case {number}"),), completions=("no" if number % 2 else "yes",), line=number)


@pytest.fixture
def prose() -> Task:
    return make_task(
        "prose",
        train=Dataset.of([row(number, "fine") for number in range(8)]),
        dev=Dataset.of([row(number, "fine") for number in range(8, 11)]),
        instruction="Say it.",
        scorers=["exact-match", "perplexity"],
        primary="perplexity",
        success=SuccessRule(scorer="exact-match", at_least=1),
        max_new_tokens=5,
    )


@pytest.fixture
def choice() -> Task:
    labels = ("yes", "no")
    return make_task(
        "choice",
        train=Dataset.of([label_row(number) for number in range(8)], labels=labels),
        dev=Dataset.of([label_row(number) for number in range(8, 12)], labels=labels),
        scorers=["accuracy", "label-likelihood-calibrated"],
        primary="accuracy",
    )


def job(task: Task, model: Path, spec: str = "zero-shot", **fields: Any) -> Job:
    settings = {"dtype": "float32", "device": "cpu", "budget_seconds": 0.1, "seed": 0, "clock": "wall", "store_root": None} | fields
    return Job(spec=spec, model=str(model), task=task, **settings)


def test_a_generation_is_written_down_row_by_row(prose: Task, tiny_model_folder, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    finding = run(job(prose, tiny_model_folder("llama")), scratch=tmp_path, progress=lambda *stage: told.append(stage))
    assert len(finding.answers) == len(finding.prompt_tokens) == len(finding.completion_tokens) == len(finding.machine_seconds) == 3
    assert all(0 <= tokens <= 5 for tokens in finding.completion_tokens)
    assert len(finding.latency_seconds) == 3
    assert (finding.prefix_positions, finding.label_log_probs, finding.prior_log_probs) == (0, None, None)
    assert (finding.dtype, finding.device) == ("float32", "cpu")
    assert finding.peak_memory_bytes >= finding.training_memory_bytes > 10_000_000
    assert ("answering", 3, 3) in told and ("measuring latency", 3, 3) in told
    outcome = finding.outcome(prose)
    assert outcome.references == (("fine", "fine!"),) * 3
    assert outcome.target_log_probs is not None


def test_reference_log_probs_are_the_engines(prose: Task, tiny_model_folder, tmp_path: Path) -> None:
    from foreword import registry
    from foreword.engine import Row

    finding = run(job(prose, tiny_model_folder("llama")), scratch=tmp_path, progress=lambda *stage: None)
    engine = registry.find("foreword.engines", "transformers").load(str(tiny_model_folder("llama")), dtype="float32", device="cpu")
    example = prose.dev.examples[1]
    prompt = engine.render((Message(role="system", content="Say it."), *example.messages))
    expected = [engine.target_log_probs([Row(prompt=prompt, targets=(engine.answer_ids(text),))]) for text in example.completions]
    assert finding.target_log_probs is not None
    assert finding.target_log_probs[1] == pytest.approx([value for part in expected for value in part.tolist()], abs=1e-4)
    assert finding.prompt_tokens[1] == len(prompt)


def test_a_classification_ranks_the_labels(choice: Task, tiny_model_folder, tmp_path: Path) -> None:
    finding = run(job(choice, tiny_model_folder("llama"), "few-shot:2"), scratch=tmp_path, progress=lambda *stage: None)
    assert finding.label_log_probs is not None and finding.prior_log_probs is not None
    assert finding.answers == tuple(("yes", "no")[int(np.argmax(scores))] for scores in finding.label_log_probs)
    assert sum(math.exp(value) for value in finding.prior_log_probs) == pytest.approx(1)
    assert finding.target_log_probs is None


def test_a_finding_survives_json_even_with_infinities(choice: Task, tiny_model_folder, tmp_path: Path) -> None:
    finding = run(job(choice, tiny_model_folder("llama")), scratch=tmp_path, progress=lambda *stage: None)
    odd = finding.model_copy(update={"label_log_probs": ((-math.inf, -1.0),) * 4})
    assert Finding.model_validate(json.loads(json.dumps(odd.model_dump()))) == odd


def test_an_error_is_raised_in_process(choice: Task, tiny_model_folder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        run(
            job(choice, tiny_model_folder("llama"), "prefix:nowhere", store_root=tmp_path / "store"),
            scratch=tmp_path,
            progress=lambda *stage: None,
        )


def test_the_prior_is_the_mean_distribution() -> None:
    log_probs = np.log([[0.2, 0.6], [0.05, 0.05]])
    np.testing.assert_allclose(np.exp(mean_prior(log_probs)), [(0.25 + 0.5) / 2, (0.75 + 0.5) / 2])
    assert np.isfinite(mean_prior(np.array([[0.0, -5000.0]]))).all()


def test_running_out_of_memory_is_told_from_a_bug() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    held = bytearray(before + 50_000_000)
    held[::4096] = b"\1" * len(held[::4096])
    assert peak_memory() >= before + 50_000_000


def test_a_contender_does_not_outlive_its_parent() -> None:
    code = (
        "import time; from foreword.evaluate.measuring import end_with_parent; end_with_parent(); print('up', flush=True); time.sleep(120)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=60) == ORPHANED


def test_a_classification_is_written_where_labels_cannot_be_ranked(choice: Task, tmp_path: Path) -> None:
    def found(spec: str, name: str) -> Finding:
        folder = tmp_path / name
        folder.mkdir()
        labels_alone = dataclasses.replace(choice, scorers=("accuracy",))
        return run(job(labels_alone, Path("echo:echo"), spec), scratch=folder, progress=lambda *stage: None)

    contender, strategy = found("zero-shot", "contender"), found("strategy:zero-shot", "strategy")
    assert contender.answers == strategy.answers == tuple(example.prompt for example in choice.dev)
    assert contender.label_log_probs is None and contender.asked is None
    assert strategy.asked is not None and [row.calls for row in strategy.asked] == [1] * 4
    assert contender.prompt_tokens == strategy.prompt_tokens


def test_what_must_train_is_refused_on_an_engine_that_only_answers(prose: Task, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="`lora` needs a model that can be trained"):
        run(job(prose, Path("scripted:arithmetic"), "lora"), scratch=tmp_path, progress=lambda *stage: None)

from __future__ import annotations

import pytest
from pydantic import ValidationError

from foreword.evaluate.row import Asking, ContenderRow, Estimate, Measured

RATE = Estimate(value=0.5, low=0.4, high=0.6)
OLD = {
    "quality": RATE,
    "scores": {"bleu": 0.5},
    "successes": 5,
    "success_rate": RATE,
    "trained_parameters": 0,
    "artifact_bytes": 0,
    "prefix_positions": 32,
    "prompt_tokens": 40.0,
    "completion_tokens": 20.0,
    "latency_seconds": 0.1,
    "training_seconds": 0.0,
    "training_memory_bytes": 0,
    "peak_memory_bytes": 0,
    "machine_seconds_per_request": 0.1,
    "machine_seconds_per_success": 0.2,
    "cost_per_request": None,
    "cost_per_success": None,
    "training_cost": None,
    "against_reference": None,
    "dtype": "float32",
    "notes": (),
    "sample_answers": (),
}


def test_a_result_from_before_strategies_has_one_call_and_one_answer() -> None:
    row = Measured(**OLD)
    assert (row.first_answer, row.any_of_k, row.calls, row.tokens, row.prompt_positions) == (RATE, RATE, 1.0, 60.0, 72.0)
    assert not ContenderRow(contender="lora", failed="no").strategy


def test_what_was_asked_is_told_apart() -> None:
    other = Estimate(value=0.7, low=0.6, high=0.8)
    asking = Asking(first_answer=RATE, any_of_k=other, answers=4, calls=4.5, statuses={"answered": 10})
    row = Measured(**OLD, asking=asking)
    assert (row.any_of_k, row.calls) == (other, 4.5)
    assert Measured.model_validate_json(row.model_dump_json()) == row


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Measured(**OLD, price=1)

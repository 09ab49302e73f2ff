"""Whole runs on a tiny model: what is trained, what is kept, and what is said when something is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from foreword.data.dataset import Dataset
from foreword.errors import DataError, NonFiniteLoss, OutOfMemory, TuningError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.tuning.dev_loss import DevLoss
from foreword.tuning.tuner import tune
from foreword.types import Example, Message


def with_fields(settings, **fields):
    return settings.model_copy(update=fields)


def judged(engine, prefix, dev) -> float:
    """The dev loss of a prefix as it is served."""
    made = DevLoss(engine, dev, prompt_format=prefix.header.prompt_format, room=engine.window // 2, limit=1000, seed=0)
    return made(prefix.key_LHND, prefix.value_LHND)


@pytest.fixture(scope="module")
def tuned(engine, texts, held_out, short, watcher_class):
    watcher = watcher_class()
    return tune(engine, texts, held_out, short, observer=watcher), watcher


# --- a run -----------------------------------------------------------------------------------------------------


def test_the_loss_falls(tuned):
    result, watcher = tuned
    losses = [record["loss"] for record in result.history]
    assert losses == watcher.losses and len(losses) == 9
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert watcher.dev[-1][1] < watcher.dev[0][1]


def test_the_prefix_says_where_it_comes_from(engine, tuned, texts, short):
    header = tuned[0].prefix.header
    engine.check(tuned[0].prefix)
    assert (header.kind, header.positions, header.prompt_format, header.seed) == ("learned", 8, "continuation", 0)
    assert header.training_data == texts.sha256 and header.instruction == "Say it."
    assert header.recipe["settings"] == short.model_dump(mode="json")
    assert header.recipe["candidate"]["initialisation"] == short.initialisation and header.recipe["stopped"] is None


def test_examples_seen_are_those_asked_for(tuned):
    result, watcher = tuned
    assert result.prefix.header.recipe["targets_seen"] == watcher.done[-1] == watcher.plans[-1] == 72
    assert [record["targets"] for record in result.history] == [8] * 9


def test_the_prefix_has_the_dev_loss_that_it_claims(engine, tuned, held_out):
    prefix = tuned[0].prefix
    assert judged(engine, prefix, held_out) == pytest.approx(prefix.header.quality["dev_loss"], rel=1e-5)


def test_no_weight_gradient_is_ever_allocated(engine, texts, held_out, short, watcher_class):
    def check(step: int) -> None:
        weights = [*engine.module.parameters(), *engine.module.buffers()]
        assert weights and all(weight.grad is None and not weight.requires_grad for weight in weights)

    before = {name: weight.clone() for name, weight in engine.module.state_dict().items()}
    tune(engine, texts, held_out, short, observer=watcher_class(check))
    assert all(torch.equal(weight, before[name]) for name, weight in engine.module.state_dict().items())


def test_the_same_seed_gives_the_same_prefix_bit_for_bit(engine, texts, held_out, short, tuned, same):
    torch.manual_seed(99)  # the run draws from its own generators alone
    again = tune(engine, texts, held_out, short).prefix
    other = tune(engine, texts, held_out, with_fields(short, seed=1)).prefix
    assert same(again, tuned[0].prefix) and again.header.digest == tuned[0].prefix.header.digest
    assert not same(other, again)


def test_a_larger_seed_than_any_generator_takes_is_refused():
    from pydantic import ValidationError

    from foreword.tuning.settings import TuneSettings

    assert TuneSettings(seed=2**32 - 1).seed == 2**32 - 1
    with pytest.raises(ValidationError, match="seed"):
        TuneSettings(seed=2**32)


@pytest.mark.parametrize("initialisation", ["few-shot:1", "random", "few-shot:0"])
def test_each_start_trains(engine, texts, held_out, short, initialisation):
    result = tune(engine, texts, held_out, with_fields(short, initialisation=initialisation))
    losses = [record["loss"] for record in result.history]
    assert sum(losses[-3:]) < sum(losses[:3]) and result.prefix.positions == 8


def test_a_prefix_is_tuned_further(engine, texts, held_out, short, tuned, tmp_path):
    parent = tuned[0].prefix
    parent.save(tmp_path / "parent.safetensors")
    settings = with_fields(short, initialisation=f"prefix:{tmp_path / 'parent.safetensors'}", positions=None)
    result = tune(engine, texts, held_out, settings)
    assert result.prefix.header.parents == (parent.header.digest,) and result.prefix.positions == 8
    assert result.prefix.header.quality["dev_loss"] < parent.header.quality["dev_loss"]


def test_the_network_trains_and_is_dropped(engine, texts, held_out, short, tmp_path):
    from safetensors import safe_open

    result = tune(engine, texts, held_out, with_fields(short, parameterisation="mlp", learning_rate=0.01))
    losses = [record["loss"] for record in result.history]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert judged(engine, result.prefix, held_out) == pytest.approx(result.prefix.header.quality["dev_loss"], rel=1e-5)
    result.prefix.save(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"key_LHND", "value_LHND"}
    assert Prefix.load(tmp_path / "x.safetensors").positions == 8


def test_checkpointing_gives_the_same_prefix(engine, texts, held_out, short, tuned):
    result = tune(engine, texts, held_out, with_fields(short, checkpointing=True))
    torch.testing.assert_close(result.prefix.key_LHND, tuned[0].prefix.key_LHND, rtol=1e-3, atol=1e-3)
    assert "forward" not in vars(engine.module.model.layers[0])  # the model is as it was


def test_a_half_precision_model_gets_a_half_precision_prefix(engine_of, texts, held_out, short):
    engine = engine_of("llama", dtype="bfloat16")
    result = tune(engine, texts, held_out, short)
    assert result.prefix.header.dtype == "bfloat16"
    assert judged(engine, result.prefix, held_out) == pytest.approx(result.prefix.header.quality["dev_loss"], rel=1e-5)


# --- probes ----------------------------------------------------------------------------------------------------


def test_probes_are_halved_and_the_winner_trains_on(engine, labelled, contested, watcher_class):
    watcher = watcher_class()
    result = tune(engine, labelled, labelled, contested, observer=watcher)
    steps = {}
    for record in result.history:
        steps.setdefault(record["candidate"], []).append(record["step"])
    assert len(steps) > 1 and all(taken == list(range(1, len(taken) + 1)) for taken in steps.values())
    assert sorted(len(taken) for taken in steps.values())[-1] == 10 == result.prefix.header.recipe["steps"]
    assert sum(len(taken) == 10 for taken in steps.values()) == 1
    # The three examples in a start, one for each label, are not trained on.
    assert watcher.plans[-1] == result.prefix.header.recipe["targets_seen"] == 21 * len(result.history)
    assert watcher.stages[0].startswith("probing") and watcher.stages[-1].startswith("training")


def test_probes_keep_their_rate_at_its_peak(engine, labelled, contested):
    result = tune(engine, labelled, labelled, contested)
    probed = max(record["step"] for record in result.history if sum(r["step"] == record["step"] for r in result.history) > 1)
    peaks = {record["candidate"]: record["learning_rate"] for record in result.history}
    for record in result.history:
        peaks[record["candidate"]] = max(peaks[record["candidate"]], record["learning_rate"])
    warm = 3
    assert all(r["learning_rate"] == peaks[r["candidate"]] for r in result.history if warm <= r["step"] <= probed)
    assert result.history[-1]["learning_rate"] < max(peaks.values()) / 2


def test_a_probe_that_is_not_finite_loses(engine, labelled, contested, objective, watcher_class):
    watcher = watcher_class()
    name = objective("return lm.loss(engine, rows, key_LHND, value_LHND) * (float('nan') if STEP == 1 else 1)")
    result = tune(engine, labelled, labelled, with_fields(contested, objective=name), observer=watcher)
    assert result.stopped is None and max(record["step"] for record in result.history) == 10
    assert 0 not in {record["candidate"] for record in result.history}  # its first step was never finished
    assert any("The loss became nan" in note for note in watcher.notes)
    assert result.prefix.header.quality["dev_loss"] < 20


def test_a_search_in_which_every_probe_fails_says_why(engine, labelled, contested, objective):
    name = objective("return lm.loss(engine, rows, key_LHND, value_LHND) * float('inf')")
    with pytest.raises(NonFiniteLoss, match=r"The loss became inf .* No checkpoint was worth keeping"):
        tune(engine, labelled, labelled, with_fields(contested, objective=name))


# --- best, patience, failure -----------------------------------------------------------------------------------


@pytest.fixture
def wild(short, objective):
    """Learns for five steps, then unlearns."""
    name = objective("return lm.loss(engine, rows, key_LHND, value_LHND) * (-1 if STEP > 5 else 1)")
    return with_fields(short, objective=name, evaluations=9)


def test_the_best_checkpoint_is_kept(engine, texts, held_out, wild, watcher_class):
    watcher = watcher_class()
    prefix = tune(engine, texts, held_out, wild, observer=watcher).prefix
    losses = [loss for _, loss in watcher.dev]
    assert losses[-1] > min(losses)  # it did get worse
    assert prefix.header.quality["dev_loss"] == min(losses) == losses[prefix.header.recipe["best_step"] - 1]
    assert judged(engine, prefix, held_out) == pytest.approx(min(losses), rel=1e-5)


def test_a_run_that_gets_no_better_stops_early(engine, texts, held_out, wild, watcher_class):
    watcher = watcher_class()
    result = tune(engine, texts, held_out, with_fields(wild, patience=2, examples_seen=400, evaluations=50), observer=watcher)
    losses = [loss for _, loss in watcher.dev]
    assert result.stopped == "no improvement in 2 evaluations" == result.prefix.header.recipe["stopped"]
    assert len(losses) < 50 and losses.index(min(losses)) == len(losses) - 3
    assert all(min(losses[max(0, end - 2) : end]) < min(losses[: max(0, end - 2)], default=1e9) for end in range(1, len(losses)))


def test_a_loss_that_turns_nan_stops_with_the_best_so_far(engine, texts, held_out, short, objective, watcher_class):
    watcher = watcher_class()
    name = objective("return lm.loss(engine, rows, key_LHND, value_LHND) * (float('nan') if STEP > 7 else 1)")
    settings = with_fields(short, objective=name)
    result = tune(engine, texts, held_out, settings, observer=watcher)
    assert "The loss became nan" in result.stopped and "at step 8" in result.stopped and "--learning-rate" in result.stopped
    assert "best prefix so far, of step 6, is kept" in result.stopped
    assert result.prefix.header.quality["dev_loss"] == watcher.dev[-1][1] and result.prefix.header.recipe["best_step"] == 6
    assert len(result.history) == 7 and any("nan" in note for note in watcher.notes)


def test_a_prefix_that_overflows_is_not_kept(engine_of, texts, held_out, short):
    with pytest.raises(NonFiniteLoss, match=r"--learning-rate.*No checkpoint was worth keeping"):
        tune(engine_of("llama", dtype="float16"), texts, held_out, with_fields(short, learning_rate=1e6))


@pytest.mark.parametrize(
    "raised", ["MemoryError()", 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9 bytes")']
)
def test_out_of_memory_says_what_to_lower(engine, texts, held_out, short, objective, raised):
    with pytest.raises(OutOfMemory, match=r"--micro-tokens.*--checkpointing.*--positions"):
        tune(engine, texts, held_out, with_fields(short, objective=objective(f"raise {raised}")))


def test_another_error_that_speaks_of_memory_is_passed_on(engine, texts, held_out, short, objective):
    name = objective("raise RuntimeError('tensors refer to a single memory location')")
    with pytest.raises(RuntimeError, match="single memory location"):
        tune(engine, texts, held_out, with_fields(short, objective=name))


# --- data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_examples_are_refused(engine, texts, short, count):
    with pytest.raises(TuningError, match=f"texts.jsonl has {count} usable example"):
        tune(engine, texts.with_examples(texts.examples[:count]), None, short)


def test_two_examples_are_enough(engine, texts, short):
    result = tune(engine, texts.with_examples(texts.examples[:2]), None, short)
    assert result.prefix.header.recipe["targets_seen"] == 2 * 9


def test_without_dev_data_some_are_set_aside(engine, texts, short, watcher_class):
    watcher = watcher_class()
    prefix = tune(engine, texts, None, short, observer=watcher).prefix
    assert any("of 24 examples were set aside" in note for note in watcher.notes)
    assert prefix.header.training_data != texts.sha256


def test_very_few_examples_are_chosen_on_themselves(engine, texts, short, watcher_class):
    watcher = watcher_class()
    few = texts.with_examples(texts.examples[:6])
    assert tune(engine, few, None, short, observer=watcher).prefix.header.training_data == few.sha256
    assert any("only 6 examples" in note for note in watcher.notes)


def test_dev_data_are_judged_between_all_labels(engine, labelled, short, watcher_class):
    only_good = [example for example in labelled if example.completions[0] == "good"]
    watchers = [watcher_class(), watcher_class()]
    for watcher, labels in zip(watchers, (("good",), ("mixed", "good", "bad")), strict=True):
        tune(engine, labelled, Dataset.of(only_good, labels=labels), short, observer=watcher)
    assert watchers[0].dev == watchers[1].dev and watchers[0].dev[0][1] > 0


def test_a_label_that_training_lacks_is_named(engine, labelled, short):
    dev = Dataset.of([replace(labelled.examples[0], completions=("ugly",))], labels=("good", "ugly"), path="dev.csv")
    with pytest.raises(DataError, match=r"dev\.csv has labels that labelled\.jsonl lacks: ugly"):
        tune(engine, labelled, dev, short)


@pytest.fixture
def with_long(texts):
    """The texts and, in line 99, one that the window cannot hold."""
    long = Example(messages=(Message(role="user", content="long " * 300),), completions=("Yes.",), line=99)
    wordy = Example(messages=(Message(role="user", content="Eagle"),), completions=("many words " * 200,), line=100)
    return texts.with_examples([*texts.examples, long, wordy])


@pytest.mark.parametrize("lines", [[99], [100]])
def test_a_long_example_is_named_by_its_line(engine, with_long, held_out, short, lines):
    data = with_long.with_examples([example for example in with_long if example.line < 99 or example.line in lines])
    with pytest.raises(WindowError, match=rf"Line {lines[0]}: .*--on-long skip"):
        tune(engine, data, held_out, short)


@pytest.mark.parametrize("on_long, targets", [("skip", 21), ("truncate", 22)])
def test_long_examples_are_skipped_or_truncated_as_asked(engine, with_long, held_out, short, watcher_class, on_long, targets):
    watcher = watcher_class()
    settings = with_fields(short, on_long=on_long, initialisation="few-shot:3", batch_targets=100, examples_seen=200)
    result = tune(engine, with_long, held_out, settings, observer=watcher)
    assert [record["targets"] for record in result.history] == [targets] * 2  # without the three in the start
    assert any("too long (lines 99, 100)" in note for note in watcher.notes)


def test_a_long_dev_example_is_left_out_and_told(engine, texts, with_long, short, watcher_class):
    watcher = watcher_class()
    tune(engine, texts, with_long, short, observer=watcher)
    assert "2 dev examples are too long and are left out." in watcher.notes


# --- budget and folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["texts", "labelled"])
@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_a_budget_cuts_the_plan(engine, short, task, clock, request):
    data = request.getfixturevalue(task)
    free = with_fields(short, learning_rate=None, initialisation="auto", examples_seen=800)
    tight = with_fields(free, budget_seconds=0.2, budget_clock=clock)
    assert tune(engine, data, data, tight).prefix.header.recipe["steps"] < 100 == 800 // 8


def test_a_budget_is_no_reason_to_see_more_than_was_asked_for(engine, texts, held_out, short):
    result = tune(engine, texts, held_out, with_fields(short, budget_seconds=500.0))
    assert result.prefix.header.recipe["steps"] == 9


def test_a_run_folder_tells_the_run(engine, texts, held_out, short, tuned, tmp_path, same):
    result = tune(engine, texts, held_out, short, run_folder=tmp_path / "run")
    assert same(result.prefix, tuned[0].prefix)
    folder = tmp_path / "run"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log == list(result.history)
    done = json.loads((folder / "done.json").read_text())
    assert done["quality"] == result.prefix.header.quality and done["positions"] == 8 and done["targets_seen"] == 72
    curves = json.loads((folder / "curves.json").read_text())
    (curve,) = curves["candidates"].values()
    assert len(curve["train"]) == 9 and [step for step, _ in curve["dev"]] == [3, 6, 9]
    assert json.loads((folder / "config.json").read_text())["settings"] == short.model_dump(mode="json")
    assert not (folder / "state.safetensors").exists()


def test_curves_of_a_failed_probe_are_strict_json(engine, labelled, contested, objective, tmp_path):
    name = objective("return lm.loss(engine, rows, key_LHND, value_LHND) * (float('nan') if STEP == 1 else 1)")
    tune(engine, labelled, labelled, with_fields(contested, objective=name), run_folder=tmp_path)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    json.loads((tmp_path / "curves.json").read_text(), parse_constant=refuse)

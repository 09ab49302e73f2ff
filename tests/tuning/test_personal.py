"""One prefix per user, trained together: each gets what training alone would give, and the store what a restarted run need not repeat."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from foreword.data.dataset import Dataset
from foreword.errors import DataError, PrefixMismatch, StoreError, TuningError, WindowError
from foreword.prefix.artifact import Prefix
from foreword.prefix.operations import compose, shift
from foreword.prefix.store import PrefixStore
from foreword.tuning.objectives import lm
from foreword.tuning.parameters import ScaledOffsets
from foreword.tuning.personal import personalize, users_at_once
from foreword.tuning.personal_settings import PersonalSettings
from foreword.tuning.personal_users import gather, prefix_name, user_seed
from foreword.tuning.rows import encode_examples
from foreword.tuning.trainer import BatchOrder, Schedule, Trainer
from foreword.types import Example, Message

STYLES = {"ana": "Bye, Ana", "Bert": "Yours, B.", "cleo@home": "C."}
NAMES = ("Aromi", "Eagle", "Vaults", "Cotto", "Zizzi", "Clowns", "Wrestlers")


def example(user, prompt, *completions, line=0):
    return Example(messages=(Message(role="user", content=prompt),), completions=completions, user=user, line=line)


def of_user(user, rows):
    return [example(user, name, f"{name} is good. {STYLES.get(user, user)}", line=line) for line, name in enumerate(NAMES[:rows], start=1)]


def only(dataset, *users):
    return dataset.with_examples(row for row in dataset if row.user in users)


def with_fields(settings, **fields):
    return settings.model_copy(update=fields)


def by_user(results):
    return {result.user: result for result in results}


@pytest.fixture(scope="module")
def letters():
    """Seven rows of Ana, six of Bert and three of Cleo, who has no rows to spare for choosing."""
    rows = [*of_user("ana", 7), *of_user("Bert", 6), *of_user("cleo@home", 3)]
    return Dataset.of(rows[::2] + rows[1::2], path="letters.jsonl")


def text_prefix(engine, name, token_ids):
    key_LHND, value_LHND = engine.read(token_ids)
    return Prefix.make(
        name=name,
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
    )


@pytest.fixture(scope="module")
def first_guess(engine, tmp_path_factory):
    """A file of four positions, so that no row of the data has a say in where users start."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    text_prefix(engine, "start", engine.encode("Answer in one sentence.")[:4]).save(path)
    return path


@pytest.fixture(scope="module")
def brief(first_guess):
    """Six steps of about two targets for each user."""
    return PersonalSettings(
        name="letters",
        positions=4,
        start=f"prefix:{first_guess}",
        learning_rate=0.3,
        examples_seen=12,
        batch_targets=2,
        evaluations=3,
    )


@pytest.fixture(scope="module")
def together(engine, letters, brief):
    return by_user(personalize(engine, letters, brief))


@pytest.fixture
def store(tmp_path):
    return PrefixStore(tmp_path / "store")


@pytest.fixture(scope="module")
def task(engine):
    """A prefix to stand in front."""
    return text_prefix(engine, "task", engine.render_context((Message(role="system", content="You write letters."),)))


def loss_of(engine, prefix, data):
    """Mean negative log-likelihood per target token, computed for this prefix alone."""
    rows = encode_examples(engine, data.examples, prompt_format=prefix.header.prompt_format, room=400).rows
    log_probs = engine.target_log_probs(rows, prefix.keys(), prefix.values())
    return -float(log_probs.mean())


# --- users and their names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("ana", "letters-ana"),
        ("Ana María", "letters-ana-maria"),
        ("4711", "letters-4711"),
        ("a.b_c-d@example.org", "letters-a.b_c-d-example.org"),
        ("  (x)  ", "letters-x"),
        ("Jürgen ☃ 7", "letters-jurgen-7"),
    ],
)
def test_a_users_id_becomes_a_name_that_a_store_allows(user, name):
    assert prefix_name("letters", user) == name


@pytest.mark.parametrize(("user", "reason"), [("☃", "no letter a to z and no digit"), ("x" * 70, "shorter id")])
def test_an_id_that_cannot_name_a_prefix_is_refused(user, reason):
    with pytest.raises(DataError, match=reason):
        prefix_name("letters", user)


def test_ids_that_would_share_a_name_are_named(letters):
    clash = letters.with_examples([*letters.examples, *of_user("Ana", 2), *of_user("☃", 2)])
    with pytest.raises(DataError, match=r"(?s)`ana` and `Ana` would both be `letters-ana`.*`☃` has no letter"):
        gather(clash, name="letters", seed=0)


def test_rows_are_parted_by_user(letters):
    data = letters.with_examples([*letters.examples, *of_user("dora", 1), example(None, "Who?", "Nobody.")])
    found = gather(data, name="letters", seed=0)
    assert {user.user: (user.name, user.rows) for user in found.users} == {
        "ana": ("letters-ana", 7),
        "cleo@home": ("letters-cleo-home", 3),
        "Bert": ("letters-bert", 6),
    }
    assert found.too_few == (("dora", 1),) and found.nobodys == 1


@pytest.mark.parametrize(("rows", "held_out"), [(2, 0), (4, 0), (5, 1), (14, 1), (26, 3), (2000, 128)])
def test_a_tenth_of_the_rows_chooses(rows, held_out):
    data = Dataset.of([example("ana", f"prompt {number}", "yes") for number in range(rows)])
    (user,) = gather(data, name="x", seed=0).users
    if not held_out:
        assert user.dev is user.train and len(user.train) == rows
    else:
        assert (len(user.dev), len(user.train)) == (held_out, rows - held_out)
        assert {row.prompt for row in user.dev}.isdisjoint(row.prompt for row in user.train)


def test_equal_prompts_stay_on_one_side():
    data = Dataset.of([example("ana", f"prompt {number // 3}", f"answer {number}") for number in range(12)])
    (user,) = gather(data, name="x", seed=0).users
    assert len(user.dev) == 3 and len({row.prompt for row in user.dev}) == 1


def test_what_is_drawn_for_a_user_does_not_depend_on_the_others(letters):
    everybody = {user.user: user for user in gather(letters, name="x", seed=3).users}
    (alone,) = gather(only(letters, "ana"), name="x", seed=3).users
    assert alone == everybody["ana"]
    assert len({user.seed for user in everybody.values()}) == 3
    assert user_seed(4, "ana") != user_seed(3, "ana") < 2**32


def test_data_without_users_are_refused():
    with pytest.raises(DataError, match=r"No row of `memory` names a user.*foreword tune"):
        gather(Dataset.of([example(None, "a", "b")] * 3), name="x", seed=0)


# --- together and alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2])
def test_training_together_gives_each_user_what_training_alone_does(engine, letters, brief, together, size):
    apart = by_user(personalize(engine, letters, with_fields(brief, users_at_once=size)))
    assert list(apart) == list(together) == ["ana", "Bert", "cleo@home"]
    for user, result in together.items():
        other = apart[user]
        assert (result.steps, result.rows) == (other.steps, other.rows) and result.steps > 0
        assert result.loss_after == pytest.approx(other.loss_after, abs=1e-4)
        torch.testing.assert_close(result.prefix.key_LHND, other.prefix.key_LHND, rtol=0, atol=1e-4)
        torch.testing.assert_close(result.prefix.value_LHND, other.prefix.value_LHND, rtol=0, atol=1e-4)


def test_other_users_in_the_data_change_nothing(engine, letters, brief, together):
    (alone,) = personalize(engine, only(letters, "Bert"), brief)
    torch.testing.assert_close(alone.prefix.key_LHND, together["Bert"].prefix.key_LHND, rtol=0, atol=1e-4)
    assert alone.prefix.header.training_data == together["Bert"].prefix.header.training_data


def test_users_get_prefixes_of_their_own_that_fit_them(engine, letters, brief):
    together = by_user(personalize(engine, letters, with_fields(brief, examples_seen=60)))
    for user in gather(letters, name="letters", seed=0).users:
        own = together[user.user]
        assert own.loss_after < own.loss_before - 1
        assert loss_of(engine, own.prefix, user.dev) == pytest.approx(own.loss_after, abs=1e-4)
        others = [loss_of(engine, other.prefix, user.train) for name, other in together.items() if name != user.user]
        assert loss_of(engine, own.prefix, user.train) < min(others) - 0.1


def test_a_user_is_trained_as_a_run_for_one_prefix_would_be(engine, letters, together, first_guess):
    (user,) = [user for user in gather(letters, name="letters", seed=0).users if user.user == "ana"]
    rows = encode_examples(engine, user.train.examples, prompt_format="continuation", room=400).rows
    start = Prefix.load(first_guess)
    parameters = ScaledOffsets(start.keys(), start.values())
    schedule = Schedule(peak=0.3, warmup=1, hold=2, total=6)
    trainer = Trainer(engine, lm, parameters, BatchOrder(rows, batch_targets=2, seed=user.seed), schedule, micro_tokens=512)
    trainer.run(together["ana"].steps)
    with torch.no_grad():
        key_LHND, value_LHND = parameters.keys_values()
    torch.testing.assert_close(together["ana"].prefix.key_LHND, key_LHND, rtol=0, atol=1e-4)
    torch.testing.assert_close(together["ana"].prefix.value_LHND, value_LHND, rtol=0, atol=1e-4)


def test_small_groups_of_tokens_change_nothing_but_rounding(engine, letters, brief, together):
    for result in personalize(engine, letters, with_fields(brief, micro_tokens=32)):
        torch.testing.assert_close(result.prefix.key_LHND, together[result.user].prefix.key_LHND, rtol=0, atol=1e-4)


def test_layers_with_a_sliding_window_train_too(engine_of, letters, brief):
    engine = engine_of("gemma3_text")
    settings = with_fields(brief, start="random")
    results = personalize(engine, letters, settings)
    (alone,) = personalize(engine, only(letters, "ana"), settings)
    assert all(result.loss_after < result.loss_before for result in results)
    torch.testing.assert_close(alone.prefix.key_LHND, by_user(results)["ana"].prefix.key_LHND, rtol=0, atol=1e-4)


def test_recomputed_activations_give_the_same(engine, letters, brief, together):
    for result in personalize(engine, only(letters, "ana"), with_fields(brief, checkpointing=True)):
        torch.testing.assert_close(result.prefix.key_LHND, together["ana"].prefix.key_LHND, rtol=0, atol=1e-4)


def test_the_start_is_kept_where_no_checkpoint_is_better(engine, letters, brief, first_guess):
    start = Prefix.load(first_guess)
    for result in personalize(engine, letters, with_fields(brief, learning_rate=1e-30)):
        assert result.steps == 0 and result.loss_after == result.loss_before
        assert torch.equal(result.prefix.key_LHND, start.key_LHND)


def test_labels_are_learned_as_texts(engine, brief):
    rows = [example(user, f"{name} {label}", label) for user in ("a", "b") for name in NAMES[:3] for label in ("good", "bad")]
    results = personalize(engine, Dataset.of(rows, labels=("bad", "good")), with_fields(brief, start="few-shot:2"))
    assert all(result.loss_after < result.loss_before for result in results)


class OneUserFails:
    """The engine, except that a row whose prompt holds `token` has a loss that is no number, from the second training step on."""

    def __init__(self, engine, token):
        self._engine, self._token, self._calls = engine, token, 0

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def target_log_probs(self, rows, key_LHND, value_LHND, *, prefix_of_row):
        self._calls += torch.is_grad_enabled()
        found = self._engine.target_log_probs(rows, key_LHND, value_LHND, prefix_of_row=prefix_of_row)
        bad = [self._token in row.prompt for row in rows for target in row.targets for _ in target]
        return torch.where(torch.tensor(bad) & (self._calls > 1), torch.full_like(found, math.nan), found)


def test_a_user_whose_loss_is_no_number_does_not_hurt_the_others(engine, letters, brief, together, watcher_class):
    token = engine.encode("☃")[0]
    data = letters.with_examples([*letters.examples, *(example("dora", f"{name} ☃", "Yes.") for name in NAMES)])
    watcher = watcher_class()
    results = by_user(personalize(OneUserFails(engine, token), data, brief, observer=watcher))
    assert results["dora"].outcome == "trained" and "the loss became nan" in results["dora"].reason
    assert any(note.startswith("User dora: the loss became nan") and "--learning-rate" in note for note in watcher.notes)
    assert torch.isfinite(results["dora"].prefix.key_LHND).all()
    for user in together:
        torch.testing.assert_close(results[user].prefix.key_LHND, together[user].prefix.key_LHND, rtol=0, atol=1e-4)


# --- what is published ---------------------------------------------------------------------------------------------------


def test_the_header_tells_where_a_prefix_comes_from(engine, letters, first_guess, together):
    users = {user.user: user for user in gather(letters, name="letters", seed=0).users}
    for name, result in together.items():
        header = result.prefix.header
        engine.check(result.prefix)
        assert (header.name, header.kind, header.positions, header.sink) == (users[name].name, "learned", 4, 1)
        assert header.training_data == users[name].train.sha256 and header.seed == 0
        assert header.parents == (Prefix.load(first_guess).header.digest,)
        assert header.recipe["user"] == name and header.recipe["settings"]["learning_rate"] == 0.3
        assert header.recipe["steps"] == 6 and header.recipe["best_step"] == result.steps
        assert header.quality == {"dev_loss": result.loss_after, "dev_loss_at_start": result.loss_before}
    assert together["ana"].prefix.header.recipe["targets_seen"] == 12
    assert not {"users_at_once", "micro_tokens"} & set(together["ana"].prefix.header.recipe["settings"])


def test_a_start_is_looked_up_in_the_store_and_cut_to_length(engine, letters, brief, store, task):
    store.publish(task)
    (result,) = personalize(engine, only(letters, "ana"), with_fields(brief, start="prefix:task"), store=store)
    assert result.positions == 4 < task.positions
    assert store.header(result.reference).parents == (task.header.digest,)


def test_a_block_is_published_when_it_ends_and_not_trained_again(engine, letters, brief, store, watcher_class):
    def interrupt(step):
        if step == 14:  # in the third block of six steps
            raise KeyboardInterrupt

    settings = with_fields(brief, users_at_once=1)
    with pytest.raises(KeyboardInterrupt):
        personalize(engine, letters, settings, store=store, observer=watcher_class(interrupt))
    assert [listing.name for listing in store.list()] == ["letters-ana", "letters-bert"]
    watcher = watcher_class()
    results = by_user(personalize(engine, letters, brief, store=store, observer=watcher))
    assert {user: result.outcome for user, result in results.items()} == {"ana": "kept", "Bert": "kept", "cleo@home": "trained"}
    assert len(watcher.losses) == 6 and "2 of 3 users have this prefix already." in watcher.notes
    kept = results["ana"]
    assert (str(kept.reference), kept.positions, kept.prefix) == ("letters-ana@v1", 4, None)
    assert kept.loss_after < kept.loss_before


def test_what_changed_is_trained_again(engine, letters, brief, store):
    personalize(engine, letters, brief, store=store)
    more = letters.with_examples([*letters.examples, example("Bert", "Bibimbap", "Bibimbap is good. Yours, B.")])
    again = by_user(personalize(engine, more, brief, store=store))
    assert {user: str(result.reference) for user, result in again.items()} == {
        "ana": "letters-ana@v1",
        "cleo@home": "letters-cleo-home@v1",
        "Bert": "letters-bert@v2",
    }
    for changed in ({"seed": 1}, {"start": "text:Answer it."}):
        assert all(result.outcome == "trained" for result in personalize(engine, letters, with_fields(brief, **changed), store=store))
    assert all(
        result.outcome == "kept" for result in personalize(engine, letters, with_fields(brief, start="text:Answer it."), store=store)
    )


def test_starting_over_trains_everybody(engine, letters, brief, store):
    for version in (1, 2):
        (result,) = personalize(engine, only(letters, "ana"), brief, store=store, fresh=True)
        assert str(result.reference) == f"letters-ana@v{version}"


def test_a_damaged_prefix_is_made_again(engine, letters, brief, store, watcher_class):
    (first,) = personalize(engine, only(letters, "ana"), brief, store=store)
    first.reference.path.write_bytes(b"junk")
    watcher = watcher_class()
    (second,) = personalize(engine, only(letters, "ana"), brief, store=store, observer=watcher)
    assert second.outcome == "trained" and str(second.reference) == "letters-ana@v2"
    assert any("letters-ana@v1 is damaged" in note for note in watcher.notes)


# --- behind another prefix -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_trained_behind_a_prefix_is_what_composing_gives(engine_of, letters, brief, store, family):
    engine = engine_of(family)
    rows = only(letters, "ana", "Bert")
    own_start = with_fields(brief, start="text:Answer in one sentence.")
    (task,) = personalize(engine, only(letters, "cleo@home"), with_fields(own_start, positions=9, name="task"), store=store)
    front = store.load(task.reference)
    results = personalize(engine, rows, with_fields(own_start, behind=f"prefix:{task.name}"), store=store)
    users = {user.user: user for user in gather(rows, name="letters", seed=0).users}
    for result in results:
        own = store.load(result.reference)
        assert (own.header.first_position, own.header.sink, own.positions) == (9, 0, 4)
        assert own.header.parents == (front.header.digest,)
        both = compose([front, own], f"{front.name}+x")
        assert both.positions == 13 and torch.equal(both.key_LHND[:, :, 9:], own.key_LHND)
        assert result.loss_after < result.loss_before
        assert loss_of(engine, both, users[result.user].dev) == pytest.approx(result.loss_after, abs=1e-4)


def test_a_front_that_was_moved_composes_as_well(engine, letters, brief, store, task):
    moved = shift(task, 7)
    store.publish(moved)
    (result,) = personalize(engine, only(letters, "ana"), with_fields(brief, start="text:Answer.", behind="task"), store=store)
    both = compose([moved, store.load(result.reference)], "task+ana")
    (data,) = gather(only(letters, "ana"), name="letters", seed=0).users
    assert loss_of(engine, shift(both, 0), data.dev) == pytest.approx(result.loss_after, abs=1e-4)


def test_log_probs_of_each_row_are_those_under_the_composition(engine, letters, brief, store, task):
    """Row by row against the frozen front and the user's positions laid out by hand, as training does it."""
    store.publish(task)
    (result,) = personalize(engine, only(letters, "Bert"), with_fields(brief, start="text:Answer.", behind="prefix:task"), store=store)
    own = store.load(result.reference)
    rows = encode_examples(engine, only(letters, "Bert").examples, prompt_format="continuation", room=400).rows
    by_hand = [torch.cat(pair, dim=2)[None] for pair in ((task.keys(), own.keys()), (task.values(), own.values()))]
    trained = engine.target_log_probs(rows, *by_hand, prefix_of_row=[0] * len(rows))
    served = compose([task, own], "task+bert")
    torch.testing.assert_close(engine.target_log_probs(rows, served.keys(), served.values()), trained, rtol=0, atol=1e-4)


def test_a_front_that_leaves_no_room_is_refused(engine_of, letters, brief, store):
    engine = engine_of("llama", max_position_embeddings=64)
    (wide,) = personalize(engine, only(letters, "ana"), with_fields(brief, positions=20, start="random", name="wide"), store=store)
    with pytest.raises(WindowError, match="20 positions in front and 24 of each user leave too little of the window of 64"):
        personalize(engine, letters, with_fields(brief, positions=24, start="random", behind=wide.name), store=store)


def test_a_front_for_another_model_is_refused(engine_of, letters, brief, store, task):
    store.publish(task)
    with pytest.raises(PrefixMismatch):
        personalize(engine_of("qwen3"), letters, with_fields(brief, start="text:Answer.", behind="prefix:task"), store=store)


@pytest.mark.parametrize("fields", [{"behind": "prefix:nothing"}, {"start": "prefix:nothing"}])
def test_a_prefix_that_is_not_there_is_named(engine, letters, brief, store, fields):
    with pytest.raises(StoreError, match="No prefix is named `nothing`"):
        personalize(engine, letters, with_fields(brief, **fields), store=store)


# --- plans, time and bad data --------------------------------------------------------------------------------------------


def test_targets_and_evaluations_are_told(engine, letters, brief, watcher_class):
    watcher = watcher_class()
    personalize(engine, letters, brief, observer=watcher)
    assert watcher.plans[0] == 36 == watcher.done[-1] and len(watcher.losses) == 6
    assert [name for name, _ in watcher.dev] == ["users 1 to 3 of 3"] * 4
    assert watcher.dev[-1][1] < watcher.dev[0][1]


def test_users_with_more_rows_train_longer(engine, brief):
    data = Dataset.of([example(user, f"{user} {number}", "yes") for user, rows in (("few", 3), ("many", 21)) for number in range(rows)])
    settings = with_fields(brief, examples_seen=None, batch_targets=4, start="text:Say yes.", learning_rate=1e-6)
    results = by_user(personalize(engine, data, settings))
    steps = {user: result.prefix.header.recipe["steps"] for user, result in results.items()}
    assert steps == {"few": 16, "many": 38}


def test_a_budget_cuts_everybodys_plan(engine, letters, brief, watcher_class):
    settings = with_fields(brief, examples_seen=100_000, budget_seconds=1.0, users_at_once=2)
    watcher = watcher_class()
    results = personalize(engine, letters, settings, observer=watcher)
    assert all(1 <= result.prefix.header.recipe["steps"] < 50_000 for result in results)
    assert watcher.plans[0] == 300_000 > watcher.plans[-1]


def test_a_budget_is_no_reason_to_see_more_than_was_asked_for(engine, letters, brief):
    results = personalize(engine, letters, with_fields(brief, budget_seconds=500.0))
    assert [result.prefix.header.recipe["steps"] for result in results] == [6, 6, 6]


def test_who_has_too_few_rows_is_skipped_and_named(engine, letters, brief, watcher_class):
    watcher = watcher_class()
    data = only(letters, "ana").with_examples([*of_user("dora", 1), *only(letters, "ana"), example(None, "Who?", "Me.")])
    results = personalize(engine, data, brief, observer=watcher)
    assert [(result.user, result.outcome) for result in results] == [("dora", "skipped"), ("ana", "trained")]
    assert results[0].reason == "has 1 row; at least 2 are needed"
    assert "1 users have fewer than 2 rows and get no prefix: dora." in watcher.notes
    assert "letters.jsonl: 1 row without a user is left out." in watcher.notes


def test_nobody_with_enough_rows(engine, brief):
    with pytest.raises(TuningError, match=r"No user of memory has 2 usable rows"):
        personalize(engine, Dataset.of([*of_user("a", 1), *of_user("b", 1)]), brief)


def test_long_rows(engine, letters, brief, watcher_class):
    endless = [example("dora", f"{name} {'long ' * 300}", "Yes.", line=90 + line) for line, name in enumerate(NAMES[:2])]
    data = letters.with_examples([*letters.examples, *endless])
    with pytest.raises(WindowError, match=r"Line 90: .*--on-long skip"):
        personalize(engine, data, brief)
    watcher = watcher_class()
    results = by_user(personalize(engine, data, with_fields(brief, on_long="skip"), observer=watcher))
    assert results["dora"].outcome == "skipped" and "no row fits" in results["dora"].reason
    assert "2 examples were too long (lines 90, 91)." in watcher.notes


def test_several_workers_are_refused(engine, letters, brief, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TuningError, match="in one process"):
        personalize(engine, letters, brief)


@pytest.mark.parametrize(
    ("wanted", "numbers", "users"), [(None, 200_000, 64), (None, 10_000_000, 6), (None, 10**12, 1), (500, 10**12, 500)]
)
def test_users_at_once_follow_from_memory(wanted, numbers, users):
    assert users_at_once(PersonalSettings(users_at_once=wanted), numbers) == users


def test_no_weight_gradient_is_ever_allocated(engine, letters, brief, watcher_class):
    def check(engine, step):
        assert all(weight.grad is None and not weight.requires_grad for weight in engine.module.parameters())

    personalize(engine, letters, brief, observer=watcher_class(functools.partial(check, engine)))

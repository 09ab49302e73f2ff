"""Prefix: one of ours. `prefix:NAME` takes a tuned one from the store, `prefix` tunes one now, inside the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.errors import ConfigError
from foreword.evaluate.contender import Context, Prepared, split_for_selection

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix
    from foreword.types import Example, Message

TUNED_NAME = "prefix"


def check(argument: str | None) -> None:
    """Raises ConfigError when the reference is blank; whether the store has it shows when it is loaded."""
    if argument is not None and not argument.strip():
        raise ConfigError("`prefix:` needs the name of a stored prefix, e.g. `prefix:support` or `prefix:support@prod`.")


def prepare(context: Context) -> Prepared:
    """Loads the named prefix, or tunes one.

    Raises:
        StoreError: the store has no such prefix.
        PrefixMismatch: it was made for another model.
        TuningError: tuning could not start or go on.
    """
    return _stored(context, context.argument) if context.argument else _tuned(context)


def _stored(context: Context, reference: str) -> Prepared:
    from foreword.prefix.store import PrefixStore

    store = PrefixStore(context.store_root)
    found = store.resolve(reference)
    prefix = store.load(found)
    context.engine.check(prefix)
    header = prefix.header
    seconds = header.recipe.get("seconds")
    known = isinstance(seconds, int | float)
    notes = [f"{found}, trained earlier" + ("" if known else "; its training time is not on record")]
    if header.training_data is not None and header.training_data != context.task.train.sha256:
        notes.append("trained on other rows than the rest of the table")
    return _prepared(
        context,
        prefix,
        seconds=float(seconds) if known else 0.0,
        artifact_bytes=found.path.stat().st_size,
        notes=tuple(notes),
    )


def _tuned(context: Context) -> Prepared:
    """What `foreword tune` does without a knob set, on the rows that every contender learns from."""
    from foreword.tuning.settings import TuneSettings
    from foreword.tuning.tuner import tune

    start = context.now()
    fit, selection = split_for_selection(context.task.train, context.seed)
    settings = TuneSettings(
        name=TUNED_NAME,
        budget_seconds=context.budget_seconds,
        budget_clock=context.clock,
        instruction=context.task.instruction,
        seed=context.seed,
        on_long="skip",
    )
    context.report("tuning")
    train = context.task.train
    result = tune(context.engine, train.with_examples(fit), train.with_examples(selection), settings, run_folder=context.scratch / "run")
    seconds = context.now() - start
    kept = context.scratch / f"{TUNED_NAME}.safetensors"
    result.prefix.save(kept)
    return _prepared(context, result.prefix, seconds=seconds, artifact_bytes=kept.stat().st_size, notes=())


def _prepared(context: Context, prefix: Prefix, *, seconds: float, artifact_bytes: int, notes: tuple[str, ...]) -> Prepared:
    header = prefix.header
    learned = header.kind in ("learned", "distilled")
    return Prepared(
        engine=context.engine,
        conversations=_as_it_is,
        prefix=prefix,
        trained_parameters=prefix.parameters if learned else 0,
        artifact_bytes=artifact_bytes,
        training_seconds=seconds,
        notes=(f"{prefix.positions} positions, {header.kind}, {header.dtype}, prompt {header.prompt_format}", *notes),
    )


def _as_it_is(example: Example) -> tuple[Message, ...]:
    """The example's own turns: the prefix stands for the instruction."""
    return example.messages
